"""Does a service hold its SLO: yes, no, or not to be told from these samples."""

from __future__ import annotations

import math
from enum import StrEnum

from bench.analysis.capacity_estimate import CLEARLY, Evidence, design_effect
from bench.analysis.stats import nearest_rank, proves
from bench.core.samples import Int64
from bench.core.slo import Slo


class Holds(StrEnum):
    """Whether a limit on latency and errors holds, as far as the samples tell."""

    YES = "yes"  # proved at 99 %, by MLPerf's early stopping
    LIKELY = "likely"  # the figure is within the limit; the samples do not prove it
    NO = "no"
    UNKNOWN = "unknown"  # too few samples for the percentile to have a figure


def assess_slo(latencies_ns: Int64, errors: int, asked: int, slo: Slo) -> tuple[Holds, str]:
    """Whether these samples hold an SLO (YES, LIKELY or NO), and why, in a phrase.

    `latencies_ns`: response times, sorted; an unfinished request counts as long as it waited. `errors` of
    `asked` requests failed, unfinished ones among them.
    """
    n = len(latencies_ns)
    if n == 0 or asked == 0:
        return Holds.NO, "nothing was answered"
    if errors / asked > slo.error_fraction:
        return Holds.NO, f"{errors} of {asked} requests failed"
    proved = True
    for percent, bound in slo.latencies:
        value = nearest_rank(latencies_ns, percent)
        if value > bound:
            return Holds.NO, f"p{percent:g} is {value / 1e6:.3g} ms"
        over = int((latencies_ns > bound).sum())
        proved = proved and proves(percent, over, n)
    figures = ", ".join(f"p{p:g} is {nearest_rank(latencies_ns, p) / 1e6:.3g} ms" for p, _ in slo.latencies)
    return (Holds.YES if proved else Holds.LIKELY), figures


def evidence_of(in_order_ns: Int64, errors: int, asked: int, slo: Slo, rate_per_s: float) -> Evidence | None:
    """The same samples as evidence of where the SLO breaks: of the percentile nearest to its limit.

    `in_order_ns`: response times in the order the requests were due. None without any answer. Too many failed
    requests count as more than CLEARLY times the late ones that are allowed.
    """
    n = len(in_order_ns)
    if n == 0:
        return None
    counts = [(int((in_order_ns > bound).sum()), 1 - percent / 100) for percent, bound in slo.latencies]
    late, budget = max(counts, key=lambda count: count[0] / count[1])
    if asked and errors / asked > slo.error_fraction:
        late = max(late, math.floor(CLEARLY * budget * n) + 1)
    return Evidence(rate_per_s, min(late, n), n, budget, design_effect(in_order_ns))
