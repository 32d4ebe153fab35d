"""Which configuration to run, under a limit on latency or without one.

The page's card makes the same choice in the reader's browser, for any limit; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.capacity import KNEE
from bench.cell_row import PERCENTS, CellRow
from bench.units import Slo

# An interval whose ends are this many times apart says little about what it is around.
WIDE = 1.5


class Holds(StrEnum):
    YES = "yes"  # proved by the samples
    LIKELY = "likely"  # the figure is within; the samples do not prove it
    NO = "no"
    UNKNOWN = "unknown"  # too few samples for the percentile


@dataclass(frozen=True, slots=True)
class Limit:
    """`percent` of response times at most `bound_ms`, errors at most a share."""

    percent: float
    bound_ms: float
    error_fraction: float = 0.0

    @classmethod
    def of(cls, slo: Slo) -> Limit:
        """The highest percentile of an SLO: what a page's one slider can show."""
        percent, bound_ns = slo.latencies[-1]
        return cls(percent, bound_ns / 1e6, slo.error_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Of the first engine's valid rows. `best` None: nothing holds the limit."""

    valid: tuple[CellRow, ...]
    best: CellRow | None
    next_best: CellRow | None  # another configuration
    first: CellRow | None  # the smallest batch on the fewest instances: what everything is compared with
    quickest: CellRow | None  # lowest median
    knee: CellRow | None  # 95 % of the best's throughput, at the lowest mean latency
    proved: bool
    held: dict[Holds, int]


def decide(rows: Sequence[CellRow], limit: Limit | None) -> Decision:
    engine = min((row.engine for row in rows), default="")
    valid = tuple(r for r in rows if r.verdict == "VALID" and r.engine == engine and r.throughput_img_per_s)
    by = {kind: [row for row in valid if holds(row, limit) is kind] for kind in Holds}
    fits = sorted(by[Holds.YES] or by[Holds.LIKELY], key=_throughput, reverse=True)
    best = fits[0] if fits else None
    return Decision(
        valid=valid,
        best=best,
        next_best=next((r for r in fits if best and _configuration(r) != _configuration(best)), None),
        first=_first(valid),
        quickest=min(
            (r for r in valid if r.latency_ms(50.0)), key=lambda r: r.latency_ms(50.0) or 0, default=None
        ),
        knee=_knee(valid, best),
        proved=bool(by[Holds.YES]),
        held={kind: len(found) for kind, found in by.items()},
    )


def holds(row: CellRow, limit: Limit | None) -> Holds:
    if limit is None:
        return Holds.YES
    value = row.latency_ms(limit.percent)
    proved = row.proved_ms[PERCENTS.index(limit.percent)] if row.proved_ms else None
    if row.errors / max(1, row.errors + row.latency_n) > limit.error_fraction:
        return Holds.NO
    if value is None:
        return Holds.UNKNOWN
    if value > limit.bound_ms:
        return Holds.NO
    return Holds.YES if proved is not None and proved <= limit.bound_ms else Holds.LIKELY


def overlap(a: CellRow, b: CellRow) -> bool | None:
    """Whether the intervals of two throughputs overlap; None without intervals."""
    if a.throughput_img_per_s_low is None or b.throughput_img_per_s_high is None:
        return None
    return a.throughput_img_per_s_low <= b.throughput_img_per_s_high


def _throughput(row: CellRow) -> float:
    return row.throughput_img_per_s or 0.0


def _configuration(row: CellRow) -> tuple[object, ...]:
    return (row.model, row.instances, row.batch, row.protocol, str(row.parameters), row.max_batch)


def _first(valid: Sequence[CellRow]) -> CellRow | None:
    if not valid:
        return None
    batch, instances = min((r.batch, r.instances or 0) for r in valid)
    return max((r for r in valid if (r.batch, r.instances or 0) == (batch, instances)), key=_throughput)


def _knee(valid: Sequence[CellRow], best: CellRow | None) -> CellRow | None:
    enough = KNEE * _throughput(best) if best else 0.0
    near = [r for r in valid if r.latency_mean_ms and _throughput(r) >= enough]
    return min(near, key=lambda r: r.latency_mean_ms or 0.0, default=None)
