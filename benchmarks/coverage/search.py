"""Capacity search.

Each study is a whole search at a simulated queue, with the default limit of 60 s a probe. The capacity of an
M/G/1 queue is computed (Pollaczek and Khinchine); that of others is found by simulating 20 million requests.
"Answer" is a rate that the search gives as settled. A search that is not settled gives only an interval.

What the truth is where the server changes during the search was fixed before these rows were measured. The
reader will use the answer after the search, and may take it for what the server did on average. So an answer
is held against the lower of two capacities: the mean over the time of the search, and the one at its end. The
interval is held against the mean over time. "Changes by 20 %" means steadily, over as long as a search of the
same server takes without a change.

The servers of the first part were used to make the method. The second part begins with gamma service. Its
servers were chosen before any result of them was known, but short pilots and a first validation with other
seeds were seen before the last changes. That validation missed two goals: the interval where M/D/1 becomes
faster, and nearness at a p50. The interval now reaches back to the first probe, and an answer must be nearer
to the likely capacity. Longer refining then put 3 to 7 % of a pilot of M/M/1 at 50 x service above the
capacity, so the capacity is now never taken as known better than to 0.6 %. Then nothing more was changed,
and all rows were measured with new seeds. The last column says how many studies each has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from bench.core.slo import parse_slo
from bench.experiments.search.algorithm import MOST_PROBES, Capacity
from benchmarks.coverage.row import Row
from tests.support.queues import (
    Heating,
    Queue,
    Server,
    Service,
    alternating,
    batching,
    constant,
    erlang,
    exponential,
    hyperexponential,
    lognormal,
    mixed,
    pareto,
    several,
    single,
    stopping,
)

# All studies are drawn from this.
SEED = 4002
# As `bench search --longest-probe` by default.
LONGEST_S = 60.0
# An answer is too high when it is more than this share above the capacity.
TOO_HIGH, MOST_TOO_HIGH = 0.01, 0.02
LEAST_COVERED = 0.90
# Of the searches, this share must be so near to the capacity, or not settled.
NEAR, LEAST_NEAR = 0.05, 0.60
# How often a change may be said where there is none.
MOST_FALSE_ALARMS = 0.05
S = 0.005


def _one(name: str, service: Service, slo: str, start_per_s: float) -> Queue:
    """M/G/1."""
    queue = single(service)
    return Queue(name=name, server=queue, service=service, slo=parse_slo(slo), start_per_s=start_per_s)


def _other(name: str, server: Server, slo: str, start_per_s: float) -> Queue:
    return Queue(name=name, server=server, slo=parse_slo(slo), start_per_s=start_per_s)


SLOW_SPELLS = alternating(exponential(S), 4.0, 1.0, 0.7)
MD1, MM1 = (
    _one("M/D/1; p99 = 8 x service", constant(S), "p99=40ms", 60),
    _one("M/M/1; p99 = 10 x service", exponential(S), "p99=50ms", 60),
)
SEEN = (
    _one("lognormal service, cv 1.5; p99 = 15 x service", lognormal(S, 1.5), "p99=75ms", 60),
    _one("Pareto service, shape 2.5; p99 = 15 x service", pareto(S, 2.5), "p99=75ms", 60),
    _one("M/D/1; p99 = 50 x service", constant(S), "p99=250ms", 60),
    _one("M/M/1; p99 = 50 x service", exponential(S), "p99=250ms", 60),
    _other("dynamic batching, at most 16", batching(0.010, 0.0005, 16), "p99=60ms", 28),
    _one("M/D/1; p99 = 10 x service", constant(0.02), "p99=200ms", 15),
    MD1,
    _one("M/D/1; p99 = 3 x service", constant(0.004), "p99=12ms", 75),
    MM1,
    _other("M/G/4, lognormal cv 1", several(lognormal(0.02, 1.0), 4), "p99=150ms", 15),
    _other("M/M/8", several(exponential(0.04), 8), "p99=240ms", 7.5),
    _one("1 in 20 requests takes 10 times as long", mixed(S), "p99=150ms", 60),
    _other("pauses of 50 ms every 2 s", alternating(exponential(S), 2.0, 0.05, 0.0), "p99=100ms", 60),
)
NOT_SEEN = (
    _one("gamma service, cv 0.7; p99 = 12 x service", erlang(S), "p99=60ms", 60),
    _one("hyperexponential service, cv 2; p99 = 30 x service", hyperexponential(S, 2.0), "p99=150ms", 60),
    _one("M/M/1; p95 = 6 x service", exponential(S), "p95=30ms", 60),
    _one("M/D/1; p95 = 3 x service", constant(S), "p95=15ms", 60),
    _one("lognormal service, cv 1; p50 = 2 x service", lognormal(S, 1.0), "p50=10ms", 60),
    _one("gamma service, cv 0.7; p50 = 10 ms and p99 = 80 ms", erlang(S), "p50=10ms,p99=80ms", 60),
    _other("M/G/2, lognormal cv 1; p99 = 10 x service", several(lognormal(0.01, 1.0), 2), "p99=100ms", 30),
    _other("pauses of 300 ms in each 5 s; p99", stopping(lognormal(S, 0.5), 5.0, 0.3), "p99=400ms", 55),
    _other("pauses of 300 ms in each 5 s; p95", stopping(lognormal(S, 0.5), 5.0, 0.3), "p95=200ms", 55),
    _other("batching of 8 with a delay of 5 ms", batching(0.012, 0.001, 8, 0.005), "p99=60ms", 16),
    _other("30 % slower for 1 s in 5 s, at random", SLOW_SPELLS, "p99=60ms", 56),
    _other("becomes slower when hot, over 20 s", Heating(lognormal(S, 0.5), 20.0, 0.15), "p99=50ms", 60),
    replace(
        _one("lognormal, cv 0.3; speed differs by 2 % between probes", lognormal(S, 0.3), "p99=50ms", 60),
        luck=0.02,
    ),
)  # fmt: skip


def _drifting(queue: Queue, drift: float, *, at_once: bool = False) -> Queue:
    seconds = float(np.median([queue.search([7, i], LONGEST_S)[1] for i in range(9)]))
    way = "slower" if drift > 0 else "faster"
    when = "at once, half-way" if at_once else "over the search"
    name = f"{queue.name}; {way} by {abs(drift):.0%} {when}"
    return replace(queue, name=name, drift=drift, drift_s=seconds, is_step=at_once)


def queues() -> Iterator[Queue]:
    """All of them; those that change last."""
    yield from SEEN
    for queue in (MD1, MM1):
        yield _drifting(queue, 0.2)
        yield _drifting(queue, -0.2)
    yield from NOT_SEEN
    yield _drifting(NOT_SEEN[0], 0.2)
    yield _drifting(NOT_SEEN[0], 0.1, at_once=True)


@dataclass(frozen=True, slots=True)
class Study:
    """One search. `truth`: what its answer is held against; `mean`: what its interval is."""

    found: Capacity
    truth: float
    mean: float
    seconds: float


def studies_of(queue: Queue, count: int, seed: int = SEED) -> list[Study]:
    """So many searches of a queue."""
    made = [queue.search([seed, *queue.name.encode(), i], LONGEST_S) for i in range(count)]
    if not queue.drift:
        capacity = queue.capacity()
        return [Study(found, capacity, capacity, seconds) for found, seconds in made]
    factors = np.linspace(1 + min(0, 1.6 * queue.drift), 1 + max(0, 1.6 * queue.drift), 9)
    known = [queue.capacity(factor) for factor in factors]
    studies = []
    for found, seconds in made:
        slower = [queue.slower_at(seconds * (i + 0.5) / 100) for i in range(100)]
        mean = float(np.interp(slower, factors, known).mean())
        end = float(np.interp(queue.slower_at(seconds), factors, known))
        studies.append(Study(found, min(mean, end), mean, seconds))
    return studies


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """Four rows a queue."""
    table: list[Row] = []
    for queue in queues():
        made = list(rows_of(queue, studies_of(queue, studies)))
        say(
            f"{queue.name}: "
            + "; ".join(("MISSES " if row.holds is False else "") + row.measured for row in made)
        )
        table += made
    return table


def rows_of(queue: Queue, studies: list[Study]) -> Iterator[Row]:
    """Of answers that are too high, of intervals, of answers that are near, and of changes."""
    count = len(studies)
    ratios = [study.found.rate_per_s / study.truth for study in studies if study.found.rate_per_s]
    high = sum(ratio > 1 + TOO_HIGH for ratio in ratios) / count
    near = sum(abs(ratio - 1) <= NEAR for ratio in ratios) / count
    unsettled = 1 - len(ratios) / count
    inside = sum((s.found.low or 0) <= s.mean <= (s.found.high or 0) for s in studies) / count
    most = max(len(study.found.probes) for study in studies)
    minutes = float(np.median([study.seconds for study in studies])) / 60
    yield Row(
        f"The answer is at most {TOO_HIGH:.0%} above the capacity",
        queue.name,
        f"in all but {MOST_TOO_HIGH:.0%}, with at most {MOST_PROBES} probes",
        f"{high:.1%} are above; at most {most} probes, {minutes:.0f} min (median)",
        high <= MOST_TOO_HIGH and most <= MOST_PROBES,
        count,
    )
    yield Row(
        "The 95 % interval contains the capacity",
        queue.name,
        f">= {LEAST_COVERED:.0%}",
        f"{inside:.1%}",
        inside >= LEAST_COVERED,
        count,
    )
    yield Row(
        f"The answer is within {NEAR:.0%}, or the search is not settled",
        queue.name,
        f">= {LEAST_NEAR:.0%}",
        f"{near:.0%} within, {unsettled:.0%} not settled",
        near + unsettled >= LEAST_NEAR,
        count,
    )
    said = sum(study.found.change is not None for study in studies) / count
    if queue.drift:
        silent = sum(s.found.change is None and bool(s.found.rate_per_s) for s in studies) / count
        goal, figure = "-", f"said in {said:.0%}; an answer without it in {silent:.0%}"
    else:
        goal, figure = f"<= {MOST_FALSE_ALARMS:.0%}", f"said in {said:.1%}"
    yield Row(
        "A change over the search is said" if queue.drift else "A change is said where there is none",
        queue.name,
        goal,
        figure,
        None if queue.drift else said <= MOST_FALSE_ALARMS,
        count,
    )
