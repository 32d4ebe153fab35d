"""The forms in which runs are put out: a table of exporters, by the name that `bench report --format` takes.

To add one, write a function that takes the results of one run or several and returns the text, add it to
`EXPORTERS`, and its name to the option `report_format` of `bench.core.options`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from rich.console import Console

from bench.analysis.cell_row import CellRow
from bench.analysis.recommendation import Limit, recommend, stated
from bench.analysis.results import RunResults
from bench.core.run_folder import RunRecord
from bench.core.slo import parse_slo
from bench.report import page, terminal


class Exporter(Protocol):
    """Puts runs into a text; the last one is the newest where it matters."""

    def __call__(self, runs: Sequence[RunResults], /) -> str: ...


def markdown(runs: Sequence[RunResults]) -> str:
    """A table per run for a pull request, under the run's name where there are several."""
    return "\n".join(
        (f"### {terminal.plain(run.record.name)}\n\n" if len(runs) > 1 else "")
        + terminal.markdown(run.rows, run.record)
        for run in runs
    )


def table(runs: Sequence[RunResults]) -> str:
    """What a sweep prints at its end, without colours, under the run's name where there are several."""
    console = Console(file=io.StringIO(), highlight=False)
    for position, run in enumerate(runs):
        if len(runs) > 1:
            console.print(("\n" if position else "") + run.record.name, markup=False)
        terminal.show(run.rows, run.record, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    return text


def as_json(runs: Sequence[RunResults]) -> str:
    """A list with an object per cell, with the run's name where there are several."""
    rows = [
        {**({"run": run.record.name} if len(runs) > 1 else {}), **cell}
        for run in runs
        for cell in cells_as_json(run.rows, run.record)
    ]
    return json.dumps(rows, indent=1, default=str) + "\n"


def cells_as_json(rows: Sequence[CellRow], record: RunRecord) -> list[dict[str, Any]]:
    """An object per cell: its row, and `recommended`, which says what is stated of the best one."""
    choice = recommend(rows, Limit.of(parse_slo(record.slo)) if record.slo else None)
    best = choice.best
    said = {**asdict(stated(best)), "best_of": choice.candidates} if best else None
    return [{**asdict(row), "recommended": said if row is best else None} for row in rows]


EXPORTERS: dict[str, Exporter] = {"html": page.render, "md": markdown, "table": table, "json": as_json}
