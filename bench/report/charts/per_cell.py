"""Charts with a line of text per cell: where the time goes, repeats, and two engines on the same cell."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from bench.analysis.cell_row import CellRow
from bench.analysis.engine_agreement import MEASURES, pairs
from bench.core.units import plural
from bench.report.charts.style import (
    NEUTRAL,
    Entry,
    Json,
    Keys,
    in_order,
    note,
    plotly_figure,
    whiskers,
    with_throughput,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

PARTS = (
    # name, colour, column of the cell's row
    ("send lateness", "#b8549f", "lateness_mean_ms"),
    ("client and network", "#8b8f98", "client_and_network_ms"),
    ("server queue", "#d9a441", "server_queue_ms"),
    ("compute input", "#7fb0de", "server_compute_input_ms"),
    ("compute infer", "#3a7cc9", "server_compute_infer_ms"),
    ("compute output", "#1f4f87", "server_compute_output_ms"),
)
_SHADES = {"throughput": ("#3a7cc9", "circle"), "p50": ("#d9730d", "diamond"), "p99": ("#b8549f", "square")}
# A bar longer than this many times the median is cut at the end of the axis, and the axis says so.
_CUT = 6.0
# Measures of one cell stand this far apart, as a share of its line.
_NUDGE = 0.22


def time_parts(row: CellRow) -> dict[str, float]:
    """Parts of the mean response time, ms; what the server does not account for is client and network."""
    server = {name: getattr(row, name) or 0.0 for _, _, name in PARTS if name.startswith("server_")}
    late = row.lateness_mean_ms or 0.0
    rest = max(0.0, (row.latency_mean_ms or 0.0) - late - sum(server.values()))
    return {"lateness_mean_ms": late, "client_and_network_ms": rest, **server}


def where_time_goes(entries: Sequence[Entry], _: Keys) -> dict[str, go.Figure]:
    """Means of the parts of a request, stacked, a bar per cell; in percent and in ms."""
    shown = in_order(e for e in with_throughput(entries) if e.row.latency_mean_ms)
    return {unit: _parts(shown, unit) for unit in ("%", "ms")} if shown else {}


def _parts(shown: Sequence[Entry], unit: str) -> go.Figure:
    split = [time_parts(e.row) for e in shown]
    totals = [sum(parts.values()) or 1.0 for parts in split]
    data = []
    for name, colour, column in PARTS:
        values = [parts[column] for parts in split]
        scaled = values if unit == "ms" else [100 * v / t for v, t in zip(values, totals, strict=True)]
        if any(values):
            data.append({
                "type": "bar", "orientation": "h", "name": name, "x": scaled, "y": list(range(len(shown))),
                "customdata": [e.index for e in shown], "marker": {"color": colour, "line": {"width": 0}},
            })  # fmt: skip
    xaxis: Json = {"title": {"text": "share of the mean request, %"}, "range": [0, 100]}
    if unit == "ms":
        end = _CUT * median(totals)
        is_cut = max(totals) > end
        cut = f"; bars beyond {end:.3g} ms are cut" if is_cut else ""
        xaxis = {"title": {"text": f"mean of a request, ms{cut}"}, **({"range": [0, end]} if is_cut else {})}
    return plotly_figure(data, {"barmode": "stack", "bargap": 0.35, **_lines(xaxis)})


def repeats(entries: Sequence[Entry], keys: Keys) -> go.Figure | None:
    """Each repeat's throughput as a dot, in percent of the cell's own mean."""
    shown = in_order(e for e in with_throughput(entries) if len(e.row.throughputs) > 1)
    if not shown:
        return None
    axis = {"title": {"text": "img/s of each repeat, % off the mean of its cell"}, "zeroline": True}
    return plotly_figure([_dots(entry, line, keys) for line, entry in enumerate(shown)], _lines(axis))


def _dots(entry: Entry, line: int, keys: Keys) -> Json:
    values, mean = entry.row.throughputs, entry.row.throughput_img_per_s or 1.0
    marker = {"color": keys.colour(entry.row.instances), "symbol": keys.symbol(entry.row), "size": 7}
    return {
        "type": "scatter",
        "mode": "markers",
        "opacity": 0.8,
        "x": [100 * (value / mean - 1) for value in values],
        "y": [line] * len(values),
        "customdata": [entry.index] * len(values),
        "marker": marker,
    }


def agreement(entries: Sequence[Entry], _: Keys) -> go.Figure | None:
    """perf_analyzer over Locust, a line of text per cell: throughput, p50 and p99 with their intervals."""
    newest = max((entry.run for entry in entries), default=0)
    of_cell = {entry.row.cell: entry for entry in entries if entry.run == newest}
    compared = pairs([entry.row for entry in of_cell.values()])
    if not compared:
        return None
    shown = [of_cell[pair.base.cell] for pair in compared]
    data = []
    for place, measure in enumerate(MEASURES):
        colour, symbol = _SHADES[measure]
        ratios = [pair.ratios[place] for pair in compared]
        kept = [i for i, ratio in enumerate(ratios) if ratio is not None]
        values = [ratios[i] for i in kept]
        data.append({
            "type": "scatter", "mode": "markers", "name": measure, "x": [r.value for r in values if r],
            "y": [i + (place - 1) * _NUDGE for i in kept], "customdata": [shown[i].index for i in kept],
            "error_x": whiskers([(r.low, r.value, r.high) for r in values if r], colour),
            "marker": {"color": colour, "symbol": symbol, "size": 7},
        })  # fmt: skip
    layout = _lines({"title": {"text": "perf_analyzer / Locust"}, "type": "log"})
    equal = {"type": "line", "xref": "x", "yref": "paper", "x0": 1, "x1": 1, "y0": 0, "y1": 1,
             "line": {"color": NEUTRAL, "width": 1}}  # fmt: skip
    verdicts = [(pair.verdict, of_cell[pair.base.cell].index) for pair in compared]
    return plotly_figure(data, {**layout, "shapes": [equal]}, ratios=True, notes=_verdicts(verdicts))


def _verdicts(verdicts: Sequence[tuple[str, int]]) -> list[Json]:
    """How many cells agree; and which do not."""
    notes = []
    for word in ("agree", "differ", "unclear"):
        rows = [row for verdict, row in verdicts if verdict == word]
        count = f"{plural(len(rows), 'cell')}: {word}"
        if rows:
            notes.append(note(count) if word == "agree" else note(f"{count}:", rows))
    return notes


def _lines(xaxis: Json) -> Json:
    """A layout with the axis above, where it is seen first; the page writes the cells' names on the left."""
    return {"xaxis": {"side": "top", **xaxis}, "yaxis": {"automargin": True, "showgrid": False}}
