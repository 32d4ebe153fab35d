"""The report: one HTML file that needs no network, made from run folders alone.

In `web`: `templates/page.html` is the frame, `page.css` its looks, `js` what moves. Data goes in as JSON, and
its text enters the document as text nodes only. Plotly's cartesian bundle is inlined once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.analysis.capacity_models import KNEE
from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.cell_table import frame
from bench.analysis.recommendation import WIDE, Limit
from bench.analysis.results import RunResults
from bench.analysis.stats import LEAST_REPEATS, samples_needed
from bench.core.cell import Protocol
from bench.core.files import write_text
from bench.core.run_folder import RunRecord
from bench.core.slo import parse_slo
from bench.core.units import plural
from bench.report import charts, sections, templates
from bench.report.charts.style import Entry, Keys, dash
from bench.report.mlperf import headline
from bench.report.repeat_command import repeat_command
from bench.report.terminal import restarts

PLOTLY = "vendor/plotly-cartesian.min.js"
_NOT_IN_JSON = ("percentiles",)

Json = dict[str, Any]


def write(results: RunResults) -> Path:
    """Write the run's report.html. Raises RunFolderError where it cannot be written."""
    path = results.folder.path / "report.html"
    write_text(path, render([results]))
    return path


def render(several: Sequence[RunResults]) -> str:
    """The page over one run or several; the newest is the one that is judged."""
    runs = sorted(several, key=lambda run: run.record.created_at)
    entries: list[Entry] = []
    details: Json = {}
    for position, run in enumerate(runs):
        for cell in run.cells:
            if cell.detail is not None:
                details[str(len(entries))] = asdict(cell.detail)
            entries.append(Entry(len(entries), position, cell.row))
    records = [run.record for run in runs]
    newest = [entry.row for entry in entries if entry.run == len(runs) - 1]
    newest_first = [run.folder for run in reversed(runs)]
    return templates.render(
        "page.html",
        record=records[-1],
        facts=_facts(records[-1], newest),
        alerts=[alert for run in runs for alert in _lost(run)] + _alerts(records[-1]),
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
        "least_repeats": LEAST_REPEATS,
        "percent": _percent(rows),
        "limit": _limit(records[-1].slo),
        "knee": KNEE,
        "wide": WIDE,
        "headline": headline([e.row for e in entries if e.run == len(records) - 1], records[-1]),
        "trust": _trust([e.row for e in entries if e.run == len(records) - 1]),
        "keys": {
            "instances": [[i, keys.colour(i)] for i in keys.instances],
            "batches": [[b, keys.shape(b)] for b in keys.batches],
            "protocols": [[p, dash(p)] for p in Protocol if any(row.protocol == p for row in rows)],
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
        for name in ("proved_ms", "proof_s"):
            known[name] = known[name] or [None] * len(PERCENTS)
        at_least = [entry.row.is_at_least(percent) for percent in PERCENTS]
        table.append([entry.run, latencies, at_least, *(known[name] for name in names)])
    return ["run", "latencies_ms", "latencies_at_least", *names], table


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
    return f"{repeats} repeats per cell; intervals are at 95 %."


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


def _lost(run: RunResults) -> list[str]:
    """Trials that cannot be read, so that nobody takes the rest for all of them."""
    if not run.unreadable:
        return []
    reasons = " ".join(one.reason for one in run.unreadable[:3])
    more = f" And {len(run.unreadable) - 3} more." if len(run.unreadable) > 3 else ""
    return [f"{plural(len(run.unreadable), 'trial')} unreadable, and left out. {reasons}{more}"]


def _alerts(record: RunRecord) -> list[str]:
    """What makes the whole run less than it should be."""
    unfinished = [] if record.finished_at else ["interrupted, or still running"]
    return [*unfinished, *([restarts(record)] if record.crashes else [])]
