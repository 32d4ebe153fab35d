"""One measure over all cells of two runs: an interval of new / base for each, and which differ for sure.

Three things make new / base differ though nothing changed, and each has its variance here:

* the noise of a single repeat. With three to five repeats a cell's own estimate of it is poor, so estimates
  of many cells are moderated: each moves towards their middle by as much as they agree. Source: Smyth,
  Linear models and empirical Bayes methods, Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 6.2.
* what a round shares over the cells of one server configuration: it is counted once, not once a cell.
* the luck of a server's start, which no repeat of the same start can show. Where cells are many, it shows in
  their ratios, which differ by more than their noise; what all have in common is judged against an allowance.

A cell differs for sure when Holm's procedure says so over all cells and measures: at most 5 % of comparisons
in which nothing changed name even one cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.distributions import (
    digamma,
    student_t_quantile,
    student_t_tail,
    trigamma,
    trigamma_inverse,
)
from bench.analysis.stats import CONFIDENCE, LEAST_REPEATS, Interval

Floats = NDArray[np.float64]

# The standard deviation of a server's speed from start to start that is allowed for where none was measured.
LUCK_OF_A_START = 0.03
# Of fewer values nothing is learned about the others: neither a typical spread nor a typical ratio.
LEAST_PEERS = 6
# Errors of a whole comparison: single cells that stand out, and what all cells have in common.
SINGLE_LEVEL, COMMON_LEVEL = 0.015, 0.035
# The largest float is e to the power of 709.78.
_MOST_LOGARITHM = 709.0
# A median of absolute deviations of k normal values knows their spread like a variance of so many times k.
MAD_EFFICIENCY = 0.37


@dataclass(frozen=True, slots=True)
class Measured:
    """Repeats of one cell, as logarithms by repeat number. `start`: cells of one start share its luck."""

    base: dict[int, float]
    new: dict[int, float]
    start: Hashable = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """`p_single`: how often the cell would be so much worse if it changed no more than the others;
    `p_common`: the same of what all its peers have in common, and `peers` says which. None: not tested.
    """

    interval: Interval
    one_sided: Interval | None = None  # each bound holds alone with 95 %: what a regression is judged by
    p_single: float | None = None
    p_common: float | None = None
    peers: Hashable = None
    error: float | None = None  # standard error of the logarithm, known with `degrees` of freedom
    degrees: float = 0.0


def evidence(
    cells: Sequence[Measured],
    *,
    higher_is_worse: bool,
    paired: bool,
    luck: float,
    is_reversed: Callable[[int], bool] = lambda _: False,
) -> list[Evidence]:
    """What two runs say of each cell, in order. `luck`: standard deviation of one start.

    `is_reversed`: of pairs, by the repeat's number, whether `new` was measured before `base`. Pairs of both
    orders weigh the same together, so a drift that is linear in time cancels for odd numbers of rounds too.
    """
    if not cells:
        return []
    arms = _arms(cells, paired=paired)
    starts = _numbered([cell.start for cell in cells])
    reverse = np.array([paired and is_reversed(number) for number in _numbers(cells)])
    estimates = [_estimate(arm, starts, reverse) for arm in arms]
    ratio = estimates[0].mean if paired else estimates[1].mean - estimates[0].mean
    parts = [part for estimate in estimates for part in estimate.parts]
    variance = np.sum([part.variance for part in parts], axis=0)
    degrees = _satterthwaite(parts)
    counts = np.min([estimate.count for estimate in estimates], axis=0)
    known = counts >= LEAST_REPEATS
    worse = ratio if higher_is_worse else -ratio
    singles, commons = np.ones(len(cells)), np.ones(len(cells))
    peers = starts if starts.max() + 1 < LEAST_PEERS else np.zeros_like(starts)
    for peer in np.unique(peers):
        chosen = np.flatnonzero((peers == peer) & known)
        if len(chosen):
            of_them = _Peers(worse[chosen], variance[chosen], degrees[chosen], starts[chosen])
            singles[chosen], commons[chosen] = of_them.singles(luck), of_them.common(luck)
    n = counts.tolist()
    return [
        Evidence(
            _interval(ratio[i], variance[i], degrees[i], n[i], (1 + CONFIDENCE) / 2),
            _interval(ratio[i], variance[i], degrees[i], n[i], CONFIDENCE),
            singles[i],
            commons[i],
            int(peers[i]),
            math.sqrt(variance[i]),
            float(degrees[i]),
        )
        if known[i]
        else Evidence(Interval(math.exp(ratio[i]), None, None, n[i]))
        for i in range(len(cells))
    ]


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected; with probability 1 - level none is in error. Source: Holm 1979."""
    order = np.argsort(p_values)
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the variance of each cell's mean, and its degrees of freedom."""

    variance: Floats
    degrees: Floats


@dataclass(frozen=True, slots=True)
class _Estimate:
    mean: Floats
    count: NDArray[np.int64]
    parts: tuple[_Part, _Part]


@dataclass(frozen=True, slots=True)
class _Peers:
    """Cells that are compared with each other: of one start, or of many."""

    worse: Floats  # logarithms of new / base; positive is worse
    variance: Floats
    degrees: Floats
    starts: NDArray[np.int64]

    @property
    def are_enough(self) -> bool:
        return len(self.worse) >= LEAST_PEERS

    @property
    def center(self) -> float:
        return float(np.median(self.worse))

    def singles(self, luck: float) -> Floats:
        """P of a cell that is so much worse than its peers; than before, where they are too few."""
        if not self.are_enough:
            allowance = np.full_like(self.variance, 2 * luck**2)
            return _tails(self.worse, self.variance + allowance, self.degrees)
        away = self.worse - self.center
        between = _spread_between(away, self.variance)
        starts = len(np.unique(self.starts))
        units = starts if starts > 1 else len(away)
        of_center = math.pi / 2 * float(np.median(self.variance + between)) / len(away)
        # Not by Satterthwaite: he is too sure of a noisy cell whose variance came out small by chance.
        degrees = np.minimum(self.degrees, MAD_EFFICIENCY * (units - 1))
        return _tails(away, self.variance + between + of_center, degrees)

    def common(self, luck: float) -> float:
        """P of a change that all cells have in common, if starts differ by their luck alone."""
        typical = int(np.argsort(self.variance)[len(self.variance) // 2])
        variance = self.variance[typical] + 2 * luck**2
        return float(_tails(np.array([self.center]), np.array([variance]), self.degrees[[typical]])[0])


def _arms(cells: Sequence[Measured], *, paired: bool) -> list[Floats]:
    """A table of cells by repeats for each group of trials; paired, one table of their differences."""
    numbers = _numbers(cells)
    base, new = (
        np.array([[getattr(cell, side).get(number, np.nan) for number in numbers] for cell in cells])
        for side in ("base", "new")
    )
    return [new - base] if paired else [base, new]


def _numbers(cells: Sequence[Measured]) -> list[int]:
    return sorted({number for cell in cells for number in (*cell.base, *cell.new)})


def _numbered(names: Sequence[Hashable]) -> NDArray[np.int64]:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])


def _estimate(table: Floats, starts: NDArray[np.int64], reverse: NDArray[np.bool_]) -> _Estimate:
    """Mean of each cell, and the two parts of its variance: its own, and what a round shares over a start.

    Repeats of both orders weigh the same together in the mean. A start of few cells does not tell one part
    from the other: all of it is the cell's own there.
    """
    there = ~np.isnan(table)
    count = there.sum(axis=1)
    n = np.maximum(count, 1)
    weights = _weights(there, reverse)
    mean = (np.where(there, table, 0.0) * weights).sum(axis=1)
    loss = (weights**2).sum(axis=1)
    middle = np.where(there, table, 0.0).sum(axis=1, keepdims=True) / n[:, None]
    rest = np.where(there, table - middle, 0.0)
    sizes = np.bincount(starts)[starts]
    apart = np.where(sizes >= LEAST_PEERS, 1 / sizes, 0.0)  # the part of its own noise in what a round shares
    shared, shared_degrees = np.zeros(len(table)), np.ones(len(table))
    for start in np.unique(starts[sizes >= LEAST_PEERS]):
        of_start = np.flatnonzero(starts == start)
        rounds = there[of_start].sum(axis=0) >= LEAST_PEERS
        series = _medians(rest[of_start], there[of_start]) * rounds
        rest[of_start] -= np.where(there[of_start], series, 0.0)
        shared_degrees[of_start] = max(1, rounds.sum() - 1)
        shared[of_start] = (series**2).sum() / shared_degrees[of_start]
    degrees = np.maximum(n - 1, 1) * (1 - apart)
    own = (rest**2).sum(axis=1) / degrees
    enough = count >= LEAST_REPEATS
    for chosen in (enough & (apart > 0), enough & (apart == 0)):
        if (apart[chosen] > 0).any() or len(np.unique(starts[chosen])) >= LEAST_PEERS:
            own[chosen], degrees[chosen] = moderated(own[chosen], degrees[chosen])
    return _Estimate(
        mean, count, (_Part(own * (1 - apart) * loss, degrees), _Part(shared * loss, shared_degrees))
    )


def _weights(there: NDArray[np.bool_], reverse: NDArray[np.bool_]) -> Floats:
    """Of each repeat in its cell's mean: each order half, where both are there."""
    backwards, forwards = there & reverse, there & ~reverse
    counts = [order.sum(axis=1, keepdims=True) for order in (backwards, forwards)]
    parts = [order / np.maximum(count, 1) for order, count in zip((backwards, forwards), counts, strict=True)]
    orders = np.maximum(np.minimum(counts[0], 1) + np.minimum(counts[1], 1), 1)
    return np.asarray((parts[0] + parts[1]) / orders)


def _medians(table: Floats, there: NDArray[np.bool_]) -> Floats:
    """Of each column, of what is there."""
    columns = zip(table.T, there.T, strict=True)
    return np.array([np.median(column[known]) if known.any() else 0.0 for column, known in columns])


def moderated(variances: Floats, degrees: Floats) -> tuple[Floats, Floats]:
    """Estimates of many variances, each moved towards their middle as far as they agree, with what they now
    know. As they are where they are few, or zero. Source: Smyth 2004, section 6.2.
    """
    positive = variances[variances > 0]
    if len(positive) < LEAST_PEERS:
        return variances, degrees
    floor = 1e-4 * float(np.median(positive))
    halves = degrees / 2
    logs = np.log(np.maximum(variances, floor)) - digamma(halves) + np.log(halves)
    excess = float(np.var(logs, ddof=1) - np.mean(trigamma(halves)))
    center, total = float(np.mean(logs)), float(degrees.sum())
    if excess <= 0:
        prior, typical = total, math.exp(center)
    else:
        half = trigamma_inverse(excess)
        prior = min(2 * half, total)
        typical = math.exp(center + float(digamma(np.array([half]))[0]) - math.log(half))
    # A cell that is noisier than one of 200 like the others would be is none of them, and keeps its own.
    ninths = 2 / (9 * degrees)  # quantile of chi-square by Wilson and Hilferty
    is_like = variances <= typical * (1 - ninths + 2.58 * np.sqrt(ninths)) ** 3
    return (
        np.where(is_like, (prior * typical + degrees * variances) / (prior + degrees), variances),
        np.where(is_like, np.minimum(prior + degrees, total), degrees),
    )


def _spread_between(away: Floats, variance: Floats) -> float:
    """The variance that has to be added for half the cells to lie within the quartiles of a normal law."""

    def middle(between: float) -> float:
        return float(np.median(np.abs(away) / np.sqrt(variance + between + 1e-300)))

    low, high = 0.0, float((away**2).max()) * 4 + 1e-300
    if middle(low) <= 0.6745:
        return 0.0
    for _ in range(50):
        half = (low + high) / 2
        low, high = (half, high) if middle(half) > 0.6745 else (low, half)
    return high


def _satterthwaite(parts: Sequence[_Part]) -> Floats:
    """Degrees of freedom of a sum of variances. Source: Satterthwaite 1946."""
    total = np.sum([part.variance for part in parts], axis=0)
    lost = np.sum([part.variance**2 / part.degrees for part in parts], axis=0)
    fewest = np.min([part.degrees for part in parts], axis=0)
    return np.asarray(np.where(lost > 0, total**2 / np.where(lost > 0, lost, 1.0), fewest))


def _tails(worse: Floats, variance: Floats, degrees: Floats) -> Floats:
    return np.array(
        [
            student_t_tail(w / math.sqrt(v), d) if v > 0 else (0.0 if w > 0 else 1.0)
            for w, v, d in zip(worse, variance, degrees, strict=True)
        ]
    )


def _interval(center: float, variance: float, degrees: float, n: int, probability: float) -> Interval:
    """`probability`: that each of the two bounds holds."""
    half = student_t_quantile(probability, rounded_degrees(degrees)) * math.sqrt(variance)
    # A repeat that is off by powers of ten makes a bound beyond all floats.
    high = math.exp(center + half) if center + half < _MOST_LOGARITHM else math.inf
    return Interval(math.exp(center), math.exp(center - half), high, n)


def rounded_degrees(degrees: float) -> float:
    """So coarse that quantiles can be kept: the quantile changes by less than 0.3 %."""
    if degrees >= 100:
        return 100.0 * int(min(degrees, 10_000) / 100)
    return math.floor(degrees * 20) / 20 if degrees < 20 else float(int(degrees))
