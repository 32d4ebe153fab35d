"""Which configuration to run, under a limit on latency or without one.

The page's card makes the same choice in the reader's browser, for any limit; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.slo import Holds
from bench.core.slo import Slo
from bench.core.units import duration

# An interval whose ends are this many times apart says little about the figure in it.
WIDE = 1.5


@dataclass(frozen=True, slots=True)
class Limit:
    """`percent` of response times at most `bound_ms`, errors at most a share."""

    percent: float
    bound_ms: float
    error_fraction: float = 0.0
    others: tuple[tuple[float, float], ...] = ()  # further percentiles and their bounds, which hold too

    @classmethod
    def of(cls, slo: Slo) -> Limit:
        """The highest percentile of an SLO is what a page's one slider moves; the others stay."""
        *others, (percent, bound_ns) = slo.latencies
        kept = tuple((lower, ns / 1e6) for lower, ns in others)
        return cls(percent, bound_ns / 1e6, slo.error_fraction, kept)

    def __str__(self) -> str:
        """p99 <= 100 ms and p50 <= 20 ms."""
        terms = ((self.percent, self.bound_ms), *self.others)
        return " and ".join(f"p{percent:g} <= {duration(ms * 1e6)}" for percent, ms in terms)


class Basis(StrEnum):
    """What the throughput that is stated of the best cell rests on."""

    CONFIRMED = "confirmed"  # fresh trials alone, made after the cell was picked
    CORRECTED = "corrected"  # the trials it was picked by, corrected for that
    MEASURED = "measured"  # its own trials: no other cell is in reach, or there is no interval


@dataclass(frozen=True, slots=True)
class Stated:
    """The throughput in img/s that is stated of a cell because it is the best; bounds at 95 %, or None."""

    value: float
    low: float | None
    high: float | None
    basis: Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to run, and beside what it was chosen: only candidates of the first engine."""

    valid: tuple[CellRow, ...]
    best: CellRow | None  # the most throughput within the limit; None: nothing holds it
    next_best: CellRow | None  # the best of another configuration
    quickest: CellRow | None  # the lowest median latency of all
    proved: bool  # the samples prove that `best` holds the limit; else it is only likely
    counts: Mapping[Holds, int]  # how many valid cells hold the limit, and how surely
    candidates: int  # how many cells `best` is the best of


def recommend(rows: Sequence[CellRow], limit: Limit | None) -> Recommendation:
    """Choose the cell with the most throughput among those that hold the limit.

    Cells that are proved to hold it come before those that only likely do. `limit` None: every cell holds.
    """
    engine = min((row.engine for row in rows), default="")
    valid = tuple(row for row in rows if row.is_candidate and row.engine == engine)
    by = {kind: [row for row in valid if holds(row, limit) is kind] for kind in Holds}
    fits = sorted(by[Holds.YES] or by[Holds.LIKELY], key=_throughput, reverse=True)
    best = fits[0] if fits else None
    return Recommendation(
        valid=valid,
        best=best,
        next_best=next((r for r in fits if best and _configuration(r) != _configuration(best)), None),
        quickest=min(
            (r for r in valid if r.latency_ms(50.0)), key=lambda r: r.latency_ms(50.0) or 0, default=None
        ),
        proved=bool(by[Holds.YES]),
        counts={kind: len(of_kind) for kind, of_kind in by.items()},
        candidates=len(fits),
    )


def holds(row: CellRow, limit: Limit | None) -> Holds:
    """Whether a cell holds a limit, by its pooled percentiles and its errors; the least sure of its terms.

    NO when too many requests failed, whatever the latency. `limit` None: YES.
    """
    if limit is None:
        return Holds.YES
    if row.errors / max(1, row.asked) > limit.error_fraction:
        return Holds.NO
    terms = ((limit.percent, limit.bound_ms), *limit.others)
    answers = {_within(row, percent, bound_ms) for percent, bound_ms in terms}
    return next(kind for kind in _WORST_FIRST if kind in answers)


_WORST_FIRST = (Holds.NO, Holds.UNKNOWN, Holds.LIKELY, Holds.YES)


def _within(row: CellRow, percent: float, bound_ms: float) -> Holds:
    value = row.latency_ms(percent)
    proved = row.proved_ms[PERCENTS.index(percent)] if row.proved_ms else None
    if value is None:
        return Holds.UNKNOWN
    if value > bound_ms:
        return Holds.NO
    return Holds.YES if proved is not None and proved <= bound_ms else Holds.LIKELY


def stated(best: CellRow) -> Stated:
    """What to say of the throughput of a cell that was picked for it."""
    fresh, corrected = best.confirmed, best.if_best
    if fresh is not None and fresh.verdict == "VALID" and fresh.low is not None:
        return Stated(fresh.value, fresh.low, fresh.high, Basis.CONFIRMED)
    if corrected is not None and corrected.rivals > 1:
        return Stated(corrected.value, corrected.low, corrected.high, Basis.CORRECTED)
    own = (best.throughput_img_per_s_low, best.throughput_img_per_s_high)
    return Stated(_throughput(best), *own, Basis.MEASURED)


def overlap(best: CellRow, other: CellRow) -> bool | None:
    """Whether what is stated of the best overlaps with another's interval; None without intervals."""
    low = stated(best).low
    if low is None or other.throughput_img_per_s_high is None:
        return None
    return low <= other.throughput_img_per_s_high


def _throughput(row: CellRow) -> float:
    return row.throughput_img_per_s or 0.0


def _configuration(row: CellRow) -> tuple[object, ...]:
    pods = (row.replicas, row.instances, row.via)
    queue = (row.max_batch, row.max_queue_delay_us)
    return (row.model, *pods, row.batch, row.protocol, row.shared_memory, str(row.parameters), *queue)
