"""Charts of throughput and latency against load, batch and instances.

A chart is a Plotly figure, several by label between which the page switches, or nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analysis.capacity_models import BatchModel, fit_batches, fit_usl, measured_knee
from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.labels import load_text
from bench.core.units import significant
from bench.report.charts.style import (
    NEUTRAL,
    Entry,
    Json,
    Keys,
    grouped,
    ideal,
    line,
    note,
    plotly_figure,
    server,
    throughput_whiskers,
    whiskers,
    with_throughput,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

# What the network and the device could do, and the dash of their lines.
_LIMITS = (("bare_img_per_s", "dash"), ("roofline_img_per_s", "dot"))


def throughput(entries: Sequence[Entry], keys: Keys) -> dict[str, go.Figure]:
    """Throughput against latency; one variant per percentile."""
    return {f"p{percent:g}": _throughput(entries, keys, percent) for percent in PERCENTS}


def _throughput(entries: Sequence[Entry], keys: Keys, percent: float) -> go.Figure:
    shown = [entry for entry in with_throughput(entries) if entry.row.latency_ms(percent) is not None]
    levels = {(server(e), e.row.instances, e.row.batch, e.row.level) for e in shown}
    # A line runs along the load. Where each configuration has but one load, it runs along the batch.
    along_load = len(levels) > len({level[:3] for level in levels})
    groups = grouped(shown, lambda e: (e.row.instances or 0, e.row.batch if along_load else e.row.level))
    xaxis = {"type": "log", "title": {"text": f"p{percent:g} response time, ms (log)"}}
    lines = [_latency_line(group, keys, percent) for group in groups]
    return _figure(lines, xaxis, "throughput, img/s")


def _latency_line(group: Sequence[Entry], keys: Keys, percent: float) -> Json:
    points = sorted(group, key=lambda e: (e.row.level, e.row.batch))
    colour = keys.colour(points[0].row.instances)
    x = [p.row.latency_ms(percent) for p in points]
    drawn = _throughput_line(points, keys, x)
    if percent in (50.0, 99.0):
        name = f"latency_p{percent:g}_ms"
        bounds = [
            (getattr(p.row, f"{name}_low"), v, getattr(p.row, f"{name}_high"))
            for p, v in zip(points, x, strict=True)
        ]
        drawn["error_x"] = whiskers(bounds, colour)
    return drawn


def _throughput_line(points: Sequence[Entry], keys: Keys, x: Sequence[Any]) -> Json:
    drawn = line(points, keys, x, [p.row.throughput_img_per_s for p in points])
    drawn["error_y"] = throughput_whiskers(points, keys.colour(points[0].row.instances))
    return drawn


def best_over_load(entries: Sequence[Entry]) -> list[Entry]:
    """Of each server, protocol, engine and batch, the load with the most throughput; VALID ones first."""
    best: dict[Any, Entry] = {}
    for entry in with_throughput(entries):
        key = (server(entry), entry.row.instances, entry.row.batch)
        if key not in best or _merit(entry) > _merit(best[key]):
            best[key] = entry
    return list(best.values())


def _merit(entry: Entry) -> tuple[bool, float]:
    return entry.row.verdict == "VALID", entry.row.throughput_img_per_s or 0.0


def throughput_by_batch(entries: Sequence[Entry], keys: Keys) -> go.Figure | dict[str, go.Figure] | None:
    """Throughput against batch, a line per instance count; the best load of each, and its limits."""
    if len(keys.batches) < 2:
        return None
    data, best = [], best_over_load(entries)
    for group in grouped(best, lambda e: e.row.instances or 0):
        points = sorted(group, key=lambda e: e.row.batch)
        data.append(_throughput_line(points, keys, [p.row.batch for p in points]))
    axis = _steps("batch, images per request", keys.batches)
    known = [entry for entry in best if entry.row.bare_img_per_s and keys.opacity(entry) == 1.0]
    if not known:
        return _figure(data, axis, "img/s")
    lines, notes = _limits(known)
    # The roofline may be many times what is served, so that its axis is logarithmic.
    y_of_limits = {"title": {"text": "img/s"}, "type": "log"}
    return {
        "served": _figure(data, axis, "img/s", notes=notes),
        "with its limits": plotly_figure([*data, *lines], {"xaxis": axis, "yaxis": y_of_limits}, notes=notes),
    }


def throughput_by_instances(entries: Sequence[Entry], keys: Keys) -> go.Figure | None:
    """Throughput against instances, a line per batch; dotted: as many times more as there are instances."""
    known = [entry for entry in best_over_load(entries) if entry.row.instances is not None]
    if len({entry.row.instances for entry in known}) < 2:
        return None
    data = []
    for group in grouped(known, lambda e: e.row.batch):
        points = sorted(group, key=lambda e: e.row.instances or 0)
        x = [p.row.instances or 0 for p in points]
        drawn = _throughput_line(points, keys, x)
        drawn["marker"]["color"] = [keys.colour(p.row.instances) for p in points]
        drawn["line"]["color"] = NEUTRAL
        drawn["error_y"] = throughput_whiskers(points, NEUTRAL)
        data.append(drawn)
        if len(points) > 1 and keys.opacity(points[0]) == 1.0:
            start = (points[0].row.throughput_img_per_s or 0.0) / max(1, x[0])
            data.append(ideal(x, [start * count for count in x], points))
    ticks = tuple(i for i in keys.instances if i is not None)
    return _figure(data, _steps("instances", ticks), "img/s")


def latency_by_batch(entries: Sequence[Entry], keys: Keys) -> dict[str, go.Figure]:
    """Percentiles against batch, a variant per load: p50 and p90 thin, p99 bold, in the same colour."""
    if len(keys.batches) < 2:
        return {}
    levels = sorted({(e.row.is_open_loop, e.row.level) for e in with_throughput(entries)})
    chosen = [
        [e for e in with_throughput(entries) if (e.row.is_open_loop, e.row.level) == level]
        for level in levels
    ]
    return {load_text(group[0].row): _latency_variant(group, keys) for group in chosen}


def _latency_variant(entries: Sequence[Entry], keys: Keys) -> go.Figure:
    data = []
    for group in grouped(entries, lambda e: e.row.instances or 0):
        points = sorted(group, key=lambda e: e.row.batch)
        data += [_percentile_line(points, keys, percent) for percent in (50.0, 90.0, 99.0)]
    xaxis = _steps("batch, images per request", keys.batches)
    yaxis = {"title": {"text": "response time, ms (log)"}, "type": "log"}
    known = [drawn for drawn in data if any(y is not None for y in drawn["y"])]
    return plotly_figure(known, {"xaxis": xaxis, "yaxis": yaxis})


def _percentile_line(points: Sequence[Entry], keys: Keys, percent: float) -> Json:
    values = [p.row.latency_ms(percent) for p in points]
    drawn = line(points, keys, [p.row.batch for p in points], values)
    is_tail = percent == 99.0
    drawn["line"]["width"] = 2.2 if is_tail else 1.0
    drawn["marker"]["size"] = 9 if is_tail else 6
    drawn["opacity"] *= 1.0 if is_tail else 0.7
    return drawn


def throughput_by_users(entries: Sequence[Entry], keys: Keys) -> go.Figure | None:
    """Throughput against concurrency (closed loop): where it bends is the knee."""
    closed = [e for e in with_throughput(entries) if not e.row.is_open_loop]
    ticks = tuple(sorted({e.row.concurrency or 0 for e in closed}))
    if len(ticks) < 2:
        return None
    data = []
    for group in grouped(closed, lambda e: (e.row.instances or 0, e.row.batch)):
        points = sorted(group, key=lambda e: e.row.level)
        data.append(_throughput_line(points, keys, [p.row.concurrency for p in points]))
        data += _knee(points, keys)
    return _figure(data, _steps("users, requests in flight", ticks), "img/s")


def _knee(points: Sequence[Entry], keys: Keys) -> list[Json]:
    """A ring around the measured knee, and the scalability law where there are points enough to fit it."""
    points = [p for p in points if p.row.verdict == "VALID"]
    curve = {p.row.level: p.row.throughput_img_per_s or 0.0 for p in points}
    if len(curve) < 2 or keys.opacity(points[0]) < 1.0:
        return []
    at = measured_knee(curve)
    entry = next(p for p in points if p.row.level == at)
    ring = line([entry], keys, [at], [curve[at]], hoverinfo="skip")
    ring["marker"] |= {"symbol": "circle-open", "size": 17, "line": {"width": 1.2}}
    law = fit_usl(curve)
    if law is None:
        return [ring]
    x = np.geomspace(min(curve), law.largest, 24).tolist()
    return [ring, ideal(x, [law.per_s(n) for n in x], [entry] * len(x))]


def execution_time(entries: Sequence[Entry], keys: Keys) -> go.Figure | None:
    """Time of an execution against its batch, from batch statistics; dotted: s(b) = a + b * batch."""
    data, notes = [], []
    for group in _servers(entries, keys):
        batches = _executed(group)
        # Each executed size stands for the cell whose batch is nearest to it.
        of_size = [_nearest(group, size) for size in batches]
        drawn = line(of_size, keys, list(batches), [ns / n / 1e6 for n, ns in batches.values()])
        data.append({**drawn, "mode": "markers"})
        model = fit_batches(batches)
        if model is not None:
            data.append(ideal(list(batches), [1e3 * model.execution_s(b) for b in batches], of_size))
            notes.append(note(_formula(model, group[0], len(batches))))
    sizes = tuple(sorted({size for drawn in data for size in drawn["x"]}))
    if len(sizes) < 2:
        return None
    return _figure(data, _steps("executed batch", sizes), "ms per execution", notes=notes)


def _nearest(group: Sequence[Entry], size: int) -> Entry:
    return min(group, key=lambda entry: abs(entry.row.batch - size))


def _servers(entries: Sequence[Entry], keys: Keys) -> list[list[Entry]]:
    """Entries of the newest run by server, since a model's time depends on neither protocol nor load."""
    found: dict[str, list[Entry]] = {}
    for entry in with_throughput(entries):
        row = entry.row
        if row.batches and keys.opacity(entry) == 1.0:
            key = (row.model, row.instances or 0, row.max_batch, row.max_queue_delay_us, row.parameters)
            found.setdefault(repr(key), []).append(entry)
    return [found[key] for key in sorted(found)]


def _executed(group: Sequence[Entry]) -> dict[int, tuple[int, int]]:
    total: dict[int, tuple[int, int]] = {}
    for entry in group:
        for size, (count, ns) in entry.row.batches.items():
            before = total.get(size, (0, 0))
            total[size] = (before[0] + count, before[1] + ns)
    return {size: total[size] for size in sorted(total) if total[size][0] > 0}


def _formula(model: BatchModel, entry: Entry, sizes: int) -> str:
    """The model in words. Two sizes fit any line exactly, so that only more say how well it fits."""
    row = entry.row
    counted = [f"{row.instances} inst"] if row.instances is not None else ["as served"]
    who = ", ".join([*counted, *(f"{name} {value}" for name, value in row.parameters.items())])
    times = f"{significant(1e3 * model.fixed_s)} + {significant(1e3 * model.per_item_s)} b ms"
    ceiling = (
        "" if model.per_item_s <= 0 else f"; at most {significant(model.ceiling_per_s)} img/s per instance"
    )
    within = f", within {model.worst:.1%}" if sizes > 2 else ""
    return f"{who}: s(b) = {times}{within}{ceiling}"


def asked_and_achieved(entries: Sequence[Entry], keys: Keys) -> go.Figure | None:
    """Open loop: what was asked and what was answered; dotted: all of it."""
    opened = [e for e in with_throughput(entries) if e.row.is_open_loop]
    if not opened:
        return None
    data = []
    for group in grouped(opened, lambda e: (e.row.instances or 0, e.row.batch)):
        points = sorted(group, key=lambda e: e.row.level)
        answered = [p.row.throughput_req_per_s for p in points]
        data.append(line(points, keys, [p.row.rate_per_s for p in points], answered))
    top = max(e.row.level for e in opened)
    axis = {"title": {"text": "asked, req/s"}, "rangemode": "tozero"}
    return _figure([*data, ideal([0, top], [0, top])], axis, "answered, req/s")


def _steps(title: str, values: Sequence[int]) -> Json:
    """A log axis with a tick at each measured value."""
    return {
        "title": {"text": title},
        "type": "log",
        "tickvals": list(values),
        "ticktext": [str(v) for v in values],
    }


def _figure(data: Sequence[Json], xaxis: Json, y_title: str, **meta: Any) -> go.Figure:
    """A figure whose vertical axis begins at zero."""
    layout = {"xaxis": xaxis, "yaxis": {"title": {"text": y_title}, "rangemode": "tozero"}}
    return plotly_figure(data, layout, **meta)


def _limits(entries: Sequence[Entry]) -> tuple[list[Json], list[Json]]:
    """Lines of the limits, and a note for each kind of network. `entries`: one per server and batch."""
    networks = sorted({_network(entry.row) for entry in entries})
    groups = {name: [entry for entry in entries if _network(entry.row) == name] for name in networks}
    lines = [drawn for group in groups.values() for drawn in _limit_lines(group)]
    return lines, [note(_efficiency(name, group)) for name, group in groups.items()]


def _network(row: CellRow) -> str:
    """What the bare network was measured as."""
    named = (row.precision, row.compile if row.compile != "none" else None, row.output)
    return ", ".join(filter(None, (*named, row.parameters.get("weights"))))


def _limit_lines(group: Sequence[Entry]) -> list[Json]:
    """Dashed: the bare network. Dotted: the roofline. They depend on the batch only."""
    by_batch = {entry.row.batch: entry for entry in sorted(group, key=lambda entry: entry.row.batch)}
    lines = []
    for name, dash in _LIMITS:
        points = [entry for entry in by_batch.values() if getattr(entry.row, name)]
        if len(points) > 1:
            drawn = ideal([p.row.batch for p in points], [getattr(p.row, name) for p in points], points)
            lines.append({**drawn, "line": {"color": NEUTRAL, "dash": dash, "width": 1.4}})
    return lines


def _efficiency(network: str, group: Sequence[Entry]) -> str:
    rows = [entry.row for entry in group]
    served = _range([row.efficiency for row in rows if row.efficiency])
    reached = [((row.bare_img_per_s or 0.0), row.roofline_img_per_s) for row in rows]
    shares = [bare / limit for bare, limit in reached if limit]
    roof = "; the device's peak is not known"
    if shares:
        roof = f"; bare (dashed) over the roofline (dotted): {_range(shares)}"
    if max(shares, default=0.0) > 1:
        roof += " (its rates were measured while the machine did other things)"
    return f"{network}: served over bare: {served}{roof}"


def _range(shares: Sequence[float]) -> str:
    """62 to 80 %."""
    if not shares:
        return ""
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
