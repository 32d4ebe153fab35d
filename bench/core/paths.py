"""Where files are: those that travel with the package (models, a locustfile, manifests), and the runs.

A wheel has the former in `bench/data` (setup.py lays them there). A checkout and an editable install have
them at the top of the repository.
"""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import ToolError

_PACKAGE = Path(__file__).parents[1]
_DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent

MODEL_REPOSITORY = _DATA / "model_repository"
LOCUSTFILE = _DATA / "locustfiles" / "vit.py"
MANIFESTS = _DATA / "manifests"
# Runs go into this folder where --out names no other; an index of them is kept there.
REPORTS = "reports"


def shipped(path: Path) -> Path:
    """`path` again, one of the above. Raises ToolError where the installation lacks it."""
    if not path.exists():
        raise ToolError(
            f"{path} is missing, which is a part of triton-bench: install the package again, or name your "
            "own models with --repository."
        )
    return path
