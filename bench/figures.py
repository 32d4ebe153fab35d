"""Rows to Plotly figures, as plain dictionaries. One meaning everywhere: colour is instances, marker is
batch, dash is protocol; hollow is INVALID; faint is a second engine or an older run.

A trace's `customdata` are row numbers: the page writes hover texts from them, filters by them, and opens
the cell on a click. Colours of text, grid and
background are the page's, which knows the theme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.cells import PERCENTS, CellRow

# Told apart with any kind of colour vision, at least 3:1 against the page's white and its near-black.
COLOURS = ("#3a7cc9", "#d9730d", "#1f9377", "#b8549f", "#8a6a00", "#7566cf", "#cf4a5b", "#3f8f9f")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "triangle-down", "cross")
DASHES = {"http": "solid", "grpc": "dash"}
NEUTRAL = "#8b8f98"
PARTS = (
    # name, colour, what it is
    ("send lateness", "#b8549f", "lateness_mean_ms"),
    ("client and network", "#8b8f98", "client_and_network_ms"),
    ("server queue", "#d9a441", "server_queue_ms"),
    ("compute input", "#7fb0de", "server_compute_input_ms"),
    ("compute infer", "#3a7cc9", "server_compute_infer_ms"),
    ("compute output", "#1f4f87", "server_compute_output_ms"),
)
FAINT = 0.4

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as the page numbers it. `run`: position among the runs laid over each other."""

    index: int
    run: int
    row: CellRow


@dataclass(frozen=True, slots=True)
class Keys:
    """What each colour and marker stands for, over all rows of a page."""

    instances: tuple[int | None, ...]
    batches: tuple[int, ...]
    engines: tuple[str, ...]
    runs: int = 1

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Keys:
        rows = [entry.row for entry in entries]
        instances = sorted({row.instances for row in rows}, key=lambda i: -1 if i is None else i)
        engines = sorted({row.engine for row in rows})  # locust before perf_analyzer
        runs = max((entry.run for entry in entries), default=0) + 1
        return cls(tuple(instances), tuple(sorted({row.batch for row in rows})), tuple(engines), runs)

    def colour(self, instances: int | None) -> str:
        return COLOURS[self.instances.index(instances) % len(COLOURS)]

    def symbol(self, row: CellRow) -> str:
        name = SYMBOLS[self.batches.index(row.batch) % len(SYMBOLS)]
        return name if row.verdict == "VALID" else f"{name}-open"

    def opacity(self, entry: Entry) -> float:
        return FAINT if entry.row.engine != self.engines[0] or entry.run < self.runs - 1 else 1.0


def label(row: CellRow) -> str:
    """b8, 2 inst, http, 4 users."""
    inst = "" if row.instances is None else f"{row.instances} inst · "
    extra = "".join(f" · {name} {value}" for name, value in row.parameters.items())
    return f"b{row.batch} · {inst}{row.protocol} · {level(row)}{extra}"


def level(row: CellRow) -> str:
    if row.rate_per_s is not None:
        return f"{row.rate_per_s:g}/s"
    return f"{row.concurrency} user{'' if row.concurrency == 1 else 's'}"


def measured(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.row.throughput_img_per_s]


def _server(entry: Entry) -> tuple[Any, ...]:
    row = entry.row
    return (entry.run, row.engine, row.model, row.protocol, row.shared_memory, row.rate_per_s is not None,
            row.max_batch or 0, row.max_queue_delay_us or 0, tuple(sorted(row.parameters.items())))  # fmt: skip


def _grouped(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> list[list[Entry]]:
    """Groups of entries with the same server and key, each in the order of its key."""

    def whole(entry: Entry) -> tuple[Any, ...]:
        return (*_server(entry), key(entry))

    ordered = sorted(entries, key=lambda entry: repr(whole(entry)))
    return [list(group) for _, group in groupby(ordered, key=whole)]


def _load_level(row: CellRow) -> float:
    return row.rate_per_s if row.rate_per_s is not None else float(row.concurrency or 0)


def _line(points: Sequence[Entry], keys: Keys, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Json:
    """A line with markers through points that share everything but one axis."""
    first = points[0]
    colour = keys.colour(first.row.instances)
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) > 1 else "markers",
        "x": list(x),
        "y": list(y),
        "customdata": [entry.index for entry in points],
        "opacity": keys.opacity(first),
        "line": {"color": colour, "dash": DASHES.get(first.row.protocol, "dot"), "width": 1.6},
        "marker": {"color": colour, "symbol": [keys.symbol(p.row) for p in points], "size": 9},
        **more,
    }


def _whiskers(values: Sequence[tuple[float | None, float | None, float | None]], colour: str) -> Json | None:
    """Plotly's error bars from (low, value, high)."""
    if not any(low is not None and high is not None for low, _, high in values):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [h - v if h is not None and v is not None else 0 for _, v, h in values],
        "arrayminus": [v - low if low is not None and v is not None else 0 for low, v, _ in values],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _throughput_whiskers(points: Sequence[Entry], keys: Keys) -> Json | None:
    return _whiskers(
        [
            (p.row.throughput_img_per_s_low, p.row.throughput_img_per_s, p.row.throughput_img_per_s_high)
            for p in points
        ],
        keys.colour(points[0].row.instances),
    )


def latency_ms(row: CellRow, percent: float) -> float | None:
    """The pooled percentile; None with too few samples."""
    value = next((p.value_ns for p in row.percentiles if p.percent == percent), None)
    return None if value is None else value / 1e6


def tradeoff(entries: Sequence[Entry], keys: Keys) -> Json:
    """Throughput against a percentile of latency; one variant a percentile."""
    return {"id": "tradeoff", "variants": [_tradeoff(entries, keys, percent) for percent in PERCENTS]}


def _tradeoff(entries: Sequence[Entry], keys: Keys, percent: float) -> Json:
    shown = [entry for entry in measured(entries) if latency_ms(entry.row, percent) is not None]
    levels = {(_server(e), e.row.instances, e.row.batch, _load_level(e.row)) for e in shown}
    lines = {found[:3] for found in levels}
    along_load = len(levels) > len(lines)
    groups = _grouped(
        shown, lambda e: (e.row.instances or 0, e.row.batch if along_load else _load_level(e.row))
    )
    data = []
    for group in groups:
        points = sorted(group, key=lambda e: (_load_level(e.row), e.row.batch))
        x = [latency_ms(p.row, percent) for p in points]
        line = _line(points, keys, x, [p.row.throughput_img_per_s for p in points])
        line["error_y"] = _throughput_whiskers(points, keys)
        if percent in (50.0, 99.0):
            name = f"latency_p{percent:g}_ms"
            bounds = [
                (getattr(p.row, f"{name}_low"), v, getattr(p.row, f"{name}_high"))
                for p, v in zip(points, x, strict=True)
            ]
            line["error_x"] = _whiskers(bounds, keys.colour(points[0].row.instances))
        data.append(line)
    return {
        "label": f"p{percent:g}",
        "data": data,
        "layout": {
            "xaxis": {"type": "log", "title": {"text": f"p{percent:g} response time, ms (log)"}},
            "yaxis": {"title": {"text": "throughput, img/s"}, "rangemode": "tozero"},
        },
    }


def _best_over_load(entries: Sequence[Entry], keys: tuple[str, ...]) -> list[Entry]:
    """Of each server, protocol, engine and `keys`, the load with the most throughput; VALID ones first."""
    best: dict[Any, Entry] = {}
    for entry in measured(entries):
        key = (_server(entry), *(getattr(entry.row, name) for name in keys))
        if key not in best or _merit(entry) > _merit(best[key]):
            best[key] = entry
    return list(best.values())


def _merit(entry: Entry) -> tuple[bool, float]:
    return entry.row.verdict == "VALID", entry.row.throughput_img_per_s or 0.0


def against_batch(entries: Sequence[Entry], keys: Keys) -> Json:
    """Throughput against batch, a line an instance count; the best load of each."""
    data = []
    for group in _grouped(_best_over_load(entries, ("instances", "batch")), lambda e: e.row.instances or 0):
        points = sorted(group, key=lambda e: e.row.batch)
        line = _line(
            points, keys, [p.row.batch for p in points], [p.row.throughput_img_per_s for p in points]
        )
        line["error_y"] = _throughput_whiskers(points, keys)
        data.append(line)
    return _figure("against-batch", data, _steps("batch, images a request", keys.batches), "img/s")


def against_instances(entries: Sequence[Entry], keys: Keys) -> Json:
    """Throughput against instances, a line a batch; dotted: as many times more as there are instances."""
    known = [entry for entry in entries if entry.row.instances is not None]
    data = []
    for group in _grouped(_best_over_load(known, ("instances", "batch")), lambda e: e.row.batch):
        points = sorted(group, key=lambda e: e.row.instances or 0)
        x = [p.row.instances or 0 for p in points]
        line = _line(points, keys, x, [p.row.throughput_img_per_s for p in points])
        line["marker"]["color"] = [keys.colour(p.row.instances) for p in points]
        line["line"]["color"] = NEUTRAL
        line["error_y"] = _throughput_whiskers(points, keys)
        if line["error_y"]:
            line["error_y"]["color"] = NEUTRAL
        data.append(line)
        if len(points) > 1 and keys.opacity(points[0]) == 1.0:
            start = (points[0].row.throughput_img_per_s or 0.0) / max(1, x[0])
            data.append(_ideal(x, [start * count for count in x], points))
    ticks = tuple(i for i in keys.instances if i is not None)
    return _figure("against-instances", data, _steps("instances", ticks), "img/s")


def _ideal(x: Sequence[float], y: Sequence[float], points: Sequence[Entry] = ()) -> Json:
    """Shown as long as `points` are."""
    shown = {"customdata": [entry.index for entry in points]} if points else {}
    return {
        "type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "hoverinfo": "skip", **shown,
        "line": {"color": NEUTRAL, "dash": "dot", "width": 1},
    }  # fmt: skip


def latency_against_batch(entries: Sequence[Entry], keys: Keys) -> Json:
    """Percentiles against batch, a variant a load level: p50 full, p99 above it in the same colour."""
    levels = sorted({(e.row.rate_per_s is not None, _load_level(e.row)) for e in measured(entries)})
    variants = []
    for is_open, value in levels:
        chosen = [
            e
            for e in measured(entries)
            if (e.row.rate_per_s is not None, _load_level(e.row)) == (is_open, value)
        ]
        variants.append(_latency_variant(chosen, keys))
    return {"id": "latency-against-batch", "variants": variants}


def _latency_variant(entries: Sequence[Entry], keys: Keys) -> Json:
    data = []
    for group in _grouped(entries, lambda e: e.row.instances or 0):
        points = sorted(group, key=lambda e: e.row.batch)
        x = [p.row.batch for p in points]
        for percent, width in ((50.0, 1.0), (90.0, 1.0), (99.0, 2.2)):
            values = [latency_ms(p.row, percent) for p in points]
            if any(value is not None for value in values):
                line = _line(points, keys, x, values, name=f"p{percent:g}")
                line["line"]["width"] = width
                line["marker"]["size"] = 9 if percent == 99.0 else 6
                line["opacity"] *= 1.0 if percent == 99.0 else 0.7
                data.append(line)
    return {
        "label": level(entries[0].row),
        "data": data,
        "layout": {
            "xaxis": _steps("batch, images a request", keys.batches),
            "yaxis": {"title": {"text": "response time, ms (log)"}, "type": "log"},
        },
    }


def against_load(entries: Sequence[Entry], keys: Keys) -> Json | None:
    """Throughput against concurrency (closed loop): where it bends is the knee."""
    closed = [e for e in measured(entries) if e.row.concurrency is not None]
    if len({e.row.concurrency for e in closed}) < 2:
        return None
    data = []
    for group in _grouped(closed, lambda e: (e.row.instances or 0, e.row.batch)):
        points = sorted(group, key=lambda e: e.row.concurrency or 0)
        x = [p.row.concurrency for p in points]
        line = _line(points, keys, x, [p.row.throughput_img_per_s for p in points])
        line["error_y"] = _throughput_whiskers(points, keys)
        data.append(line)
    ticks = tuple(sorted({e.row.concurrency or 0 for e in closed}))
    return _figure("against-load", data, _steps("users, requests in flight", ticks), "img/s")


def asked_against_achieved(entries: Sequence[Entry], keys: Keys) -> Json | None:
    """Open loop: what was asked and what was answered; dotted: all of it."""
    opened = [e for e in measured(entries) if e.row.rate_per_s is not None]
    if not opened:
        return None
    data = []
    for group in _grouped(opened, lambda e: (e.row.instances or 0, e.row.batch)):
        points = sorted(group, key=lambda e: e.row.rate_per_s or 0.0)
        x = [p.row.rate_per_s for p in points]
        data.append(_line(points, keys, x, [p.row.throughput_req_per_s for p in points]))
    top = max(e.row.rate_per_s or 0.0 for e in opened)
    data.append(_ideal([0, top], [0, top]))
    axis = {"title": {"text": "asked, req/s"}, "rangemode": "tozero"}
    return _figure("asked-against-achieved", data, axis, "answered, req/s")


def where_time_goes(entries: Sequence[Entry]) -> Json:
    """Means of the parts of a request, stacked, a bar a cell; in ms and in percent."""
    shown = [e for e in measured(entries) if e.row.latency_mean_ms]
    shown.sort(key=lambda e: (e.run, e.row.batch, e.row.instances or 0, e.row.protocol, _load_level(e.row)))
    variants = [_parts(shown, "ms"), _parts(shown, "percent")]
    used = [(name, colour) for name, colour, column in PARTS if any(time_parts(e.row)[column] for e in shown)]
    return {"id": "where-time-goes", "rows": len(shown), "legend": used, "variants": variants}


def _parts(shown: Sequence[Entry], unit: str) -> Json:
    split = [time_parts(e.row) for e in shown]
    totals = [sum(parts.values()) or 1.0 for parts in split]
    data = []
    for name, colour, column in PARTS:
        values = [parts[column] for parts in split]
        if not any(values):
            continue
        scaled = values if unit == "ms" else [100 * v / t for v, t in zip(values, totals, strict=True)]
        data.append({
            "type": "bar", "orientation": "h", "name": name, "x": scaled, "y": list(range(len(shown))),
            "customdata": [e.index for e in shown], "marker": {"color": colour, "line": {"width": 0}},
        })  # fmt: skip
    ticks = {"tickvals": list(range(len(shown))), "ticktext": [label(e.row) for e in shown]}
    return {
        "label": "ms" if unit == "ms" else "%",
        "data": data,
        "layout": {
            "barmode": "stack",
            "bargap": 0.35,
            "xaxis": {
                "title": {"text": "mean of a request, ms" if unit == "ms" else "share of a request, %"}
            },
            "yaxis": {**ticks, "autorange": "reversed", "automargin": True, "showgrid": False},
        },
    }


def time_parts(row: CellRow) -> dict[str, float]:
    """Parts of the mean response time, ms; what the server does not account for is client and network."""
    server = {name: getattr(row, name) or 0.0 for _, _, name in PARTS if name.startswith("server_")}
    late = row.lateness_mean_ms or 0.0
    rest = max(0.0, (row.latency_mean_ms or 0.0) - late - sum(server.values()))
    return {"lateness_mean_ms": late, "client_and_network_ms": rest, **server}


def repeats(entries: Sequence[Entry], keys: Keys) -> Json | None:
    """Each repeat's throughput as a dot, in percent of the cell's own mean."""
    shown = [e for e in measured(entries) if len(e.row.throughputs) > 1]
    if not shown:
        return None
    shown.sort(key=lambda e: (e.run, e.row.batch, e.row.instances or 0, e.row.protocol, _load_level(e.row)))
    data = []
    for position, entry in enumerate(shown):
        mean = entry.row.throughput_img_per_s or 1.0
        data.append({
            "type": "scatter", "mode": "markers", "opacity": 0.8,
            "x": [100 * (value / mean - 1) for value in entry.row.throughputs],
            "y": [position] * len(entry.row.throughputs),
            "customdata": [entry.index] * len(entry.row.throughputs),
            "marker": {"color": keys.colour(entry.row.instances), "symbol": keys.symbol(entry.row), "size": 7},
        })  # fmt: skip
    ticks = {"tickvals": list(range(len(shown))), "ticktext": [label(e.row) for e in shown]}
    layout = {
        "xaxis": {"title": {"text": "img/s of each repeat, % off the cell's mean"}, "zeroline": True},
        "yaxis": {**ticks, "autorange": "reversed", "automargin": True, "showgrid": False},
    }
    return {"id": "repeats", "rows": len(shown), "variants": [{"label": "", "data": data, "layout": layout}]}


def _steps(title: str, values: Sequence[int]) -> Json:
    """A log axis with a tick at each measured value."""
    return {
        "title": {"text": title},
        "type": "log",
        "tickvals": list(values),
        "ticktext": [str(v) for v in values],
    }


def _figure(name: str, data: list[Json], xaxis: Json, y_title: str) -> Json:
    layout = {"xaxis": xaxis, "yaxis": {"title": {"text": y_title}, "rangemode": "tozero"}}
    return {"id": name, "variants": [{"label": "", "data": data, "layout": layout}]}


def all_of(entries: Sequence[Entry]) -> list[Json]:
    """Every figure there is something to draw in."""
    keys = Keys.of(entries)
    found = [
        tradeoff(entries, keys),
        against_batch(entries, keys),
        against_instances(entries, keys),
        latency_against_batch(entries, keys),
        against_load(entries, keys),
        asked_against_achieved(entries, keys),
        where_time_goes(entries),
        repeats(entries, keys),
    ]
    return [figure for figure in found if figure and any(v["data"] for v in figure["variants"])]
