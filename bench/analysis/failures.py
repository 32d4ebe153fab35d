"""Failed requests of two runs of a cell: by how much their share rose.

Requests that fail fast free a closed loop for others, and percentiles are of those that got through:
throughput and latency look better while a server fails. Failures come in clusters, so repeats are the unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.analysis.distributions import student_t_quantile, student_t_tail
from bench.analysis.many_cells import Evidence
from bench.analysis.stats import CONFIDENCE, LEAST_REPEATS, Interval

Counts = Sequence[tuple[int, int]]  # of each repeat: failed requests, and all of them


def share(counts: Counts) -> float | None:
    """Of all requests, how many failed; None without requests."""
    asked = sum(of_all for _, of_all in counts)
    return sum(failed for failed, _ in counts) / asked if asked else None


def rise_of(base: Counts, new: Counts) -> Evidence:
    """The share of failed requests in `new` less that in `base`, Welch's interval over repeats, and how often
    it would rise so much by chance. A group's variance is at least that of independent requests, with half a
    failure more than there was. Both groups hold requests.
    """
    rise = (share(new) or 0.0) - (share(base) or 0.0)
    n = min(len(base), len(new))
    if n < LEAST_REPEATS:
        return Evidence(Interval(rise, None, None, n))
    va, vb = _variance(base), _variance(new)
    degrees = (va + vb) ** 2 / (va**2 / (len(base) - 1) + vb**2 / (len(new) - 1))
    error = math.sqrt(va + vb)
    half = student_t_quantile((1 + CONFIDENCE) / 2, degrees) * error
    return Evidence(Interval(rise, rise - half, rise + half, n), None, student_t_tail(rise / error, degrees))


def _variance(counts: Counts) -> float:
    """Of a group's share."""
    shares = [failed / of_all for failed, of_all in counts if of_all]
    asked = sum(of_all for _, of_all in counts)
    likely = (sum(failed for failed, _ in counts) + 0.5) / (asked + 1)
    between = float(np.var(shares, ddof=1)) / len(shares) if len(shares) > 1 else 0.0
    return max(between, likely * (1 - likely) / asked)
