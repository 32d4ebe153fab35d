"""The report: one HTML file that needs no network, made from run folders alone.

In `web`: `templates/page.html` is the frame, `page.css` its looks, `js` what moves. Data goes in as JSON, and
its text enters the document as text nodes only. Plotly's cartesian bundle is inlined once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.analysis.aggregate import row
from bench.analysis.bottleneck import explained
from bench.analysis.capacity_models import KNEE
from bench.analysis.ceiling import read_ceiling
from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.cell_table import by_cell, complete, frame
from bench.analysis.recommendation import WIDE, Limit
from bench.analysis.stats import LEAST_REPEATS, samples_needed
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.slo import parse_slo
from bench.core.trial import Trial
from bench.core.units import plural
from bench.report import charts, sections, templates
from bench.report.cell_details import MOST_BINS, detail, median_trial
from bench.report.charts.style import Entry, Keys
from bench.report.mlperf import headline
from bench.report.repeat_command import repeat_command
from bench.report.terminal import restarts

# Time series of every repeat up to here; beyond it, of one repeat a cell, so that the page stays small.
MOST_SERIES = 60
PLOTLY = "vendor/plotly-cartesian.min.js"
_MOST_NUMBERS = 75_000  # in all time series together: about 400 kB
_LOAD_LINES = 7
_NOT_IN_JSON = ("percentiles",)

Json = dict[str, Any]


def write(folder: RunFolder) -> Path:
    """The run's report.html, atomically."""
    path = folder.path / "report.html"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(render([folder]), encoding="utf-8")
    part.replace(path)
    return path


def render(folders: Sequence[RunFolder]) -> str:
    """The page over one run or several; the newest is the one that is judged."""
    runs = sorted(((folder.record, folder) for folder in folders), key=lambda run: run[0].created_at)
    entries: list[Entry] = []
    details: Json = {}
    for position, (record, folder) in enumerate(runs):
        rows, of_cells = _read(folder, record)
        for cell_row in rows:
            if cell_row.cell in of_cells:
                details[str(len(entries))] = of_cells[cell_row.cell]
            entries.append(Entry(len(entries), position, cell_row))
    records = [record for record, _ in runs]
    newest = [entry.row for entry in entries if entry.run == len(runs) - 1]
    newest_first = [folder for _, folder in reversed(runs)]
    return templates.render(
        "page.html",
        record=records[-1],
        facts=_facts(records[-1], newest),
        alerts=_alerts(records[-1]),
        older=", ".join(record.name for record in records[:-1]),
        sections_above=sections.render(sections.ABOVE, newest_first),
        sections_below=sections.render(sections.BELOW, newest_first),
        charts=charts.CHARTS,
        data=Markup(embed(_data(records, entries, details))),
        plotly=Markup(templates.asset(PLOTLY)),
        script=Markup(templates.script()),
    )


def embed(data: Any) -> str:
    """JSON that cannot end its script element, open a comment in it, or break a line of JavaScript."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(folder: RunFolder, record: RunRecord) -> tuple[list[CellRow], Mapping[str, Json]]:
    """Rows and details in one pass; one cell's samples in memory at a time."""
    measured, details = [], {}
    folder_of_cells = folder.path / "trials"
    trial_count = sum(1 for _ in folder_of_cells.glob("*/*.json"))
    every = trial_count <= MOST_SERIES
    shown = trial_count if every else sum(1 for _ in folder_of_cells.iterdir())
    for trials in by_cell(folder.trials()):
        found = row(trials, record)
        measured.append(found)
        details[found.cell] = _detail(trials, shown, every=every)
    return explained(complete(measured, record), read_ceiling(folder.path)), details


def _detail(trials: Sequence[Trial], shown: int, *, every: bool) -> Json:
    """`shown`: how many trials of the run have their time series drawn, and so share the room there is."""
    chosen = range(len(trials)) if every else [median_trial(trials)]
    lines = _LOAD_LINES + len(trials[0].machine)
    bins = max(10, min(MOST_BINS, _MOST_NUMBERS // (lines * shown)))
    return {**detail(trials, chosen, bins), "repeats": len(trials)}


def _data(records: Sequence[RunRecord], entries: Sequence[Entry], details: Json) -> Json:
    rows = [entry.row for entry in entries]
    keys = Keys.of(entries)
    columns, table = _table(entries)
    return {
        "runs": [{"name": r.name, "created_at": r.created_at, "slo": r.slo} for r in records],
        "columns": columns,
        "rows": table,
        "percents": PERCENTS,
        "needed": [samples_needed(percent) for percent in PERCENTS],
        "percent": _percent(rows),
        "limit": _limit(records[-1].slo),
        "knee": KNEE,
        "wide": WIDE,
        "headline": headline([e.row for e in entries if e.run == len(records) - 1], records[-1]),
        "trust": _trust([e.row for e in entries if e.run == len(records) - 1]),
        "keys": {
            "instances": [[i, keys.colour(i)] for i in keys.instances],
            "batches": [[b, keys.shape(b)] for b in keys.batches],
        },
        "figures": charts.for_page(entries, keys),
        "details": details,
        "commands": [repeat_command(e.row, records[e.run]) for e in entries],
        "csv": frame(rows).to_csv(index=False),
    }


def _table(entries: Sequence[Entry]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, as the page and its JSON download have them."""
    names = [entry.name for entry in fields(CellRow) if entry.name not in _NOT_IN_JSON]
    table = []
    for entry in entries:
        known = asdict(entry.row)
        latencies = [entry.row.latency_ms(percent) for percent in PERCENTS]
        known["proved_ms"] = known["proved_ms"] or [None] * len(PERCENTS)
        table.append([entry.run, latencies, *(known[name] for name in names)])
    return ["run", "latencies_ms", *names], table


def _percent(rows: Sequence[CellRow]) -> float:
    """The highest percentile up to p99 that most measured cells have samples for."""
    measured = [r for r in rows if r.throughput_img_per_s]
    for percent in (99.0, 95.0, 90.0):
        known = sum(r.latency_ms(percent) is not None for r in measured)
        if measured and 2 * known >= len(measured):
            return percent
    return 50.0


def _limit(slo: str) -> Json | None:
    if not slo:
        return None
    return asdict(Limit.of(parse_slo(slo)))


def _trust(rows: Sequence[CellRow]) -> str:
    counts = sorted({r.repeats for r in rows if r.repeats})
    if not counts or counts[-1] < LEAST_REPEATS:
        return "Fewer than three repeats: no intervals; figures are indicative."
    repeats = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{repeats} repeats per cell; intervals are 95 % over repeats."


def _facts(record: RunRecord, rows: Sequence[CellRow]) -> list[str]:
    """The line below the page's heading, the model first."""
    requests = sum(r.requests for r in rows)
    facts = [
        ", ".join(sorted({r.model for r in rows})),
        record.target,
        record.machine.get("gpu0", record.machine.get("cpu", "")),
        record.created_at.replace("T", " ")[:16],
        f"{plural(len(rows), 'cell')}, {plural(requests, 'request')}",
    ]
    return [fact for fact in facts if fact]


def _alerts(record: RunRecord) -> list[str]:
    """What makes the whole run less than it should be."""
    unfinished = [] if record.finished_at else ["interrupted, or still running"]
    return [*unfinished, *([restarts(record)] if record.crashes else [])]
