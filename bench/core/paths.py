"""Where the files are that travel with the package: the model repository."""

from __future__ import annotations

from pathlib import Path

MODEL_REPOSITORY = Path(__file__).parents[2] / "model_repository"
