"""Does a service hold its SLO: yes, no, or not to be told from these samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum

import numpy as np

from bench.analysis.capacity_estimate import CLEARLY, Evidence
from bench.analysis.percentiles import design_effect, proves_within
from bench.analysis.stats import nearest_rank
from bench.core.samples import Int64
from bench.core.slo import Slo


class Holds(StrEnum):
    """Whether a limit on latency and errors holds, as far as the samples tell."""

    YES = "yes"  # the samples carry it, counted as the independent pieces that they are
    LIKELY = "likely"  # the figure is within the limit; the samples do not carry it
    NO = "no"
    UNKNOWN = "unknown"  # too few samples for the percentile to have a figure


def missed(ordered_ns: Int64, errors: int, asked: int, slo: Slo) -> str:
    """Why these samples miss an SLO, in a phrase; "" when they do not.

    `ordered_ns`: response times, sorted; a request without an answer counts as long as it was waited for.
    `errors` of `asked` requests failed, those without an answer among them.
    """
    if len(ordered_ns) == 0 or asked == 0:
        return "nothing was answered"
    if errors / asked > slo.error_fraction:
        return f"{errors} of {asked} requests failed"
    for percent, bound in slo.latencies:
        value = nearest_rank(ordered_ns, percent)
        if value > bound:
            return f"p{percent:g} is {value / 1e6:.3g} ms"
    return ""


def judge(
    in_order_ns: Int64, errors: int, asked: int, slo: Slo, rate_per_s: float
) -> tuple[Holds, str, Evidence | None]:
    """Whether one trial holds an SLO (YES, LIKELY or NO), why, in a phrase, and where it says the limit is.

    `in_order_ns`: response times in the order the requests were due; otherwise as `missed`. Requests that
    cluster count as fewer. What differs from trial to trial is not seen in one, so YES is no proof for the
    server, only for the time of this trial. The evidence is None without any answer.
    """
    ordered = np.sort(in_order_ns)
    why = missed(ordered, errors, asked, slo)
    n = len(ordered)
    if n == 0:
        return Holds.NO, why, None
    effect = design_effect([in_order_ns])
    late = {percent: int(n - np.searchsorted(ordered, bound, "right")) for percent, bound in slo.latencies}
    seen = _evidence(late, n, effect, rate_per_s, fails=errors > slo.error_fraction * asked)
    if why:
        return Holds.NO, why, seen
    carried = all(proves_within(percent, over, n, effect) for percent, over in late.items())
    figures = ", ".join(f"p{p:g} is {nearest_rank(ordered, p) / 1e6:.3g} ms" for p, _ in slo.latencies)
    return (Holds.YES if carried else Holds.LIKELY), figures, seen


def _evidence(
    late: Mapping[float, int], n: int, effect: float, rate_per_s: float, *, fails: bool
) -> Evidence:
    """Of the percentile nearest to its limit. `fails`: so many requests fail that it is clearly beyond."""
    percent = max(late, key=lambda percent: late[percent] / (100 - percent))
    over, budget = late[percent], 1 - percent / 100
    if fails:
        over = max(over, math.floor(CLEARLY * budget * n) + 1)
    return Evidence(rate_per_s, min(over, n), n, budget, effect)
