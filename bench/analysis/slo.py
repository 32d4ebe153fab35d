"""Does a service hold its SLO: yes, no, or not to be told from these samples."""

from __future__ import annotations

import math
from enum import StrEnum

from bench.analysis.capacity_estimate import Seen
from bench.analysis.stats import nearest_rank, proves
from bench.core.samples import Int64
from bench.core.slo import Slo

CLEARLY = 4.0  # times the budget: beyond the edge, however noisy it is


class Holding(StrEnum):
    HOLDS = "holds"  # proved at 99 %, by MLPerf's early stopping
    MISSES = "misses"
    UNDECIDED = "undecided"


def judge(latencies_ns: Int64, errors: int, asked: int, slo: Slo) -> tuple[Holding, str]:
    """And why, in a phrase. `latencies_ns`: response times, sorted; unfinished requests as they waited.

    `errors` of `asked` requests failed, unfinished ones among them.
    """
    n = len(latencies_ns)
    if n == 0 or asked == 0:
        return Holding.MISSES, "nothing was answered"
    if errors / asked > slo.error_fraction:
        return Holding.MISSES, f"{errors} of {asked} requests failed"
    proved = True
    for percent, bound in slo.latencies:
        value = nearest_rank(latencies_ns, percent)
        if value > bound:
            return Holding.MISSES, f"p{percent:g} is {value / 1e6:.3g} ms"
        over = int((latencies_ns > bound).sum())
        proved = proved and proves(percent, over, n)
    said = ", ".join(f"p{p:g} is {nearest_rank(latencies_ns, p) / 1e6:.3g} ms" for p, _ in slo.latencies)
    return (Holding.HOLDS if proved else Holding.UNDECIDED), said


def seen(latencies_ns: Int64, errors: int, asked: int, slo: Slo, rate_per_s: float) -> Seen | None:
    """The same samples as evidence of where the SLO breaks: of the percentile nearest to its limit.

    Too many failed requests are as clear a sign as CLEARLY times the late ones that may be.
    """
    n = len(latencies_ns)
    if n == 0:
        return None
    counts = [(int((latencies_ns > bound).sum()), 1 - percent / 100) for percent, bound in slo.latencies]
    late, budget = max(counts, key=lambda count: count[0] / count[1])
    if asked and errors / asked > slo.error_fraction:
        late = max(late, math.ceil(CLEARLY * budget * n))
    return Seen(rate_per_s, min(late, n), n, budget)
