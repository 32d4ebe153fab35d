"""The cells of a run as a table, a row each, and as the file cells.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.analysis.cell_row import COLUMNS, CellRow
from bench.core.files import write_text
from bench.core.vit_variants import AXES


def frame(table: Sequence[CellRow]) -> pd.DataFrame:
    """Column order of CellRow; other parameters of the server follow as columns of their own."""
    parameters = sorted({name for entry in table for name in entry.parameters if name not in AXES})
    # A model's parameter may be called as one of our columns is.
    named = {name: f"parameter_{name}" if name in COLUMNS else name for name in parameters}
    data = [
        {
            **{name: getattr(entry, name) for name in COLUMNS},
            **{named[p]: entry.parameters.get(p) for p in parameters},
        }
        for entry in table
    ]
    # Whole numbers stay whole beside empty fields.
    return pd.DataFrame(data, columns=[*COLUMNS, *named.values()]).convert_dtypes()


def write_csv(table: Sequence[CellRow], path: Path) -> None:
    """Write the table atomically. Raises RunFolderError where it cannot be written."""
    write_text(path, frame(table).to_csv(index=False))
