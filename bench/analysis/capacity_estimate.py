"""At which rate is the error budget just used up: what every probe together says of it.

A p99 lets 1 % of the requests be late: that is the budget. The share of late requests grows steeply with the
rate, and is noisy: they queue behind each other and come in crowds. One probe says little. All of them
together, under a curve whose place, steepness and noise are unknown, say it as a distribution, from which
the next rate to look at and the answer are read (Watson and Pelli, QUEST: a Bayesian adaptive psychometric
method, 1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.distributions import log_gamma

STEP = 0.002  # of the grid, in ln(rate)
# What a curve may be, even odds for each: e-folds of lateness for an e-fold of rate, from a service that
# hardly queues to many instances that saturate at once; and how many late requests come in a crowd.
SLOPES = np.geomspace(2.0, 100.0, 16)
CROWDS = np.geomspace(1.5, 400.0, 9)
LAPSES = 0.05  # of the probes: a neighbour on the machine, a stall


@dataclass(frozen=True, slots=True)
class Evidence:
    """One probe: `late` of `requests`, where the share `budget` may be."""

    rate_per_s: float
    late: int
    requests: int
    budget: float


class CapacityEstimate:
    """What is known of it: a distribution over the rates between `low` and `high`, even at first."""

    def __init__(self, low_per_s: float, high_per_s: float) -> None:
        self._at = np.arange(math.log(low_per_s), math.log(high_per_s) + STEP, STEP)
        shape = (len(self._at), len(SLOPES), len(CROWDS))
        self._weight: NDArray[np.float64] = np.zeros(shape)  # log of the posterior

    def see(self, seen: Evidence | None) -> None:
        """Bayes' rule, with a negative binomial count of late requests: variance = crowd x mean.

        A probe in LAPSES was disturbed from outside (Wichmann and Hill, The psychometric function, 2001): any
        count is as likely then, so that one the others contradict does not decide.

        What was seen outside the rates in question tells of a part of the curve that may bend: left out.
        """
        if seen is None or not self._at[0] <= math.log(seen.rate_per_s) <= self._at[-1]:
            return
        away = math.log(seen.rate_per_s) - self._at[:, None]
        logit = math.log(seen.budget / (1 - seen.budget)) + away * SLOPES[None, :]
        mean = np.maximum(seen.requests / (1 + np.exp(-np.clip(logit, -50, 50))), 1e-9)[:, :, None]
        size = mean / (CROWDS - 1)
        expected = (
            log_gamma(seen.late + size)
            - log_gamma(size)
            - math.lgamma(seen.late + 1)
            - size * np.log(CROWDS)
            + seen.late * np.log1p(-1 / CROWDS)
        )
        disturbed = math.log(LAPSES / (1 - LAPSES)) - math.log(seen.requests + 1)
        self._weight += np.logaddexp(expected, disturbed)

    @property
    def error(self) -> float:
        """Half the width of the middle 68 %, in ln(rate): the standard error where it is a normal one."""
        return math.log(self.quantile(0.8413) / self.quantile(0.1587)) / 2

    def quantile(self, share: float) -> float:
        """The rate below which the edge lies with this probability."""
        weight = np.exp(self._weight - self._weight.max()).sum(axis=(1, 2))
        below = np.cumsum(weight) / weight.sum()
        return float(math.exp(np.interp(share, below, self._at)))
