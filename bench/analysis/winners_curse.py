"""The throughput of the cell that was picked because its throughput is the highest.

Of many cells that are equal, the one whose repeats were luckiest is picked, so its own figure is too high and
its own interval covers too seldom. Two things are corrected, on logarithms:

* the value. It is the posterior mean under a prior that is estimated from all cells without assuming its
  shape, so equal cells are drawn together and a cell that stands alone stays where it is. Sources: Efron,
  Tweedie's formula and selection bias, JASA 106(496), 2011; Kiefer and Wolfowitz, 1956, for the prior.
* the lower end of the interval. It allows for as many cells as the best could have been picked from by luck
  (Bonferroni). The upper end stays: being picked makes no cell look slower.

Spreads of six or more cells are moderated, as in a comparison.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.analysis.cell_row import CellRow, IfBest
from bench.analysis.distributions import student_t_quantile
from bench.analysis.many_cells import moderated, rounded_degrees
from bench.analysis.stats import CONFIDENCE, LEAST_REPEATS

Floats = NDArray[np.float64]

# A cell that is further behind the best than so many standard errors of the difference was not in its reach;
# more where the errors are known poorly, as Student's t is wider than the normal law.
REACH = 3.0
# Steps of the expectation-maximisation for the prior; more of them change the value by less than 0.1 %.
_STEPS = 300
# A normal variable is a Student variable of so many degrees.
_NORMAL = 1e6
# Far out, quantiles of Student's t of fewer degrees bound nothing: at 2 degrees, one in 2,400 is beyond 49.
_LEAST_DEGREES = 4.0
# Standard errors below this share of a throughput are not believed.
_LEAST_ERROR = 1e-4


@dataclass(frozen=True, slots=True)
class _Cells:
    """Logarithms of throughputs, their standard errors, and the degrees of freedom of these."""

    logs: Floats
    errors: Floats
    degrees: Floats

    @classmethod
    def of(cls, rows: Sequence[CellRow]) -> _Cells:
        counts = np.array([len(row.throughputs) for row in rows], dtype=float)
        own = np.array([np.var(np.log(row.throughputs), ddof=1) for row in rows])
        variances, degrees = moderated(own, counts - 1)
        edges = np.array([_edges(row) for row in rows])
        errors = np.sqrt(variances / counts + edges**2)
        logs = np.log([row.throughput_img_per_s or math.nan for row in rows])
        return cls(logs, np.maximum(errors, _LEAST_ERROR), degrees)

    def if_best(self, index: int, expected: float) -> IfBest:
        """What to say of a cell if it is picked. `expected`: its posterior mean."""
        log, error = self.logs[index], self.errors[index]
        quantile = (1 + CONFIDENCE) / 2
        degrees = rounded_degrees(float(self.degrees[index]))
        wider = student_t_quantile(quantile, degrees)
        behind, normal = log - self.logs, student_t_quantile(quantile, _NORMAL)
        reach = REACH * wider / normal * np.hypot(self.errors, error)
        rivals = int(((behind >= 0) & (behind <= reach)).sum())
        low = log - wider * _deeper(rivals, degrees) * error
        value = min(max(expected, low), log)
        return IfBest(
            value=math.exp(value), low=math.exp(low), high=math.exp(log + wider * error), rivals=rivals
        )


def _deeper(rivals: int, degrees: float) -> float:
    """By which factor a bound lies further out that holds for so many cells together."""
    known = max(_LEAST_DEGREES, float(int(degrees) if degrees < 20 else 20 * int(min(degrees, 1e4) / 20)))
    quantile = (1 + CONFIDENCE) / 2
    return student_t_quantile(1 - (1 - quantile) / rivals, known) / student_t_quantile(quantile, known)


def with_if_best(rows: Sequence[CellRow]) -> list[CellRow]:
    """The rows with what to say of each if it is picked; None where there is no interval to correct."""
    engine = min((row.engine for row in rows), default="")
    chosen = [row for row in rows if row.engine == engine and _has_interval(row)]
    if not chosen:
        return list(rows)
    cells = _Cells.of(chosen)
    expected = _posterior_means(cells.logs, cells.errors)
    known = {row.cell: cells.if_best(i, float(expected[i])) for i, row in enumerate(chosen)}
    return [replace(row, if_best=known.get(row.cell)) for row in rows]


def _has_interval(row: CellRow) -> bool:
    return (
        row.verdict == "VALID"
        and len(row.throughputs) >= LEAST_REPEATS
        and min(row.throughputs) > 0
        and row.throughput_img_per_s_low is not None
    )


def _edges(row: CellRow) -> float:
    """The standard error, as a share, of what the window's ends may be worth, out of the row's interval."""
    value, high, n = row.throughput_img_per_s, row.throughput_img_per_s_high, len(row.throughputs)
    if not value or high is None:
        return 0.0
    quantile = (1 + CONFIDENCE) / 2
    repeats = student_t_quantile(quantile, n - 1) * float(np.std(row.throughputs, ddof=1)) / math.sqrt(n)
    ends = math.sqrt(max(0.0, (high - value) ** 2 - repeats**2))
    return ends / student_t_quantile(quantile, _NORMAL) / value


def _posterior_means(logs: Floats, errors: Floats) -> Floats:
    """Of each cell's true logarithm, under the prior of the highest likelihood (expectation-maximisation)."""
    places = _places(logs, float(np.median(errors)) / 2)
    likelihood = np.exp(-0.5 * ((logs[:, None] - places) / errors[:, None]) ** 2)
    weights = np.full(len(places), 1 / len(places))
    for _ in range(_STEPS):
        joint = likelihood * weights
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    joint = likelihood * weights
    return np.asarray(joint @ places / joint.sum(axis=1))


def _places(logs: Floats, step: float) -> Floats:
    """Where the prior may have mass: between neighbours that are near each other, and at every cell."""
    ordered = np.unique(logs)
    places = [ordered[:1]]
    for low, high in itertools.pairwise(ordered):
        parts = min(8, max(1, math.ceil((high - low) / step)))
        places.append(np.linspace(low, high, parts + 1)[1:])
    kept = [float(logs.min())]
    for place in np.concatenate(places):
        if place - kept[-1] >= step / 2:
            kept.append(float(place))
    return np.array([*kept, float(logs.max())])
