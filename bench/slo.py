"""Does a service hold its SLO: yes, no, or not to be told from these samples."""

from __future__ import annotations

from enum import StrEnum

from bench.samples import Int64
from bench.stats import nearest_rank, proves
from bench.units import Slo


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
