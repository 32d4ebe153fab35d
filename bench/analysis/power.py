"""How small a change a comparison sees, and how many repeats a change needs: before a run, and after it.

A gate sees a change where its verdict is a regression (`comparison`): the one-sided bound of new / base lies
beyond the gate, and the change is sure among all cells and gates, by the first step of Holm's procedure
(`many_cells`). With the variance as it was estimated, both ask that the estimate lies beyond a threshold. So
the power is a normal tail, averaged over what the variance may be estimated as: for a single hypothesis the
tail of the noncentral t distribution. It is exact for pairs, and for Welch's interval of two groups with
equal spreads (the share of one group in the sum of two equal variances has a beta distribution, independent
of the sum). Variances of many cells are taken as known as well as `many_cells` pools equal ones.

Changes are natural logarithms of new / base in the direction that is worse. A spread is the standard
deviation of the logarithm of one repeat, the same in both runs and all cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.analysis.distributions import chi_square_nodes, normal_cdf, student_t_quantile
from bench.analysis.many_cells import COMMON_LEVEL, LEAST_PEERS, MAD_EFFICIENCY, SINGLE_LEVEL, moderated
from bench.analysis.stats import CONFIDENCE, LEAST_REPEATS

Floats = NDArray[np.float64]

# A change counts as seen where so many of new runs would name it.
POWER = 0.8
# More repeats than these are not advised: nobody measures them.
MOST_REPEATS = 1000
# Larger changes than these are not looked for, as logarithms: eight times as slow.
_LARGEST = math.log(8)
# The share of one group in the sum of two variances is split into so many equal steps of its half range.
_SHARES = 8
# What pooled variances of many cells are estimated as is drawn so often, for so many cells each time.
_DRAWS, _CELLS = 40, 25
# Quantiles are interpolated between these degrees of freedom.
_LOG_DEGREES = np.linspace(0.0, math.log(20_000), 105)


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A comparison as it is planned, or was measured.

    `repeats`: of each cell in each run. `paired`: they belong together by round, and `alternates` where every
    second round is in reverse. `starts`: server configurations, which share the `cells`. `gates`: all of
    them, the one on errors included. `luck`: of a server's start, where the repeats do not show it.
    """

    repeats: int
    paired: bool = False
    alternates: bool = False
    cells: int = 1
    starts: int = 1
    gates: int = 3
    luck: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one repeat. `degrees` of freedom that it was estimated with; infinite where it is assumed."""

    value: float
    degrees: float = math.inf


def power(design: Design, limit: float, change: float, spread: Spread) -> float:
    """How often a run would name a regression of one cell, if that cell alone changed by so much.

    `limit`: the gate's, at least 0. An estimated spread is averaged over what it may be in truth.
    """
    seen = [
        weight * _seen(_thresholds(design), limit, change, size, design.luck)
        for size, weight in _sizes(spread)
    ]
    return float(np.sum(seen))


@lru_cache(maxsize=1024)
def smallest_change(design: Design, limit: float, spread: Spread) -> float | None:
    """What is seen in POWER of runs; None where a change of eight times is not."""
    if design.repeats < LEAST_REPEATS or power(design, limit, _LARGEST, spread) < POWER:
        return None
    low, high = 0.0, _LARGEST
    for _ in range(20):  # to a few millionths
        middle = (low + high) / 2
        low, high = (low, middle) if power(design, limit, middle, spread) >= POWER else (middle, high)
    return high


def repeats_to_see(design: Design, limit: float, change: float, spread: Spread) -> int | None:
    """How many repeats see `change` in POWER of runs; None where MOST_REPEATS do not."""
    return _fewest(
        lambda repeats: (
            power(replace(design, repeats=repeats), limit, change, spread) >= POWER
            if change > limit
            else False
        )
    )


def repeats_to_settle(design: Design, limit: float, estimate: float, spread: Spread) -> int | None:
    """How many repeats of a new run give a verdict, regression or no change, in POWER of runs.

    `design` and `estimate` are of the run that gave none. Both its estimate and its spread are uncertain, so
    the new run is predicted from them: averaged over all changes and spreads that the run leaves possible,
    each as likely as its data are with it. None where MOST_REPEATS are not enough.
    """
    known = _thresholds(design).true_variance

    def settles(repeats: int) -> bool:
        new = replace(design, repeats=repeats)
        settled = [
            weight * _settled(_thresholds(new), limit, estimate, size, design.luck, known)
            for size, weight in _sizes(spread)
        ]
        return float(np.sum(settled)) >= POWER

    return _fewest(settles)


def measured_spread(design: Design, error: float, degrees: float) -> Spread:
    """From the standard error of new / base that a comparison of this design has found."""
    return Spread(error / math.sqrt(_thresholds(design).true_variance), degrees)


def _fewest(is_enough: Callable[[int], bool]) -> int | None:
    """The fewest repeats that are enough; power grows with them."""
    low, high = LEAST_REPEATS - 1, LEAST_REPEATS
    while not is_enough(high):
        if high >= MOST_REPEATS:
            return None
        low, high = high, min(2 * high, MOST_REPEATS)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _sizes(spread: Spread) -> list[tuple[float, float]]:
    """What the spread may be in truth, with weights: as a flat prior of its logarithm leaves it."""
    if math.isinf(spread.degrees) or spread.value == 0:
        return [(spread.value, 1.0)]
    values, weights = chi_square_nodes(spread.degrees, 24)
    return list(zip((spread.value / np.sqrt(values)).tolist(), weights.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Thresholds:
    """Of the estimate, for each variance that may be estimated, in units of the square of a true spread.

    `bound`, `both`: factors of the estimate's standard error in the one-sided bound and in the interval;
    `sure`: the same, with `sure_variance`, of the test among all cells.
    """

    true_variance: float  # of the estimate
    weights: Floats
    variance: Floats
    bound: Floats
    both: Floats
    sure_variance: Floats
    sure: Floats
    sure_shift: float | Floats  # by how much that test moves the estimate, in units of the spread
    allows_luck: bool  # whether `sure` needs the change to be beyond a start's luck


def _seen(of: _Thresholds, limit: float, change: float, spread: float, luck: float) -> float:
    error = max(spread, 1e-12) * math.sqrt(of.true_variance)
    return float(of.weights @ normal_cdf((change - _worst(of, limit, spread, luck)) / error))


def _worst(of: _Thresholds, limit: float, spread: float, luck: float) -> Floats:
    """From where on an estimate is a regression."""
    beyond = limit + of.bound * spread * np.sqrt(of.variance)
    allowance = 2 * luck**2 if of.allows_luck else 0.0
    among_all = of.sure_shift * spread + of.sure * np.sqrt(spread**2 * of.sure_variance + allowance)
    return np.maximum(beyond, among_all)


def _settled(
    of: _Thresholds, limit: float, estimate: float, spread: float, luck: float, known: float
) -> float:
    """`known`: variance of the estimate that the change is known by, in units of the spread's square."""
    error = max(spread, 1e-12) * math.sqrt(of.true_variance + known)
    within = limit - of.both * spread * np.sqrt(of.variance)
    beyond = np.maximum(_worst(of, limit, spread, luck), within)
    return float(
        of.weights @ (normal_cdf((within - estimate) / error) + normal_cdf((estimate - beyond) / error))
    )


@lru_cache(maxsize=4096)
def _thresholds(design: Design) -> _Thresholds:
    has_peers = design.starts >= LEAST_PEERS or design.cells >= LEAST_PEERS * design.starts
    return _of_many(design) if has_peers else _of_few(design)


def _of_few(design: Design) -> _Thresholds:
    """Each cell by its own variance."""
    of_mean, own = _loss(design), design.repeats - 1
    if design.paired:
        # The difference of two repeats has twice the variance of one.
        values, weights = chi_square_nodes(own)
        degrees, true = np.full_like(values, own), 2 * of_mean
    else:
        shares = (np.arange(_SHARES) + 0.5) / (2 * _SHARES)
        of_share = (shares * (1 - shares)) ** (own / 2 - 1)
        sums, of_sum = chi_square_nodes(2 * own, 50)
        values = np.tile(sums, _SHARES)
        weights = np.outer(of_share / of_share.sum(), of_sum).ravel()
        degrees = np.repeat(own / (shares**2 + (1 - shares) ** 2), len(sums))
        true = 2 * of_mean
    level = SINGLE_LEVEL / (design.cells * design.gates)
    if design.cells == 1:  # what all cells have in common is the change of the only one
        level = max(level, COMMON_LEVEL / max(1, design.gates - 1))
    variance = true * values
    return _Thresholds(
        true,
        weights,
        variance,
        _quantiles(CONFIDENCE, degrees),
        _quantiles((1 + CONFIDENCE) / 2, degrees),
        variance,
        _quantiles(1 - level, degrees),
        sure_shift=0.0,
        allows_luck=True,
    )


def _of_many(design: Design) -> _Thresholds:
    """Variances are pooled, and a cell is judged by how far it is from the others: by seeded draws."""
    random, own = np.random.default_rng(1), design.repeats - 1
    per_start = design.cells / design.starts
    is_shared = per_start >= LEAST_PEERS
    apart = 1 / per_start if is_shared else 0.0
    true = 2 * _loss(design)
    arms = 1 if design.paired else 2
    # A round's common part is estimated from the median of its cells, which moves by their noise.
    shared = math.pi / 2 * apart * random.chisquare(arms * own, _DRAWS * _CELLS) / (arms * own)
    parts = [_pooled(random, design.cells, own * (1 - apart)) for _ in range(arms)]
    owns = [(1 - apart) * variance / arms for variance, _ in parts]
    total = np.sum(owns, axis=0) + shared
    lost = sum(own**2 / degrees for own, (_, degrees) in zip(owns, parts, strict=True))
    degrees = total**2 / (lost + shared**2 / (arms * own))
    peers, units = (design.cells, design.starts) if not is_shared else (per_start, per_start)
    if design.starts >= LEAST_PEERS:
        peers, units = design.cells, design.starts
    # The changed cell is one of its peers: it moves their middle and their spread by half a rank of them.
    half_rank = 0.5 + 0.5 / peers
    center = _normal_quantile(half_rank) + math.sqrt(math.pi / 2 / peers) * random.normal(size=total.shape)
    wider = (_normal_quantile((1 + half_rank) / 2) / _normal_quantile(0.75)) ** 2
    efficient = MAD_EFFICIENCY * (peers - 1)
    between = wider * random.chisquare(efficient, total.shape) / efficient
    of_center = np.maximum(np.mean(total), between) * math.pi / 2 / peers
    sure_variance = np.maximum(total, between) + of_center
    level = SINGLE_LEVEL / (design.cells * design.gates)
    return _Thresholds(
        true,
        np.full_like(total, 1 / len(total)),
        true * total,
        _quantiles(CONFIDENCE, degrees),
        _quantiles((1 + CONFIDENCE) / 2, degrees),
        true * sure_variance,
        _quantiles(1 - level, np.minimum(degrees, MAD_EFFICIENCY * (units - 1))),
        sure_shift=math.sqrt(true) * center,
        allows_luck=False,
    )


def _pooled(random: np.random.Generator, cells: int, degrees: float) -> tuple[Floats, Floats]:
    """Estimates of equal variances of 1 as `many_cells` moves them, of some cells of each draw; degrees."""
    found = [
        moderated(random.chisquare(degrees, cells) / degrees, np.full(cells, degrees)) for _ in range(_DRAWS)
    ]
    chosen = np.arange(_CELLS) % cells
    variances, known = (np.concatenate([one[part][chosen] for one in found]) for part in (0, 1))
    return variances, known


def _loss(design: Design) -> float:
    """The variance of a mean over repeats, of which both orders weigh the same together."""
    if not (design.paired and design.alternates):
        return 1 / design.repeats
    reverse = design.repeats // 2
    return 1 / (4 * (design.repeats - reverse)) + 1 / (4 * reverse)


def _quantiles(probability: float, degrees: Floats) -> Floats:
    """Student's; of degrees that differ interpolated between some that are 10 % apart: within 0.2 %."""
    if degrees.min() == degrees.max():
        return np.full_like(degrees, student_t_quantile(probability, float(degrees[0])))
    return np.exp(np.interp(np.log(degrees), _LOG_DEGREES, _log_quantiles(probability)))


def _normal_quantile(probability: float) -> float:
    return student_t_quantile(probability, 1e9)


@lru_cache(maxsize=256)
def _log_quantiles(probability: float) -> Floats:
    return np.log([student_t_quantile(probability, math.exp(one)) for one in _LOG_DEGREES])
