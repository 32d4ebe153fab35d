"""The capacity under an SLO, estimated from all probes: the rate at which the budget is just used up.

A p99 lets 1 % of the requests be late: that is the budget. The share of late requests grows steeply with the
rate, and is noisy: late requests queue behind each other and come in crowds. One probe says little. All of
them together, under a curve whose place, steepness and noise are unknown, give a distribution of the
capacity, from which the next rate to probe and the answer are read (Watson and Pelli, QUEST: a Bayesian
adaptive psychometric method, 1983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.distributions import log_gamma

# The grid of rates is so fine, in ln(rate).
STEP = 0.002
# The steepness of the curve may be any of these with even odds, from a service that hardly queues to many
# instances that saturate at once: how many times e the odds of being late grow when the rate grows e times.
SLOPES = np.geomspace(2.0, 100.0, 16)
# Late requests may come in crowds of any of these sizes, with even odds.
CROWDS = np.geomspace(1.5, 400.0, 9)
# One probe in twenty is disturbed from outside: a neighbour on the machine, a stall.
LAPSES = 0.05


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one probe saw: `late` of `requests` were late, where the share `budget` is allowed to be."""

    rate_per_s: float
    late: int
    requests: int
    budget: float


class CapacityEstimate:
    """A distribution of the capacity over the rates between `low` and `high`, even at first."""

    def __init__(self, low_per_s: float, high_per_s: float) -> None:
        self._at = np.arange(math.log(low_per_s), math.log(high_per_s) + STEP, STEP)
        shape = (len(self._at), len(SLOPES), len(CROWDS))
        self._weight: NDArray[np.float64] = np.zeros(shape)  # log of the posterior

    def see(self, seen: Evidence | None) -> None:
        """Update by Bayes' rule, with a negative binomial count of late requests: variance = crowd x mean.

        The share LAPSES of the probes was disturbed from outside (Wichmann and Hill, The psychometric
        function, 2001): any count is as likely then, so that a probe which the others contradict does not
        decide.

        A probe outside the rates in question is left out: the curve may bend there. None changes nothing.
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
        """The rate below which the capacity lies with this probability."""
        weight = np.exp(self._weight - self._weight.max()).sum(axis=(1, 2))
        below = np.cumsum(weight) / weight.sum()
        return float(math.exp(np.interp(share, below, self._at)))
