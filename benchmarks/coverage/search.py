"""Capacity search.

Simulated queues whose capacity is known from long simulations with millions of requests. Each study is a
whole search. An answer is a rate that the search gives as settled; one that is not settled gives only the
interval. Of the servers that drift, the capacity that counts for an answer is the one at the end of the
study, and for the interval the one in its middle. The algorithm was made while looking at these servers,
except for the two that are marked as new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.core.slo import parse_slo
from bench.experiments.search.algorithm import MOST_PROBES, Capacity
from benchmarks.coverage.row import Row
from tests.support.queues import (
    Queue,
    Server,
    batching,
    constant,
    exponential,
    lognormal,
    mixed,
    pareto,
    pausing,
    several,
    single,
)

# An answer is too high when it is more than this share above the capacity.
TOO_HIGH, MOST_TOO_HIGH = 0.01, 0.02
LEAST_COVERED = 0.90
# Of the answers, this share must be so near to the capacity.
NEAR, LEAST_NEAR = 0.05, 0.60
# A study of a drifting server has about so many probes.
PROBES = 25
S = 0.005


def _queue(name: str, server: Server, slo: str, start_per_s: float, top_per_s: float) -> Queue:
    return Queue(name=name, server=server, slo=parse_slo(slo), start_per_s=start_per_s, top_per_s=top_per_s)


QUEUES = (
    _queue("lognormal service, cv 1.5; p99 = 15 x service", single(lognormal(S, 1.5)), "p99=75ms", 60, 200),
    _queue("Pareto service, shape 2.5; p99 = 15 x service", single(pareto(S, 2.5)), "p99=75ms", 60, 200),
    _queue("M/D/1; p99 = 50 x service", single(constant(S)), "p99=250ms", 60, 200),
    _queue("M/M/1; p99 = 50 x service", single(exponential(S)), "p99=250ms", 60, 200),
    _queue("dynamic batching, at most 16", batching(0.010, 0.0005, 16), "p99=60ms", 28, 1600),
    _queue("M/D/1; p99 = 10 x service", single(constant(0.02)), "p99=200ms", 15, 50),
    _queue("M/D/1; p99 = 8 x service", single(constant(S)), "p99=40ms", 60, 200),
    _queue("M/D/1; p99 = 3 x service", single(constant(0.004)), "p99=12ms", 75, 250),
    _queue("M/M/1; p99 = 10 x service", single(exponential(S)), "p99=50ms", 60, 200),
    _queue("M/G/4, lognormal cv 1", several(lognormal(0.02, 1.0), 4), "p99=150ms", 15, 200),
    _queue("M/M/8 (new)", several(exponential(0.04), 8), "p99=240ms", 7.5, 200),
    _queue("1 in 20 requests takes 10 times as long (new)", single(mixed(S)), "p99=150ms", 60, 200),
    _queue("pauses of 50 ms every 2 s", pausing(exponential(S), 2.0, 0.05), "p99=100ms", 60, 200),
)
DRIFTING = tuple(
    replace(queue, name=f"{queue.name}; {word} by 20 % over the study", drift=sign * 0.2 / PROBES)
    for queue in (QUEUES[6], QUEUES[8])
    for sign, word in ((1, "slower"), (-1, "faster"))
)


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """Three rows a queue."""
    found = []
    for queue in (*QUEUES, *DRIFTING):
        made = [queue.search(seed) for seed in range(studies)]
        answers = [answer for answer, _ in made]
        end, middle = _truths(queue, [slower for _, slower in made])
        found += _rows(queue.name, answers, end, middle)
        say(f"  {queue.name}: " + "; ".join(row.measured for row in found[-3:]))
    return found


def _truths(queue: Queue, slower: list[float]) -> tuple[list[float], list[float]]:
    """Capacities at the end and in the middle of each study."""
    if not queue.drift:
        return [queue.capacity()] * len(slower), [queue.capacity()] * len(slower)
    factors = np.linspace(0.6, 1.4, 9)
    capacities = [queue.capacity(500_000, factor) for factor in factors]
    return tuple(
        [float(np.interp(1 + share * (factor - 1), factors, capacities)) for factor in slower]
        for share in (1.0, 0.5)
    )  # type: ignore[return-value]  # a pair


def _rows(name: str, answers: list[Capacity], end: list[float], middle: list[float]) -> list[Row]:
    count = len(answers)
    settled = [(one.rate_per_s, true) for one, true in zip(answers, end, strict=True) if one.rate_per_s]
    high = sum(rate > (1 + TOO_HIGH) * true for rate, true in settled) / count
    near = sum(abs(rate / true - 1) <= NEAR for rate, true in settled)
    inside = (
        sum((a.low or 0) <= true <= (a.high or 0) for a, true in zip(answers, middle, strict=True)) / count
    )
    most = max(len(answer.probes) for answer in answers)
    unsettled = 1 - len(settled) / count
    return [
        Row(
            f"The answer is at most {TOO_HIGH:.0%} above the capacity",
            name,
            f"in all but {MOST_TOO_HIGH:.0%}, with at most {MOST_PROBES} probes",
            f"{high:.1%} are above; at most {most} probes",
            high <= MOST_TOO_HIGH and most <= MOST_PROBES,
            count,
        ),
        Row(
            "The 95 % interval contains the capacity",
            name,
            f">= {LEAST_COVERED:.0%}",
            f"{inside:.1%}",
            inside >= LEAST_COVERED,
            count,
        ),
        Row(
            f"The answer is within {NEAR:.0%}, or the search is not settled",
            name,
            f">= {LEAST_NEAR:.0%}",
            f"{near / count:.0%} within, {unsettled:.0%} not settled",
            near / count + unsettled >= LEAST_NEAR,
            count,
        ),
    ]
