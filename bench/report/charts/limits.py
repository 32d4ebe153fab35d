"""Served throughput against batch, beside what the bare network reached and what the hardware allows."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cell_row import CellRow
from bench.report.charts.style import NEUTRAL, Entry, Json, Keys, ideal

_LINES = (("bare_img_per_s", "dash"), ("roofline_img_per_s", "dot"))


def with_limits(figure: Json, entries: Sequence[Entry], keys: Keys) -> Json:
    """`figure` with a further variant and a note for each kind of network, where limits are known.

    `entries`: those drawn, one a server and batch. The roofline may be many times what is served, so the
    variant's axis is logarithmic, and the plain one stays first.
    """
    known = [entry for entry in entries if entry.row.bare_img_per_s and keys.opacity(entry) == 1.0]
    if not known:
        return figure
    networks = sorted({_network(entry.row) for entry in known})
    groups = [[entry for entry in known if _network(entry.row) == network] for network in networks]
    (plain,) = figure["variants"]
    lines = [line for group in groups for line in _lines(group)]
    yaxis = {"title": plain["layout"]["yaxis"]["title"], "type": "log"}
    limited = {
        "label": "with its limits",
        "data": [*plain["data"], *lines],
        "layout": {**plain["layout"], "yaxis": yaxis},
    }
    return {
        **figure,
        "variants": [{**plain, "label": "served"}, limited],
        "notes": [_said(network, group) for network, group in zip(networks, groups, strict=True)],
    }


def _network(row: CellRow) -> str:
    """What the bare network was measured as."""
    named = (row.precision, row.compile if row.compile != "none" else None, row.output)
    return ", ".join(filter(None, (*named, row.parameters.get("weights"))))


def _lines(group: Sequence[Entry]) -> list[Json]:
    """Dashed: the bare network. Dotted: the roofline. They depend on the batch only."""
    by_batch = {entry.row.batch: entry for entry in sorted(group, key=lambda entry: entry.row.batch)}
    found = []
    for name, dash in _LINES:
        points = [entry for entry in by_batch.values() if getattr(entry.row, name)]
        if len(points) > 1:
            drawn = ideal([p.row.batch for p in points], [getattr(p.row, name) for p in points], points)
            found.append({**drawn, "line": {"color": NEUTRAL, "dash": dash, "width": 1.4}})
    return found


def _said(network: str, group: Sequence[Entry]) -> str:
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
