"""Percentiles that know when they mean something, and intervals over repeats.

Repeats are the unit: requests within a trial are not independent, trials are. Intervals are Student's
t on logarithms, since times and rates are positive and their errors multiply.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from bench.samples import Int64
from bench.special import binomial_cdf, student_t_quantile

CONFIDENCE = 0.95
LEAST_REPEATS = 3  # for an interval
EARLY_STOPPING_CONFIDENCE = 0.99  # MLPerf LoadGen's


@dataclass(frozen=True, slots=True)
class Percentile:
    """`value_ns` None: too few samples; `needed` says how many there must be."""

    percent: float
    value_ns: int | None
    n: int
    needed: int

    @property
    def missing(self) -> int:
        return max(0, self.needed - self.n)


def nearest_rank(ordered: Int64, percent: float) -> int:
    """The smallest sample that at least `percent` of all do not exceed: rank ceil(p n). `ordered`: sorted."""
    rank = max(1, math.ceil(percent / 100 * len(ordered) - 1e-9))
    return int(ordered[rank - 1])


def percentile(ordered: Int64, percent: float) -> Percentile:
    """Exact, by nearest rank; None with fewer samples than MLPerf's early stopping asks for."""
    n, needed = len(ordered), samples_needed(percent)
    return Percentile(percent, nearest_rank(ordered, percent) if n >= needed else None, n, needed)


def samples_needed(percent: float) -> int:
    """With one sample beyond it: p50 11, p90 64, p95 130, p99 662, p99.9 6,636."""
    return early_stopping_n(percent, 1)


@lru_cache(maxsize=4096)
def early_stopping_n(percent: float, over: int) -> int:
    """The fewest samples that prove "`percent` are under the bound" when `over` of them are not.

    The smallest n with P(Binomial(n, 1 - p) <= over) <= 1 - 0.99. Source: MLPerf inference rules,
    appendix on early stopping (d = 0).
    """
    share = 1 - percent / 100
    low, high = over, 2 * (over + 1)
    while binomial_cdf(over, high, share) > 1 - EARLY_STOPPING_CONFIDENCE:
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        if binomial_cdf(over, middle, share) > 1 - EARLY_STOPPING_CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def proves(percent: float, over: int, n: int) -> bool:
    """Whether n samples, `over` of them beyond a bound, prove that `percent` of all are within it."""
    return n >= early_stopping_n(percent, over)


def estimate_under(ordered: Int64, percent: float) -> int | None:
    """MLPerf's estimate: the smallest bound these samples prove for `percent`; None with too few."""
    n = len(ordered)
    if not proves(percent, 0, n):
        return None
    over = next(t for t in itertools.count() if not proves(percent, t + 1, n))
    return int(ordered[n - over - 1])


def rank_interval(n: int, percent: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (1-based) whose samples bracket the true percentile; None where none do. Distribution-free."""
    p, tail = percent / 100, (1 - confidence) / 2
    low = _last_rank(n, p, tail)
    high = n + 1 - _last_rank(n, 1 - p, tail)
    return (low, high) if low >= 1 and high <= n else None


def _last_rank(n: int, p: float, tail: float) -> int:
    """The highest rank r with P(Binomial(n, p) < r) <= tail."""
    low, high = 0, n + 1
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial_cdf(middle - 1, n, p) <= tail else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its bounds at 95 %; bounds None below three repeats."""

    value: float
    low: float | None
    high: float | None
    n: int

    def overlaps(self, other: Interval) -> bool:
        if None in (self.low, self.high, other.low, other.high):
            return True  # nothing says they differ
        return bool(self.low <= other.high and other.low <= self.high)  # type: ignore[operator]  # not None


def geometric(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Geometric mean over repeats, with Student's t interval on the logarithms. None without values > 0."""
    logs = np.log([value for value in values if value > 0])
    if len(logs) == 0:
        return None
    center, spread = _mean_and_half_width(logs.tolist(), confidence)
    if spread is None:
        return Interval(math.exp(center), None, None, len(logs))
    return Interval(math.exp(center), math.exp(center - spread), math.exp(center + spread), len(logs))


def _mean_and_half_width(values: Sequence[float], confidence: float) -> tuple[float, float | None]:
    n, center = len(values), float(np.mean(values))
    if n < LEAST_REPEATS:
        return center, None
    deviation = float(np.std(values, ddof=1))
    return center, student_t_quantile((1 + confidence) / 2, n - 1) * deviation / math.sqrt(n)


def paired_ratio(base: Sequence[float], new: Sequence[float]) -> Interval | None:
    """new / base, repeat by repeat: for trials that were interleaved."""
    return geometric([b / a for a, b in zip(base, new, strict=True) if a > 0])


def ratio(base: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """new / base of two independent groups: Welch's interval on logarithms."""
    a, b = np.log([v for v in base if v > 0]), np.log([v for v in new if v > 0])
    if not len(a) or not len(b):
        return None
    center, n = float(b.mean() - a.mean()), min(len(a), len(b))
    if n < LEAST_REPEATS:
        return Interval(math.exp(center), None, None, n)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb == 0:
        return Interval(math.exp(center), math.exp(center), math.exp(center), n)
    degrees = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    spread = student_t_quantile((1 + confidence) / 2, degrees) * math.sqrt(va + vb)
    return Interval(math.exp(center), math.exp(center - spread), math.exp(center + spread), n)


def hodges_lehmann(base: Sequence[float], new: Sequence[float]) -> float | None:
    """Median of all ratios new / base: what an outlying repeat cannot move."""
    ratios = [b / a for a, b in itertools.product(base, new) if a > 0 and b > 0]
    return float(np.median(ratios)) if ratios else None


class Change(StrEnum):
    REGRESSION = "regression"
    NO_CHANGE = "no change"
    INCONCLUSIVE = "inconclusive"


def judge(interval: Interval | None, limit: float, *, higher_is_worse: bool) -> Change:
    """Three ways: the interval lies beyond the limit, or within it, or across it.

    `limit` is the ratio that is still allowed: 1.05 for "at most 5 % more".
    """
    if interval is None or interval.low is None or interval.high is None:
        return Change.INCONCLUSIVE
    sign = 1 if higher_is_worse else -1
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > sign * limit:
        return Change.REGRESSION
    return Change.INCONCLUSIVE if high > sign * limit else Change.NO_CHANGE


def repeats_to_settle(interval: Interval | None, limit: float) -> int | None:
    """About how many repeats would bring the interval off the limit; None where that is not to be told."""
    if interval is None or interval.low is None or interval.high is None:
        return None
    half = (math.log(interval.high) - math.log(interval.low)) / 2
    distance = abs(math.log(limit) - math.log(interval.value))
    if distance == 0:
        return None
    return max(interval.n + 1, math.ceil(interval.n * (half / distance) ** 2))
