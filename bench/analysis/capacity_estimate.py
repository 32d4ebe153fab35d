"""The capacity under an SLO, estimated from all probes: the rate at which the budget is just used up.

A p99 lets 1 % of the requests be late: that is the budget. The share of late requests grows steeply with the
rate, and is noisy: late requests queue behind each other and come in crowds. One probe says little. All of
them together, under a curve whose place, steepness and noise are unknown, give a distribution of the
capacity, from which the next rate to probe and the answer are read (Watson and Pelli, QUEST: a Bayesian
adaptive psychometric method, 1983).

Requests of one probe are not independent. Each probe brings its design effect: by how much the variance of a
count over a block of requests exceeds that of independent ones. A probe then counts as so many times fewer
requests. What the design effect does not explain is seen in how much probes differ from the curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The grid of rates is so fine, in ln(rate), and reaches so far to both sides of its middle.
STEP, REACH = 0.004, 0.4
# The steepness of the curve may be any of these with even odds, from a service that hardly queues to many
# instances that saturate at once: how many times e the odds of being late grow when the rate grows e times.
SLOPES = np.geomspace(1.0, 400.0, 14)
# Probes so far from the middle of the grid, in ln(rate), are left out: the curve may bend there.
LOCAL = math.log(1.3)
# Rates to probe are no further away from the likely capacity, in ln(rate).
AWAY = 0.15
# The middle moves to the median of the estimate when that is further away than this.
OFF_CENTRE = 0.04
# A share of late requests beyond so many times the budget is clearly too high; how high does not count.
CLEARLY = 16.0
# The capacity may differ so much, in ln(rate), from probe to probe.
WOBBLE = 0.004
# The curve is not exactly that of any server, so that ln(capacity) is not known better than this.
INEXACT = 0.006
_SPREAD = np.exp(-0.5 * (np.arange(-5, 6) * STEP / INEXACT) ** 2)
# Before there are probes, their scatter is assumed to be that of the design effect. This weighs as much as a
# scatter measured with so many probes.
PRIOR_PROBES = 8.0
# A probe's deviance counts in full up to about this; a neighbour on the machine must not decide alone.
ROBUST = 12.0
# The capacity may have changed by any of these factors (logarithms) in the course of the study: one study in
# five changes at all, then with a standard deviation of DRIFT.
TRENDS, DRIFT, DRIFTING = np.linspace(-0.45, 0.45, 37), 0.15, 0.2
# A change over the study is said when it is there with this probability, and larger than LEAST_TREND.
SURE_OF_TREND, LEAST_TREND = 0.97, 0.04


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one probe saw: `late` of `requests` were late, where the share `budget` is allowed to be.

    `design`: how many requests count as one independent one, as `percentiles.design_effect`.
    """

    rate_per_s: float
    late: int
    requests: int
    budget: float
    design: float = 1.0


class CapacityEstimate:
    """A distribution of the capacity around `middle_per_s`, even at first. It moves to where the mass is."""

    def __init__(self, middle_per_s: float) -> None:
        self._seen: list[Evidence] = []
        self._centre(math.log(middle_per_s))

    def see(self, seen: Evidence | None) -> None:
        """Take what a probe saw; None changes nothing."""
        if seen is None:
            return
        self._seen.append(seen)
        self._add(seen)
        self._weigh()
        for _ in range(4):
            middle = math.log(self.quantile(0.5))
            if abs(middle - self._middle) < OFF_CENTRE:
                return
            self._centre(middle)

    def _centre(self, middle: float) -> None:
        self._middle = middle
        self._at = middle + np.arange(-REACH, REACH + STEP, STEP)
        self._local: list[Evidence] = []
        self._deviances: list[Floats] = []
        for one in self._seen:
            self._add(one)
        self._weigh()

    def _add(self, seen: Evidence) -> None:
        """Keep the deviance of a probe under every hypothesis, unless the probe is far away."""
        away = math.log(seen.rate_per_s) - self._at[:, None]
        if abs(math.log(seen.rate_per_s) - self._middle) <= LOCAL:
            self._local.append(seen)
            self._deviances.append(_deviance(seen, away, SLOPES[None, :]))

    def _weigh(self) -> None:
        total = np.zeros((len(self._at), len(SLOPES)))
        for deviance, design in zip(self._deviances, designs(self._local), strict=True):
            total += _robust(deviance / design)
        joint = _weight(total, len(self._local))
        self._weight, self._of_slopes = joint.sum(axis=1), joint.sum(axis=0)

    def quantile(self, share: float) -> float:
        """The rate below which the capacity lies with this probability."""
        return _quantile(self._at, self._weight, share)

    def rate_with(self, budgets: float) -> float:
        """The rate at which probably so many times the allowed share is late; at most AWAY away."""
        slope = math.exp(float(self._of_slopes @ np.log(SLOPES) / self._of_slopes.sum()))
        return self.quantile(0.5) * math.exp(min(max(math.log(budgets) / slope, -AWAY), AWAY))

    def with_trend(self) -> Trended:
        """The same, if the capacity may have changed steadily over the study."""
        seconds = np.array([one.requests / one.rate_per_s for one in self._seen])
        middles = np.cumsum(seconds) - seconds / 2
        is_local = np.array([one in self._local for one in self._seen], dtype=bool)
        local = [one for one in self._seen if one in self._local]
        if is_local.any():
            middles = (middles - middles[is_local].mean()) / (float(np.ptp(middles[is_local])) or 1.0)
        when = middles[is_local]
        total = np.zeros((len(TRENDS), len(self._at), len(SLOPES)))
        # A change shifts the grid by whole steps, so that each deviance is computed once.
        most = math.ceil(TRENDS[-1] / STEP)
        wider = self._at[0] + STEP * np.arange(-most, len(self._at) + most)
        for moment, one, design in zip(when, local, designs(self._local), strict=True):
            away = math.log(one.rate_per_s) - wider[:, None]
            deviance = _robust(_deviance(one, away, SLOPES[None, :]) / design)
            for index, shift in enumerate(np.round(moment * TRENDS / STEP).astype(int) + most):
                total[index] += deviance[shift : shift + len(self._at)]
        weight = _weight(total, len(local)).sum(axis=2).T * _trend_prior()
        # From the first probe of all to the last: what was too far away to be local may have been true then.
        span = (float(middles[0]), float(middles[-1])) if len(when) else (0.0, 0.0)
        return Trended(self._at, weight, span)


def designs(seen: Sequence[Evidence]) -> Floats:
    """The design effect of each probe, by a line through all of them in logarithms, over the rate.

    A probe's own would not do: it is large where many requests happened to be late, so that such probes would
    count less than those with luck.
    """
    if not seen:
        return np.ones(0)
    rates = np.log([one.rate_per_s for one in seen])
    own = np.log([max(one.design, 1.0) for one in seen])
    x = rates - rates.mean()
    # As if there were a further probe, a tenth away, with the same design effect.
    slope = max(0.0, float((x * own).sum() / ((x * x).sum() + 0.01)))
    fitted = own.mean() + slope * x
    spread = float(np.mean((own - fitted) ** 2))
    return np.asarray(np.exp(fitted + spread / 2))


def _trend_prior() -> Floats:
    """Mostly none; otherwise a normal distribution."""
    slab = np.exp(-0.5 * (TRENDS / DRIFT) ** 2)
    return np.asarray(np.where(np.abs(TRENDS) < 1e-9, 1 - DRIFTING, 0.0) + DRIFTING * slab / slab.sum())


def _robust(deviance: Floats) -> Floats:
    return ROBUST * np.log1p(deviance / ROBUST)


@dataclass(frozen=True, slots=True)
class Trended:
    """A distribution over capacities in the middle of the study (rows) and changes over it (columns)."""

    at: Floats
    weight: Floats
    span: tuple[float, float]

    def quantile(self, share: float) -> float:
        """The rate below which the capacity lies with this probability at the end of the study."""
        return self._at_moment(self.span[1], share)

    def ends(self, confidence: float) -> tuple[float, float]:
        """Bounds that hold the capacity through the whole study with this probability."""
        low, high = (1 - confidence) / 2, (1 + confidence) / 2
        return (
            min(self._at_moment(moment, low) for moment in self.span),
            max(self._at_moment(moment, high) for moment in self.span),
        )

    def _at_moment(self, moment: float, share: float) -> float:
        values = (self.at[:, None] + moment * TRENDS[None, :]).ravel()
        places = np.round((values - values.min()) / STEP).astype(int)
        weight = np.asarray(np.bincount(places, self.weight.ravel()), dtype=np.float64)
        return _quantile(values.min() + STEP * np.arange(len(weight)), weight, share)

    @property
    def trending(self) -> float:
        """The probability that the capacity changes at all."""
        weight = self.weight.sum(axis=0)
        return 1 - float(weight[np.abs(TRENDS) < 1e-9].sum() / weight.sum())

    @property
    def change(self) -> float | None:
        """The capacity's change over the study as a share, where it is sure that there is one."""
        weight = self.weight.sum(axis=0) / self.weight.sum()
        change = math.expm1(float((weight * TRENDS).sum()) * (self.span[1] - self.span[0]))
        return change if self.trending >= SURE_OF_TREND and abs(change) >= LEAST_TREND else None


def _deviance(seen: Evidence, away: Floats, slopes: Floats) -> Floats:
    """Of a binomial count with unknown scale. `away`: ln(rate) beyond the capacity.

    A count beyond CLEARLY times the budget says no more than that it is: far beyond the capacity the curve
    has another shape. The capacity may be WOBBLE away in one probe, so that the likeliest share of late
    requests within that is taken: where a server fails at once, the exact rate would otherwise decide.
    """
    n = seen.requests
    late = min(float(seen.late), CLEARLY * seen.budget * n)
    on_time = n - late
    allowed = math.log(seen.budget / (1 - seen.budget))
    target = (math.log(late / on_time) - allowed) if late and on_time else math.copysign(50.0, late - 0.5)
    above = slopes * np.clip(target / slopes, away - WOBBLE, away + WOBBLE)
    share = 1 / (1 + np.exp(-np.clip(allowed + above, -30, 30)))
    deviance = np.zeros_like(share)
    if late:
        deviance += late * (math.log(late / n) - np.log(share))
    if on_time:
        deviance += on_time * (math.log(on_time / n) - np.log1p(-share))
    if late < seen.late:
        deviance[share > late / n] = 0.0
    return 2 * deviance


def _weight(deviance: Floats, count: int) -> Floats:
    """Of each hypothesis: the scale of the deviance is unknown, and integrated out."""
    power = -(PRIOR_PROBES + count) / 2 * np.log(PRIOR_PROBES + deviance)
    return np.asarray(np.exp(power - power.max()))


def _quantile(at: Floats, weight: Floats, share: float) -> float:
    """Each weight is spread around its value by INEXACT, and evenly over a STEP."""
    weight = np.convolve(weight, _SPREAD, mode="same")
    below = np.concatenate(([0.0], np.cumsum(weight))) / weight.sum()
    edges = np.append(at - STEP / 2, at[-1] + STEP / 2)
    return float(math.exp(np.interp(share, below, edges)))
