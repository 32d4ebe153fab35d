"""Names of a played cluster's services: each an address of this host, so that ports can be the real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "names"


class Names:
    """What `tests/data/names/sitecustomize.py` reads in processes that have `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, str] = {}
        file.write_text("{}")

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH", ""))))
        return {"PYTHONPATH": path, "BENCH_TEST_NAMES": str(self._file)}

    def give(self, name: str) -> str:
        """An address of its own in 127/8; other test processes of this host have others."""
        process = os.getpid()
        address = f"127.{1 + process // 256 % 200}.{process % 256}.{1 + len(self._known)}"
        self._known[name] = address
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self._known))
        part.replace(self._file)  # whole at any moment: it is read while it is written
        return address
