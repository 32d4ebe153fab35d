"""The cells of a run as a table for a terminal, or as markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.cells import CellRow
from bench.findings import Severity
from bench.run import RunRecord
from bench.units import significant

_COLUMNS = (
    "protocol",
    "batch",
    "inst.",
    "load",
    "engine",
    "img/s",
    "req/s",
    "p50 ms",
    "p99 ms",
    "n",
    "verdict",
)
_STYLE = {"VALID": "green", "INVALID": "red", "FAILED": "red", "NOT RUN": "yellow"}


def show(rows: Sequence[CellRow], record: RunRecord, console: Console) -> None:
    """The table, then each finding once with the cells it is of."""
    for line in summary(rows, record):
        console.print(line, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = _used(rows)
    for heading in kept:
        table.add_column(heading, justify="left" if heading in ("protocol", "load", "verdict") else "right")
    for row in rows:
        cells = _cells(row)
        style = _STYLE.get(row.verdict, "")
        table.add_row(*(f"[{style}]{cells[c]}[/]" if c == "verdict" else cells[c] for c in kept))
    console.print(table)
    for line in findings(rows):
        console.print(line, markup=False, soft_wrap=True)


def markdown(rows: Sequence[CellRow], record: RunRecord) -> str:
    """The same, for a comment."""
    kept = _used(rows)
    lines = [*summary(rows, record), "", f"| {' | '.join(kept)} |", f"|{'---|' * len(kept)}"]
    for row in rows:
        cells = _cells(row)
        lines.append(f"| {' | '.join(cells[c].replace('|', chr(92) + '|') for c in kept)} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in findings(rows))])


def summary(rows: Sequence[CellRow], record: RunRecord) -> list[str]:
    """What a reader wants first: the best cell, and whether to believe it."""
    valid = [row for row in rows if row.verdict == "VALID" and row.throughput_img_per_s]
    lines = [record.weights] if record.weights else []
    if not valid:
        return [*lines, "No valid cell was measured."]
    fits = [row for row in valid if row.slo_met] if record.slo else valid
    if record.slo and not fits:
        lines.append(f"No cell is proved to hold {record.slo}.")
    else:
        best = max(fits, key=lambda row: row.goodput_img_per_s or row.throughput_img_per_s or 0)
        held = f" within {record.slo}" if record.slo else ""
        lines.append(f"Most throughput{held}: {_named(best)}: {_throughput(best)} img/s.")
    quick = [row for row in valid if row.latency_p50_ms is not None]
    if quick:
        low = min(quick, key=lambda row: row.latency_p50_ms or 0)
        lines.append(f"Lowest median latency: {_named(low)}: {significant(low.latency_p50_ms or 0)} ms.")
    if any(p.value_ns is None for row in valid for p in row.percentiles if p.percent in (50.0, 99.0)):
        lines.append("n<662 stands where a percentile has too few requests: p50 needs 11, p99 662.")
    if any(row.throughput_img_per_s_low is None for row in valid):
        lines.append("Fewer than three repeats: no intervals, figures are indicative.")
    return lines


def findings(rows: Sequence[CellRow]) -> list[str]:
    """Each finding once, with how many cells have it."""
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        for finding in row.remarks:
            if finding.severity is Severity.NOTE:
                continue
            key = (finding.severity.value, finding.code)
            count, text = seen.get(key, (0, f"{finding.seen} {finding.cause} {finding.next_step}"))
            seen[key] = (count + 1, text)
        if row.reason and row.verdict == "FAILED":
            seen[("FAILED", row.reason)] = (seen.get(("FAILED", row.reason), (0, ""))[0] + 1, row.reason)
    return [
        f"{severity} {code if severity != 'FAILED' else ''} ({count} cell{'s' * (count > 1)}): {text}"
        for (severity, code), (count, text) in sorted(seen.items())
    ]


def _named(row: CellRow) -> str:
    instances = "" if row.instances is None else f", {row.instances} instance{'s' * (row.instances != 1)}"
    return f"batch {row.batch}{instances}, {row.protocol}, {_load(row)}"


def _load(row: CellRow) -> str:
    return f"{row.rate_per_s:g}/s" if row.rate_per_s is not None else f"{row.concurrency} users"


def _throughput(row: CellRow) -> str:
    value = significant(row.throughput_img_per_s or 0)
    if row.throughput_img_per_s_low is None or row.throughput_img_per_s_high is None:
        return value
    return (
        f"{value} ({significant(row.throughput_img_per_s_low)}-{significant(row.throughput_img_per_s_high)})"
    )


def _cells(row: CellRow) -> dict[str, str]:
    return {
        "protocol": row.protocol,
        "batch": str(row.batch),
        "inst.": "" if row.instances is None else str(row.instances),
        "load": _load(row),
        "engine": row.engine,
        "img/s": _throughput(row) if row.throughput_img_per_s else "",
        "req/s": significant(row.throughput_req_per_s) if row.throughput_req_per_s else "",
        "p50 ms": _or_missing(row, 50.0, row.latency_p50_ms),
        "p99 ms": _or_missing(row, 99.0, row.latency_p99_ms),
        "n": str(row.latency_n),
        "verdict": row.verdict,
        "within SLO": {True: "yes", False: "no", None: "not proved"}[row.slo_met],
        **dict(row.parameters),
    }


def _or_missing(row: CellRow, percent: float, value: float | None) -> str:
    if value is not None:
        return significant(value)
    needed = next((p.needed for p in row.percentiles if p.percent == percent), None)
    return f"n<{needed}" if needed and row.latency_n else ""


def _used(rows: Sequence[CellRow]) -> list[str]:
    parameters = sorted({name for row in rows for name in row.parameters})
    engines = {row.engine for row in rows}
    columns = [c for c in _COLUMNS if c != "engine" or len(engines) > 1]
    slo = ["within SLO"] if any(row.goodput_img_per_s is not None for row in rows) else []
    return [*columns[:4], *parameters, *columns[4:-1], *slo, "verdict"]
