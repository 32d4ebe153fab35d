"""The chart style. One meaning everywhere: colour is instances, marker is batch, dash is protocol; hollow is
INVALID; faint is a second engine or an older run.

Points carry row numbers (`customdata`): the page writes hover texts from them, filters by them, and opens
the cell on a click. Colours of text, grid and background are the page's, which knows the theme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bench.analysis.cell_row import CellRow
from bench.core.cell import Protocol

if TYPE_CHECKING:
    import plotly.graph_objects as go

# These colours can be told apart with any kind of colour vision. Their contrast is at least 3:1 against the
# page's white and its near-black.
COLOURS = ("#3a7cc9", "#d9730d", "#1f9377", "#b8549f", "#8a6a00", "#7566cf", "#cf4a5b", "#3f8f9f")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "triangle-down", "cross")
# One for each protocol, in the order of `Protocol`. A dotted line is a line for comparison.
DASHES = ("solid", "dash", "dashdot", "longdash")
NEUTRAL = "#8b8f98"
FAINT = 0.4

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row with its number in the page. `run`: position among the runs that are laid over each other."""

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

    def shape(self, batch: int) -> str:
        return SYMBOLS[self.batches.index(batch) % len(SYMBOLS)]

    def symbol(self, row: CellRow) -> str:
        return self.shape(row.batch) if row.verdict == "VALID" else f"{self.shape(row.batch)}-open"

    def opacity(self, entry: Entry) -> float:
        return FAINT if entry.row.engine != self.engines[0] or entry.run < self.runs - 1 else 1.0


def dash(protocol: str) -> str:
    """The dash of a protocol's lines, the same on every page."""
    return DASHES[list(Protocol).index(Protocol(protocol)) % len(DASHES)]


def plotly_figure(data: Sequence[Json], layout: Json, **meta: Any) -> go.Figure:
    """A Plotly figure. `meta`: what the page reads beside it, `notes` (below it) and `ratios` (its ticks)."""
    import plotly.graph_objects as go  # imported here: it is slow, and only a figure needs it

    return go.Figure(data=data, layout={**layout, "meta": meta} if meta else layout)


def note(text: str, rows: Sequence[int] = ()) -> Json:
    """A line below a chart, with links to cells by their row numbers."""
    return {"text": text, "rows": list(rows)} if rows else {"text": text}


def with_throughput(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that were measured, which are those that a chart can draw."""
    return [entry for entry in entries if entry.row.throughput_img_per_s]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """The order of the lines in charts with a line of text per cell."""

    def place(entry: Entry) -> tuple[Any, ...]:
        row = entry.row
        return (
            entry.run,
            row.batch,
            row.replicas or 0,
            row.instances or 0,
            row.protocol,
            row.via or "",
            row.is_open_loop,
            row.level,
            row.engine,
        )

    return sorted(entries, key=place)


def server(entry: Entry) -> tuple[Any, ...]:
    """What all points of a line share, but for instances and batch."""
    row = entry.row
    return (entry.run, row.engine, row.model, row.protocol, row.shared_memory, row.is_open_loop,
            row.replicas or 0, row.via or "",
            row.max_batch or 0, row.max_queue_delay_us or 0, str(row.parameters))  # fmt: skip


def grouped(entries: Iterable[Entry], key: Callable[[Entry], Any]) -> list[list[Entry]]:
    """Groups of entries with the same server and key."""

    def whole(entry: Entry) -> tuple[Any, ...]:
        return (*server(entry), key(entry))

    ordered = sorted(entries, key=whole)
    return [list(group) for _, group in groupby(ordered, key=whole)]


def line(points: Sequence[Entry], keys: Keys, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Json:
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
        "line": {"color": colour, "dash": dash(first.row.protocol), "width": 1.6},
        "marker": {"color": colour, "symbol": [keys.symbol(p.row) for p in points], "size": 9},
        **more,
    }


def ideal(x: Sequence[float], y: Sequence[float], points: Sequence[Entry] = ()) -> Json:
    """A dotted line for comparison, shown as long as `points` are."""
    shown = {"customdata": [entry.index for entry in points]} if points else {}
    return {
        "type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "hoverinfo": "skip", **shown,
        "line": {"color": NEUTRAL, "dash": "dot", "width": 1},
    }  # fmt: skip


def whiskers(
    bounds: Sequence[tuple[float | None, float | None, float | None]], colour: str
) -> dict[str, Any] | None:
    """Plotly's error bars from (low, value, high); None where no point has any."""
    if not any(low is not None and high is not None for low, _, high in bounds):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [h - v if h is not None and v is not None else 0 for _, v, h in bounds],
        "arrayminus": [v - low if low is not None and v is not None else 0 for low, v, _ in bounds],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def throughput_whiskers(points: Sequence[Entry], colour: str) -> Json | None:
    rows = [entry.row for entry in points]
    return whiskers(
        [(r.throughput_img_per_s_low, r.throughput_img_per_s, r.throughput_img_per_s_high) for r in rows],
        colour,
    )
