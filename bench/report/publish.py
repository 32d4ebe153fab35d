"""What every measured run ends with: cells.csv, report.html, the table, and the folder's index."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.analysis import cell_table
from bench.analysis.results import RunResults
from bench.core.paths import REPORTS
from bench.core.run_folder import RunFolder
from bench.report import index, page, terminal

TALK = Console(stderr=True, highlight=False)


def publish(folder: RunFolder, *, as_json: bool) -> RunResults:
    """Write and show all of it from the folder's trials, which are read once.

    `as_json`: stdout is left to what the verb prints there.
    """
    results = RunResults.of(folder)
    report_path = write_files(results)
    terminal.show(results.rows, results.record, TALK if as_json else Console(highlight=False))
    list_in_index(folder.path)
    TALK.print(f"report: {report_path}", soft_wrap=True)
    return results


def write_files(results: RunResults) -> Path:
    """Write cells.csv and report.html into the run's folder, and say where the report is."""
    cell_table.write_csv(results.rows, results.folder.path / "cells.csv")
    return page.write(results)


def list_in_index(path: Path) -> None:
    """Renew the list of runs, where `path` lies in the folder that has one."""
    if path.parent.name == REPORTS:
        index.write(path.parent)
