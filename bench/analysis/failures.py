"""Failed requests: how many are too many, and by how much their share rose between two runs of a cell.

Requests that fail fast free a closed loop for others, and percentiles are of those that got through:
throughput and latency look better while a server fails. Failures come in clusters, so repeats are the unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bench.analysis.distributions import student_t_quantile, student_t_tail
from bench.analysis.many_cells import Evidence
from bench.analysis.stats import CONFIDENCE, LEAST_REPEATS, Interval
from bench.core import units
from bench.core.run_folder import RunRecord
from bench.core.samples import KINDS, Outcome
from bench.core.slo import parse_slo
from bench.core.spec import DEFAULT_MAX_ERRORS

Counts = Sequence[tuple[int, int]]  # of each repeat: failed requests, and all of them


# A rule that ends a cell early needs at least so many requests.
_LEAST_ASKED = 100


def allowed_share(record: RunRecord) -> float:
    """The share of failed requests above which a cell of the run is not recommended.

    That of --max-errors, or of the SLO where that allows more. The probes of a search are judged by the SLO.
    """
    default = DEFAULT_MAX_ERRORS if record.planned else 1.0
    asked = float(record.spec.get("max_error_fraction", default))
    return max(asked, parse_slo(record.slo).error_fraction) if record.slo else asked


def is_hopeless(counts: Counts, repeats_left: int, allowed: float) -> bool:
    """Whether the share of a cell stays above what is allowed even if no request of its other repeats fails.

    `counts`: of the repeats so far. Those to come are taken to make as many requests each.
    """
    asked = sum(of_all for _, of_all in counts)
    if asked < _LEAST_ASKED or allowed >= 1:
        return False
    expected = asked * (1 + repeats_left / len(counts))
    return sum(failed for failed, _ in counts) > allowed * expected


def by_name(failures: Mapping[Outcome, int]) -> dict[str, int]:
    """The kinds as they are called, the most frequent first."""
    return {KINDS[kind]: n for kind, n in sorted(failures.items(), key=lambda item: -item[1])}


def in_words(failures: Mapping[str, int]) -> str:
    """timeout 12, broken connection 3."""
    return ", ".join(f"{name} {units.count(n)}" for name, n in failures.items())


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
