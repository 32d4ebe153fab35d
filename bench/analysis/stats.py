"""Percentiles that know when they mean something, and intervals over repeats.

Repeats are the unit: requests within a trial are not independent, trials are. Intervals are Student's
t, of times and ratios on logarithms, since they are positive and their errors multiply.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

import numpy as np

from bench.analysis.distributions import binomial_cdf, student_t_quantile
from bench.core.samples import Int64

# Intervals are at this confidence.
CONFIDENCE = 0.95
# An interval needs this many repeats.
LEAST_REPEATS = 3
# MLPerf LoadGen stops early at this confidence, and an SLO is proved at it.
EARLY_STOPPING_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Percentile:
    """`value_ns` None: too few samples; `needed` says how many there must be.

    `at_least`: the percentile is this or more, since requests that nobody waited for longer are in it.
    """

    percent: float
    value_ns: int | None
    n: int
    needed: int
    at_least: bool = False


def nearest_rank(ordered: Int64, percent: float | Fraction) -> int:
    """The smallest sample that at least `percent` of all do not exceed: rank ceil(p n). `ordered`: sorted.

    A float counts as the decimal number that it is written as, so 0.999 * 1000 does not become rank 1000.
    MLPerf LoadGen takes rank floor(p n) + 1, one higher where p n is whole.
    """
    return int(ordered[max(0, math.ceil(_share(percent) * len(ordered)) - 1)])


@lru_cache(maxsize=1024)
def _share(percent: float | Fraction) -> Fraction:
    return Fraction(str(percent)) / 100


def percentile(ordered: Int64, percent: float, waited_ns: int | None = None) -> Percentile:
    """Exact, by nearest rank; None with fewer samples than MLPerf's early stopping asks for.

    `waited_ns`: the shortest time after which a request of these had no answer; None: all had one.
    """
    n, needed = len(ordered), samples_needed(percent)
    if n < needed:
        return Percentile(percent, None, n, needed)
    value = nearest_rank(ordered, percent)
    return Percentile(percent, value, n, needed, at_least=waited_ns is not None and waited_ns <= value)


def samples_needed(percent: float) -> int:
    """With one sample beyond it: p50 11, p90 64, p95 130, p99 662, p99.9 6,636."""
    return early_stopping_n(percent, 1)


@lru_cache(maxsize=4096)
def early_stopping_n(percent: float, over: int) -> int:
    """The fewest samples that prove "`percent` are under the bound" when `over` of them are not.

    The smallest n with P(Binomial(n, 1 - p) <= over) <= 1 - 0.99. Source: MLPerf inference rules,
    appendix on early stopping (d = 0).
    """
    low, high = over, 2 * (over + 1)
    while not _allows(percent, over, high):
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _allows(percent, over, middle) else (middle, high)
    return high


def proves(percent: float, over: int, n: int) -> bool:
    """Whether n samples, `over` of them beyond a bound, prove that `percent` of all are within it."""
    return over < n and _allows(percent, over, n)


def estimate_under(ordered: Int64, percent: float) -> int | None:
    """MLPerf's early-stopping estimate of a percentile: proved at 99 % not to lie higher. None with too few.

    Source: MLPerf inference rules: with t the most samples that may be over, discard the t - 1 highest.
    """
    n = len(ordered)
    if n < samples_needed(percent):
        return None
    low, high = 1, n  # t that n samples allow, and one that they do not
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if _allows(percent, middle, n) else (low, middle)
    return int(ordered[n - low])


def _allows(percent: float, over: int, n: int) -> bool:
    return binomial_cdf(over, n, 1 - percent / 100) <= 1 - EARLY_STOPPING_CONFIDENCE


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
    """Geometric mean over repeats, with Student's t interval on the logarithms. None without values > 0.

    A repeat at 0 (nothing got through) has no logarithm: then the plain mean, without bounds.
    """
    if not any(value > 0 for value in values):
        return None
    if any(value <= 0 for value in values):
        return Interval(float(np.mean(values)), None, None, len(values))
    center, half = _mean_and_half_width(np.log(values).tolist(), confidence)
    return _exponential(center, half, len(values))


def arithmetic(
    values: Sequence[float], standard_error: float = 0.0, confidence: float = CONFIDENCE
) -> Interval | None:
    """Mean over repeats, with Student's t interval on the values, never below 0. None without values > 0.

    For throughput: over a window it is a mean over time already, and the mean of repeats is unbiased where
    the geometric mean is too low, by half the squared spread. `standard_error`: what the values do not show
    in their spread, because it may be the same in all of them.
    """
    if not any(value > 0 for value in values):
        return None
    center, half = _mean_and_half_width(values, confidence)
    if half is None:
        return Interval(center, None, None, len(values))
    half = math.hypot(half, student_t_quantile((1 + confidence) / 2, 1e6) * standard_error)
    return Interval(center, max(0.0, center - half), center + half, len(values))


def _exponential(center: float, half_width: float | None, n: int) -> Interval:
    if half_width is None:
        return Interval(math.exp(center), None, None, n)
    return Interval(math.exp(center), math.exp(center - half_width), math.exp(center + half_width), n)


def _mean_and_half_width(values: Sequence[float], confidence: float) -> tuple[float, float | None]:
    n, center = len(values), float(np.mean(values))
    if n < LEAST_REPEATS:
        return center, None
    deviation = float(np.std(values, ddof=1))
    return center, student_t_quantile((1 + confidence) / 2, n - 1) * deviation / math.sqrt(n)


def paired_ratio(base: Sequence[float], new: Sequence[float]) -> Interval | None:
    """new / base, repeat by repeat: for trials that were interleaved. None where a base is 0."""
    pairs = list(zip(base, new, strict=True))
    return geometric([b / a for a, b in pairs]) if all(a > 0 for a, _ in pairs) else None


def ratio(base: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """new / base of two independent groups: Welch's interval on logarithms. None where a value is 0."""
    if not base or not new or min(*base, *new) <= 0:
        return None
    a, b = np.log(base), np.log(new)
    center, n = float(b.mean() - a.mean()), min(len(a), len(b))
    if n < LEAST_REPEATS:
        return _exponential(center, None, n)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    if va + vb == 0:
        return _exponential(center, 0.0, n)
    degrees = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = student_t_quantile((1 + confidence) / 2, degrees) * math.sqrt(va + vb)
    return _exponential(center, half, n)


def hodges_lehmann(base: Sequence[float], new: Sequence[float]) -> float | None:
    """Median of all ratios new / base: what an outlying repeat cannot move."""
    ratios = [b / a for a, b in itertools.product(base, new) if a > 0 and b > 0]
    return float(np.median(ratios)) if ratios else None


class Change(StrEnum):
    REGRESSION = "regression"
    NO_CHANGE = "no change"
    INCONCLUSIVE = "inconclusive"


def change_of(interval: Interval | None, limit: float, *, higher_is_worse: bool) -> Change:
    """Whether a ratio is a regression: its interval lies beyond the limit, within it, or across it.

    `limit` is the ratio that is still allowed: 1.05 for "at most 5 % more". INCONCLUSIVE without an interval.
    """
    if interval is None or interval.low is None or interval.high is None:
        return Change.INCONCLUSIVE
    sign = 1 if higher_is_worse else -1
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > sign * limit:
        return Change.REGRESSION
    return Change.INCONCLUSIVE if high > sign * limit else Change.NO_CHANGE
