"""Two generators side by side: what a row of trials says about each, tables, and the goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.analysis.stats import Interval, geometric, paired_ratio
from bench.core.cell import Protocol
from bench.sensors.host import usable_cores
from benchmarks.findings import Goal, Table, interval_text, met
from benchmarks.rig import LABELS


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    batch: int
    protocol: Protocol
    users: int

    @property
    def is_image_size(self) -> bool:
        return self.model == "null_vit"

    @property
    def name(self) -> tuple[str, ...]:
        return (self.model, str(self.batch), LABELS[self.protocol], str(self.users))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One trial. `overhead_ms`: client's median less the server's mean of all that it accounts for."""

    requests_per_s: float
    cpu_us: float  # of the client, a request
    p50_ms: float
    server_ms: float
    overhead_ms: float
    mean_overhead_ms: float  # of the means: a skewed distribution's median may lie below the server's mean
    rss_bytes: int  # the client's peak
    failed: int


@dataclass(frozen=True, slots=True)
class Compared:
    row: Row
    ours: tuple[Measured, ...]
    theirs: tuple[Measured, ...]

    def ratio(self, figure: str) -> Interval | None:
        """Ours over theirs, round by round."""
        return paired_ratio(_column(self.theirs, figure), _column(self.ours, figure))

    @property
    def ceiling(self) -> float | None:
        """The ratio of requests a second if our client took no CPU at all, and the server kept its pace.

        One user: its CPU is part of each round trip. More: it is taken from the cores that both share.
        """
        ratio = self.ratio("requests_per_s")
        cores = 1 if self.row.users == 1 else usable_cores()
        left = cores - _center(self.ours, "requests_per_s") * _center(self.ours, "cpu_us") / 1e6
        return ratio.value * cores / left if ratio and left > 0 else None


def _column(trials: Sequence[Measured], figure: str) -> list[float]:
    return [float(getattr(trial, figure)) for trial in trials]


def _center(trials: Sequence[Measured], figure: str) -> float:
    """Of rounds; a median, since a difference of two times may be below zero."""
    return float(np.median(_column(trials, figure)))


_ROW_COLUMNS = ("model", "batch", "protocol", "users")


def tables(compared: Sequence[Compared]) -> tuple[Table, ...]:
    speed = Table(
        "Requests per second, and the client's CPU per request",
        (*_ROW_COLUMNS, "req/s", "perf_analyzer", "ratio", "ceiling", "CPU us/req", "perf_analyzer", "ratio"),
        tuple(_speed_line(entry) for entry in compared),
        "The figures are geometric means over rounds; (low-high) is the 95 % interval of the ratio.",
    )
    overhead = Table(
        "Overhead and memory of the client",
        (
            *_ROW_COLUMNS,
            "overhead ms",
            "perf_analyzer",
            "p50 ms",
            "perf_analyzer",
            "peak MB",
            "perf_analyzer",
        ),
        tuple(_overhead_line(entry) for entry in compared),
        "Overhead: the client's p50 minus the server's mean time per request. It includes network, copies "
        "and waiting for a core. It is below zero where a few slow requests raise the server's mean. "
        "The figures are medians of the rounds.",
    )
    return speed, overhead


def _speed_line(entry: Compared) -> tuple[str, ...]:
    cells = []
    for figure, form in (("requests_per_s", ",.0f"), ("cpu_us", ",.0f")):
        for trials in (entry.ours, entry.theirs):
            mean = geometric(_column(trials, figure))
            cells.append(format(mean.value, form) if mean else "0")
        cells.append(interval_text(entry.ratio(figure)))
    cells.insert(3, f"{entry.ceiling:.2f}" if entry.ceiling else "n/a")
    return (*entry.row.name, *cells)


def _overhead_line(entry: Compared) -> tuple[str, ...]:
    cells = [
        f"{_center(trials, figure) / scale:.{digits}f}"
        for figure, scale, digits in (("overhead_ms", 1, 2), ("p50_ms", 1, 2), ("rss_bytes", 1e6, 0))
        for trials in (entry.ours, entry.theirs)
    ]
    return (*entry.row.name, *cells)


def failures(said: Sequence[str]) -> tuple[Table, ...]:
    return (
        (Table("Not measured, or with failed requests", ("row",), tuple((text,) for text in said)),)
        if said
        else ()
    )


def goals(compared: Sequence[Compared]) -> tuple[Goal, ...]:
    images = [entry for entry in compared if entry.row.is_image_size]
    http = [entry for entry in images if entry.row.protocol is Protocol.HTTP]
    grpc = [entry for entry in images if entry.row.protocol is Protocol.GRPC]
    asked = (
        ("requests/s: at least those of perf_analyzer in every row", compared, "requests_per_s", 1.0, True),
        ("requests/s, image-size over HTTP: 2.5x", http, "requests_per_s", 2.5, True),
        ("requests/s, image-size over gRPC: 1.5x", grpc, "requests_per_s", 1.5, True),
        ("CPU per request, image-size: at most that of perf_analyzer", images, "cpu_us", 1.0, False),
    )
    return tuple(
        _goal(text, entries, figure, limit, at_least=at_least)
        for text, entries, figure, limit, at_least in asked
    )


def _goal(text: str, entries: Sequence[Compared], figure: str, limit: float, *, at_least: bool) -> Goal:
    """How many rows meet it, and the worst one."""
    known = [(ratio, entry.row) for entry in entries if (ratio := entry.ratio(figure)) is not None]
    if not known:
        return Goal(text, "not measured", "no")
    verdicts = [met(r.low, r.value, r.high, limit, at_least=at_least) for r, _ in known]
    worst, row = (min if at_least else max)(known, key=lambda pair: pair[0].value)
    count = f"{verdicts.count('yes')} of {len(verdicts)} rows"
    said = "no" if "no" in verdicts else "open" if "open" in verdicts else "yes"
    return Goal(text, f"{count}; worst {interval_text(worst)}, {' '.join(row.name)} users", said)


def figures(entry: Compared) -> dict[str, Any]:
    ratios = {figure: entry.ratio(figure) for figure in ("requests_per_s", "cpu_us", "overhead_ms")}
    return {
        **asdict(entry),
        "ceiling": entry.ceiling,
        "ratios": {figure: asdict(ratio) if ratio else None for figure, ratio in ratios.items()},
    }
