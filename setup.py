"""What pyproject.toml cannot say: the files at the top of the repository travel in the wheel as bench/data.

A checkout and an editable install read them where they lie. `bench/core/paths.py` knows both places.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("model_repository", "locustfiles", "manifests")


class BuildWithData(build_py):
    def run(self) -> None:
        if not self.editable_mode:
            # What an earlier build left there, such as modules that have moved, would end in the wheel too.
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                shutil.copytree(
                    name,
                    Path(self.build_lib, "bench", "data", name),
                    ignore=shutil.ignore_patterns("__pycache__"),
                )


setup(cmdclass={"build_py": BuildWithData})
