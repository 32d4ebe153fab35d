"""Where files are: the model repository that travels with the package, and the runs."""

from __future__ import annotations

from pathlib import Path

MODEL_REPOSITORY = Path(__file__).parents[2] / "model_repository"

# Runs go into this folder where --out names no other; an index of them is kept there.
REPORTS = "reports"
