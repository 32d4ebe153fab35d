"""How far the requests of some repeats carry a percentile: its interval, and the bound that they prove.

Requests are not independent: one long request, or one burst, makes all those late that wait behind it. So
late requests come in clusters, and n requests say as much as n / D independent ones. D is the design effect
of survey sampling (Kish 1965): the variance of the count of late requests over blocks of time, divided by
the variance that independent requests would have.

With K of n requests beyond x, x may be the percentile unless the binomial tail of K / D late ones among n / D
rules it out (Clopper and Pearson, continued to real numbers by the incomplete beta function). For D = 1 this
is MLPerf's early stopping. Where even no late request among n / D would be likely, nothing bounds the
percentile from above. What differs from repeat to repeat (the luck of a server's start) is not seen within
one. So the interval also covers Student's t interval over the percentiles of the repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.distributions import beta_regularised, student_t_quantile
from bench.analysis.stats import (
    CONFIDENCE,
    EARLY_STOPPING_CONFIDENCE,
    LEAST_REPEATS,
    nearest_rank,
    samples_needed,
)
from bench.core.samples import Int64

# The design effect is the largest over these levels: a queue that is long for long shows at the median first.
LEVELS = (50.0, 80.0, 90.0, 95.0, 98.0, 99.0)
# A trial is cut into so many blocks of equal counts of requests, and so many of them are taken together.
BLOCKS, TOGETHER = 20, (1, 2, 4)
# An estimate of D is too low just where a rare long cluster did not happen, so D is taken this many times
# larger. docs/results/coverage.md shows what intervals cover with that, and how often proofs are false.
INTERVAL_MARGIN, PROOF_MARGIN = 1.5, 2.5


def design_effect(repeats: Sequence[Int64]) -> float:
    """How many requests say as much as one independent request; at least 1.

    `repeats`: the response times of each trial, in the order of time. Blocks of a twentieth, a tenth and a
    fifth of a trial are compared, at the levels p50 to p99; the largest effect counts.
    """
    repeats = [latencies for latencies in repeats if len(latencies)]
    if not repeats:
        return 1.0
    pooled = np.sort(np.concatenate(repeats))
    marks = np.array([nearest_rank(pooled, percent) for percent in LEVELS])
    counted = [_late_in_blocks(latencies, marks) for latencies in repeats]
    late = np.stack([of_blocks for of_blocks, _ in counted])  # trials x blocks x levels
    sizes = np.stack([of_blocks for _, of_blocks in counted])  # trials x blocks
    return max(1.0, *(_inflation(late, sizes, together) for together in TOGETHER))


def _late_in_blocks(latencies: Int64, marks: Int64) -> tuple[Int64, Int64]:
    """How many requests of each block are beyond each mark (blocks x levels), and how many it has."""
    block = np.arange(len(latencies)) * BLOCKS // len(latencies)
    levels = len(marks) + 1
    cells = np.bincount(block * levels + np.searchsorted(marks, latencies), minlength=BLOCKS * levels)
    table = cells.reshape(BLOCKS, levels)
    beyond = table[:, ::-1].cumsum(axis=1)[:, -2::-1]
    return beyond, table.sum(axis=1)


def _inflation(late: Int64, sizes: Int64, together: int) -> float:
    """The largest variance over that of independent requests. Ratio estimator: blocks may differ in size."""
    levels = late.shape[2]
    counts = late.reshape(-1, together, levels).sum(axis=1)
    of_block = sizes.reshape(-1, together).sum(axis=1)[:, None]
    n, blocks = int(of_block.sum()), len(counts)
    share = counts.sum(axis=0) / n
    variance = ((counts - share * of_block) ** 2).sum(axis=0) * blocks / (blocks - 1)
    independent = n * share * (1 - share)
    return float(np.max(variance / np.where(independent > 0, independent, np.inf)))


def clusters(effect: float, margin: float) -> float:
    """How many requests are taken for one independent piece, with a margin for what was not seen."""
    return 1 + (effect - 1) * margin


def proves_within(percent: float, late: int, n: int, effect: float) -> bool:
    """Whether n requests, `late` of them beyond a bound, prove at 99 % that `percent` of all are within it.

    `effect`: as `design_effect`. It says nothing of what differs from one trial to another.
    """
    return (
        late < n and _tail(percent, late, n, clusters(effect, PROOF_MARGIN)) <= 1 - EARLY_STOPPING_CONFIDENCE
    )


def _tail(percent: float, late: int, n: int, pieces: float) -> float:
    """The chance of so few late requests where `percent` of all are just not within the bound."""
    return beta_regularised((n - late) / pieces, late / pieces + 1, percent / 100)


@dataclass(frozen=True)
class PooledLatencies:
    """Response times of all repeats of a cell, in ns, and what they say of their percentiles."""

    repeats: tuple[Int64, ...]  # of each trial, sorted
    ordered: Int64  # of all trials, sorted
    effect: float  # as `design_effect`

    @classmethod
    def of(cls, repeats: Sequence[Int64]) -> PooledLatencies:
        """`repeats`: the response times of each trial, in the order of time."""
        each = tuple(np.sort(latencies) for latencies in repeats)
        return cls(each, np.sort(np.concatenate(each)), design_effect(repeats))

    def interval_ns(self, percent: float) -> tuple[float, float | None] | None:
        """The 95 % interval of a percentile; an upper end of None: nothing bounds it from above.

        None with fewer than three repeats, and where they have too few requests for the percentile itself.
        """
        if len(self.ordered) < samples_needed(percent) or self._spread(percent) is None:
            return None
        tail = (1 - CONFIDENCE) / 2
        center, half = nearest_rank(self.ordered, percent), self._half_width(percent, 1 - tail)
        low = min(self._from_below(percent, tail, INTERVAL_MARGIN), center / half)
        high = self._from_above(percent, tail, INTERVAL_MARGIN)
        return low, None if high is None else max(high, center * half)

    def proved_ns(self, percent: float) -> float | None:
        """The smallest bound that the percentile is proved to keep: false in at most 1 of 100 studies.

        None where nothing is proved: too few repeats, or too few requests for how they cluster.
        """
        if len(self.ordered) < samples_needed(percent) or self._spread(percent) is None:
            return None
        tail = 1 - EARLY_STOPPING_CONFIDENCE
        high = self._from_above(percent, tail, PROOF_MARGIN)
        over_repeats = nearest_rank(self.ordered, percent) * self._half_width(percent, 1 - tail)
        return None if high is None else max(high, over_repeats)

    def needed(self, percent: float) -> int:
        """About how many requests prove a bound on the percentile, when they cluster as these do."""
        return math.ceil(samples_needed(percent) * clusters(self.effect, PROOF_MARGIN))

    def _spread(self, percent: float) -> float | None:
        """Standard error over repeats of the logarithm of their own percentiles; None below three repeats."""
        known = [nearest_rank(latencies, percent) for latencies in self.repeats if len(latencies)]
        if len(known) < max(LEAST_REPEATS, len(self.repeats)):
            return None
        logarithms = np.log(np.maximum(known, 1))
        return float(np.std(logarithms, ddof=1)) / math.sqrt(len(known))

    def _half_width(self, percent: float, confidence: float) -> float:
        """The factor between the pooled percentile and the end of Student's t interval over repeats."""
        return math.exp(
            student_t_quantile(confidence, len(self.repeats) - 1) * (self._spread(percent) or 0.0)
        )

    def _from_above(self, percent: float, tail: float, margin: float) -> float | None:
        """The smallest sample that is not below the percentile, but for a chance of `tail`.

        As MLPerf does it: of the most requests that may be late, all but one are discarded.
        """
        pieces, n = clusters(self.effect, margin), len(self.ordered)
        most = _last(n, lambda late: _tail(percent, late, n, pieces) <= tail)
        return float(self.ordered[n - most]) if most else None

    def _from_below(self, percent: float, tail: float, margin: float) -> float:
        """The largest sample that is not above the percentile, but for a chance of `tail`."""
        effect, share, n = clusters(self.effect, margin), percent / 100, len(self.ordered)

        def may_be(late: int) -> bool:
            return late == 0 or beta_regularised(late / effect, (n - late) / effect + 1, 1 - share) > tail

        most = _last(n, may_be)
        return float(self.ordered[n - 1 - (most or 0)])


def _last(n: int, holds: Callable[[int], bool]) -> int | None:
    """The largest count below n for which a condition holds that holds up to it; None: not even for 0."""
    if not holds(0):
        return None
    low, high = 0, n
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
