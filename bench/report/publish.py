"""What every measured run ends with: cells.csv, report.html, the table, and the folder's index."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.analysis import cell_table
from bench.analysis.cell_row import CellRow
from bench.core.paths import REPORTS
from bench.core.run_folder import RunFolder
from bench.report import index, page, terminal

TALK = Console(stderr=True, highlight=False)


def publish(folder: RunFolder, *, as_json: bool) -> list[CellRow]:
    """Writes all of it from the folder's trials. `as_json`: stdout is left to what the verb prints there."""
    rows = cell_table.rows(folder)
    cell_table.write_csv(rows, folder.path / "cells.csv")
    report_path = page.write(folder)
    terminal.show(rows, folder.record, TALK if as_json else Console(highlight=False))
    list_in_index(folder.path)
    TALK.print(f"report: {report_path}", soft_wrap=True)
    return rows


def list_in_index(path: Path) -> None:
    """Renews the list of runs, where `path` is where lists are kept."""
    if path.parent.name == REPORTS:
        index.write(path.parent)
