"""The charts of the report: one table of them, and each as a Plotly figure.

To add one, write a function that takes the entries and their keys (see `style`) and add it to `CHARTS`. It
returns a figure, several by label between which the page switches, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bench.analysis.cell_row import CellRow
from bench.analysis.labels import label
from bench.report.charts import per_cell, scaling
from bench.report.charts.style import Entry, Json, Keys

if TYPE_CHECKING:
    import plotly.graph_objects as go

Drawn: TypeAlias = "go.Figure | Mapping[str, go.Figure] | None"
# The sections of the page that hold charts.
Section = Literal["throughput-latency", "time", "scaling", "agreement", "repeats"]
# How much room a chart takes: "lines" has a line of text per cell, and the page lets it grow with them.
Kind = Literal["plain", "tall", "lines"]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart and its place in the page. `follows_limit`: the percentile of the limit chooses the variant."""

    draw: Callable[[Sequence[Entry], Keys], Drawn]
    title: str
    note: str = ""
    section: Section = "scaling"
    kind: Kind = "plain"
    follows_limit: bool = False

    def variants(self, entries: Sequence[Entry], keys: Keys) -> dict[str, go.Figure]:
        """The figures by label, "" for the only one; none where there is nothing to draw."""
        drawn = self.draw(entries, keys)
        if drawn is None:
            return {}
        figures = dict(drawn) if isinstance(drawn, Mapping) else {"": drawn}
        return figures if any(figure.data for figure in figures.values()) else {}


CHARTS: dict[str, Chart] = {
    "throughput": Chart(
        scaling.throughput, "Throughput against latency", section="throughput-latency", kind="tall",
        follows_limit=True,
    ),
    "time-parts": Chart(per_cell.where_time_goes, "Where the time goes", section="time", kind="lines"),
    "throughput-by-batch": Chart(
        scaling.throughput_by_batch, "Throughput against batch", "best load of each"
    ),
    "throughput-by-instances": Chart(
        scaling.throughput_by_instances, "Throughput against instances", "dotted: ideal"
    ),
    "latency-by-batch": Chart(
        scaling.latency_by_batch, "Latency against batch", "thin p50 and p90, bold p99"
    ),
    "throughput-by-users": Chart(
        scaling.throughput_by_users, "Throughput against users", "closed loop; ring: the knee"
    ),
    "asked-achieved": Chart(
        scaling.asked_and_achieved, "Asked and achieved", "open loop; dotted: all answered"
    ),
    "execution-time": Chart(
        scaling.execution_time, "Time of an execution",
        "from the server’s batch statistics; dotted: a + b × batch",
    ),
    "agreement": Chart(per_cell.agreement, "Two engines on the same cell", section="agreement", kind="lines"),
    "repeats": Chart(per_cell.repeats, "Repeats", section="repeats", kind="lines"),
}  # fmt: skip


def for_page(entries: Sequence[Entry], keys: Keys) -> dict[str, Json]:
    """Every chart that has something to draw, as JSON by name."""
    drawn = {name: (chart, chart.variants(entries, keys)) for name, chart in CHARTS.items()}
    return {
        name: {
            "kind": chart.kind,
            "follows_limit": chart.follows_limit,
            "variants": [{"label": text, **_json(figure)} for text, figure in variants.items()],
        }
        for name, (chart, variants) in drawn.items()
        if variants
    }


def figure(name: str, rows: Sequence[CellRow], variant: str | None = None) -> go.Figure:
    """The chart `name` of one run by itself, with a title, a legend and the names of the cells.

    `variant`: such as p99 of throughput; without one, the first. Raises ValueError with what there is.
    """
    if name not in CHARTS:
        raise ValueError(f"there is no chart {name!r}: choose one of {', '.join(CHARTS)}")
    entries = [Entry(index, 0, row) for index, row in enumerate(rows)]
    variants = CHARTS[name].variants(entries, Keys.of(entries))
    if not variants:
        drawable = [other for other in CHARTS if CHARTS[other].variants(entries, Keys.of(entries))]
        raise ValueError(f"this run has nothing to draw in {name!r}: choose {_or(drawable)}")
    chosen = next(iter(variants)) if variant is None else variant
    if chosen not in variants:
        raise ValueError(f"{name!r} has no variant {chosen!r}: choose {_or(variants)}")
    return _labelled(variants[chosen], CHARTS[name], rows)


def _or(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "a run in which something was measured"


def _json(figure: go.Figure) -> Json:
    """Its traces and layout without Plotly's template: the page has looks of its own."""
    layout: dict[str, Any] = figure.layout.to_plotly_json()
    layout.pop("template", None)
    return {"data": [trace.to_plotly_json() for trace in figure.data], "layout": layout}


def _labelled(figure: go.Figure, chart: Chart, rows: Sequence[CellRow]) -> go.Figure:
    """What the page writes itself, written into the figure."""
    for trace in figure.data:
        if trace.customdata is None:
            trace.showlegend = False
            continue
        names = [label(rows[index]) for index in trace.customdata]
        trace.hovertext = names
        if trace.name is None:
            trace.name = _common(names)
            trace.showlegend = trace.hoverinfo != "skip" and chart.kind != "lines"
    if chart.kind == "lines":
        lines = {round(y): index for t in figure.data for y, index in zip(t.y, t.customdata, strict=True)}
        ticks = sorted(lines)
        names = [label(rows[lines[line]]) for line in ticks]
        figure.update_yaxes(tickvals=ticks, ticktext=names, autorange="reversed")
        figure.update_layout(height=120 + 21 * len(ticks))
    return figure.update_layout(title_text=chart.title)


def _common(names: Sequence[str]) -> str:
    """The parts that all names share, in their order: 2 inst · http."""
    split = [name.split(" · ") for name in names]
    return " · ".join(part for part in split[0] if all(part in parts for parts in split))
