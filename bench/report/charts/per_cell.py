"""Figures with a line of text a cell: where the time goes, repeats, and two engines on the same cell."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.analysis.cell_row import CellRow
from bench.analysis.engine_agreement import MEASURES, pairs
from bench.report.charts.style import Entry, Json, Keys, in_order, measured, whiskers

PARTS = (
    # what it is, its colour, the name of the number
    ("send lateness", "#b8549f", "lateness_mean_ms"),
    ("client and network", "#8b8f98", "client_and_network_ms"),
    ("server queue", "#d9a441", "server_queue_ms"),
    ("compute input", "#7fb0de", "server_compute_input_ms"),
    ("compute infer", "#3a7cc9", "server_compute_infer_ms"),
    ("compute output", "#1f4f87", "server_compute_output_ms"),
)
_SHADES = {"throughput": ("#3a7cc9", "circle"), "p50": ("#d9730d", "diamond"), "p99": ("#b8549f", "square")}
_CUT = 6.0  # times the median: longer bars leave the chart, and the axis says so


def time_parts(row: CellRow) -> dict[str, float]:
    """Parts of the mean response time, ms; what the server does not account for is client and network."""
    server = {name: getattr(row, name) or 0.0 for _, _, name in PARTS if name.startswith("server_")}
    late = row.lateness_mean_ms or 0.0
    rest = max(0.0, (row.latency_mean_ms or 0.0) - late - sum(server.values()))
    return {"lateness_mean_ms": late, "client_and_network_ms": rest, **server}


def where_time_goes(entries: Sequence[Entry]) -> Json | None:
    """Means of the parts of a request, stacked, a bar a cell; in percent and in ms."""
    shown = in_order(e for e in measured(entries) if e.row.latency_mean_ms)
    if not shown:
        return None
    used = [(name, colour) for name, colour, column in PARTS if any(time_parts(e.row)[column] for e in shown)]
    variants = [_parts(shown, "%"), _parts(shown, "ms")]
    return {"id": "where-time-goes", "rows": _indices(shown), "legend": used, "variants": variants}


def _parts(shown: Sequence[Entry], unit: str) -> Json:
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
    return {
        "label": unit,
        "data": data,
        "layout": {"barmode": "stack", "bargap": 0.35, **_rows(xaxis)},
    }


def repeats(entries: Sequence[Entry], keys: Keys) -> Json | None:
    """Each repeat's throughput as a dot, in percent of the cell's own mean."""
    shown = in_order(e for e in measured(entries) if len(e.row.throughputs) > 1)
    if not shown:
        return None
    data = [_dots(entry, position, keys) for position, entry in enumerate(shown)]
    axis = {"title": {"text": "img/s of each repeat, % off the mean of its cell"}, "zeroline": True}
    return {
        "id": "repeats",
        "rows": _indices(shown),
        "variants": [{"label": "", "data": data, "layout": _rows(axis)}],
    }


def _dots(entry: Entry, position: int, keys: Keys) -> Json:
    values, mean = entry.row.throughputs, entry.row.throughput_img_per_s or 1.0
    marker = {"color": keys.colour(entry.row.instances), "symbol": keys.symbol(entry.row), "size": 7}
    return {
        "type": "scatter",
        "mode": "markers",
        "opacity": 0.8,
        "x": [100 * (value / mean - 1) for value in values],
        "y": [position] * len(values),
        "customdata": [entry.index] * len(values),
        "marker": marker,
    }


def agreement(entries: Sequence[Entry]) -> Json | None:
    """perf_analyzer over Locust, a line of text a cell: throughput, p50 and p99 with their intervals."""
    newest = max((entry.run for entry in entries), default=0)
    of_cell = {entry.row.cell: entry for entry in entries if entry.run == newest}
    found = pairs([entry.row for entry in of_cell.values()])
    if not found:
        return None
    shown = [of_cell[pair.base.cell] for pair in found]
    data = []
    for place, measure in enumerate(MEASURES):
        colour, symbol = _SHADES[measure]
        ratios = [pair.ratios[place] for pair in found]
        kept = [i for i, ratio in enumerate(ratios) if ratio is not None]
        values = [ratios[i] for i in kept]
        data.append({
            "type": "scatter", "mode": "markers", "name": measure, "x": [r.value for r in values if r],
            "y": kept, "nudge": (place - 1) * 0.22, "customdata": [shown[i].index for i in kept],
            "error_x": whiskers([(r.low, r.value, r.high) for r in values if r], colour),
            "marker": {"color": colour, "symbol": symbol, "size": 7},
        })  # fmt: skip
    axis = {
        "title": {"text": "perf_analyzer / Locust"},
        "type": "log",
        "mark": 1,
    }
    legend = [(measure, _SHADES[measure][0]) for measure in MEASURES]
    layout = _rows(axis)
    return {
        "id": "agreement", "rows": _indices(shown), "legend": legend,
        "variants": [{"label": "", "data": data, "layout": layout}],
        "verdicts": [[pair.verdict, of_cell[pair.base.cell].index] for pair in found],
    }  # fmt: skip


def _indices(shown: Sequence[Entry]) -> list[int]:
    """Line by line, for the page to write their names."""
    return [entry.index for entry in shown]


def _rows(xaxis: Json) -> Json:
    """A layout with the axis above, where it is seen first; the page writes the cells' names on the left."""
    return {"xaxis": {"side": "top", **xaxis}, "yaxis": {"automargin": True, "showgrid": False}}


def all_of(entries: Sequence[Entry], keys: Keys) -> list[Json]:
    found = [where_time_goes(entries), repeats(entries, keys), agreement(entries)]
    return [figure for figure in found if figure]
