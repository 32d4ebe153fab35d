"""The cells of a run, a row each: measured or not, in the order they were asked for; and as a CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from bench.analysis.aggregate import absent, broken, row
from bench.analysis.bottleneck import explained
from bench.analysis.ceiling import read_ceiling
from bench.analysis.cell_row import COLUMNS, CellRow
from bench.analysis.engine_agreement import with_agreement
from bench.core.files import write_text
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.trial import Trial
from bench.core.vit_variants import AXES

__all__ = ["CellRow", "by_cell", "complete", "frame", "rows", "write_csv"]


def rows(folder: RunFolder) -> list[CellRow]:
    """A row for every cell that was asked for, in the order of the axes; measured or not."""
    record = folder.record
    measured = complete([row(trials, record) for trials in by_cell(folder.trials())], record)
    return explained(measured, read_ceiling(folder.path))


def complete(measured: Sequence[CellRow], record: RunRecord) -> list[CellRow]:
    """The measured rows, with the engines' agreement, and one for each planned cell without a trial."""
    found = {entry.cell: broken(entry, record) for entry in with_agreement(measured)}
    for cell in record.planned:
        if cell.key not in found:
            found[cell.key] = broken(absent(cell, record, record.failed.get(cell.key)), record)
    order = {cell.key: index for index, cell in enumerate(record.planned)}
    return sorted(found.values(), key=lambda entry: order.get(entry.cell, len(order)))


def by_cell(trials: Iterable[Trial]) -> Iterator[list[Trial]]:
    """Trials come sorted by cell, so only one cell's samples are in memory at a time; repeats in order."""
    group: list[Trial] = []
    for trial in trials:
        if group and group[0].cell.key != trial.cell.key:
            yield sorted(group, key=lambda one: one.plan.repeat)
            group = []
        group.append(trial)
    if group:
        yield sorted(group, key=lambda one: one.plan.repeat)


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
