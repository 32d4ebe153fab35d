"""Percentiles of dependent requests.

Each server is simulated in virtual time with a service time of about 5 ms. Its true percentiles are those
of more than ten simulated hours. The margins of `bench/analysis/percentiles.py` were set by the Pareto
server, which asks for most. Servers marked (new) were simulated once, when the margins stood. Each is
measured with 3 and 5 repeats of 5 and 30 s, and a row has the worst of these four settings. "Proved while
false" counts the studies that prove a bound 3 % below the true percentile. The measured column also says how
often the p99 interval has an upper end with 3 repeats of 5 s and with 5 of 30 s, and how often 1.5 times the
true p99 is proved then: requests that cluster carry little, and a longer measurement carries more.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench.analysis.percentiles import PooledLatencies
from benchmarks.coverage.row import Row

Floats = NDArray[np.float64]
Random = np.random.Generator
# From a random generator and a length in seconds: when requests are due, and how long each takes.
Server = Callable[[Random, float], tuple[Floats, Floats]]

SERVICE_S = 0.005
WARMUP_S = 1.0
PERCENTS = (50.0, 90.0, 95.0, 99.0)
REPEATS, WINDOWS_S = (3, 5), (5, 30)
COVERS, FALSE_PROOFS = 0.90, 0.01
# A bound that must not be proved, and one that a server without clusters should prove, times the true one.
BELOW, ABOVE = 0.97, 1.5


def arrivals(random: Random, per_s: float, seconds: float) -> Floats:
    """Poisson arrivals, sorted."""
    return np.sort(random.uniform(0, seconds, random.poisson(per_s * seconds)))


def served(due: Floats, service: Floats) -> Floats:
    """Response times of one FIFO server (Lindley)."""
    done = np.cumsum(service)
    return np.asarray(np.maximum.accumulate(due - (done - service)) + done - due)


def lognormal(random: Random, n: int, cv: float) -> Floats:
    """Service times with this coefficient of variation."""
    sigma = np.sqrt(np.log(1 + cv * cv))
    return SERVICE_S * random.lognormal(-sigma * sigma / 2, sigma, n)


def independent(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """No queue at all: lognormal times, 140 a second."""
    due = arrivals(random, 140, seconds)
    return due, random.lognormal(np.log(SERVICE_S), 0.5, len(due))


def one_server(load: float, cv: float, luck: float = 0.0) -> Server:
    """M/G/1 with lognormal service; `luck`: the deviation of the logarithm of a repeat's speed."""

    def server(random: Random, seconds: float) -> tuple[Floats, Floats]:
        due = arrivals(random, load / SERVICE_S, seconds)
        return due, served(due, lognormal(random, len(due), cv) * np.exp(random.normal(0, luck)))

    return server


def pareto(random: Random, seconds: float, shape: float = 2.2, load: float = 0.6) -> tuple[Floats, Floats]:
    """M/G/1 with Pareto service."""
    due = arrivals(random, load / SERVICE_S, seconds)
    least = SERVICE_S * (shape - 1) / shape
    return due, served(due, least * (1 + random.pareto(shape, len(due))))


def bursts(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """120 a second, three times as many for 0.2 s in every 2 s."""
    phase, due = random.uniform(0, 2), arrivals(random, 360, seconds)
    due = due[((due + phase) % 2 < 0.2) | (random.uniform(size=len(due)) < 1 / 3)]
    return due, served(due, random.exponential(0.8 * SERVICE_S, len(due)))


def two_servers(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """M/G/2, lognormal service of cv 1, 75 % load."""
    due = arrivals(random, 1.5 / SERVICE_S, seconds)
    one = other = 0.0
    done = np.empty(len(due))
    for i, (at, takes) in enumerate(
        zip(due.tolist(), lognormal(random, len(due), 1.0).tolist(), strict=True)
    ):
        one, other = min(one, other), max(one, other)
        one = done[i] = max(at, one) + takes
    return due, done - due


def eight_users(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """A closed loop of 8 users at one server with lognormal service of cv 1."""
    done = np.cumsum(lognormal(random, round(1.3 * seconds / SERVICE_S) + 50, 1.0))
    due = np.concatenate((np.zeros(8), done))[: len(done)]
    return due[done < seconds], (done - due)[done < seconds]


def pauses(pause_s: float, every_s: float) -> Server:
    """A server that stands still for so long in every so many seconds, at some 42 % load."""

    def server(random: Random, seconds: float) -> tuple[Floats, Floats]:
        phase, due = random.uniform(0, every_s), arrivals(random, 80, seconds)
        awake_s = every_s - pause_s
        whole, rest = np.divmod(due + phase, every_s)
        awake = whole * awake_s + np.minimum(rest, awake_s)  # how long it had run when each was due
        done = awake + served(awake, lognormal(random, len(due), 0.5))
        return due, done + pause_s * np.floor(done / awake_s) - phase - due

    return server


def slow_spells(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """M/G/1 at 50 % load; the logarithm of the service time is autoregressive (0.98 from one to the next)."""
    due = arrivals(random, 0.5 / SERVICE_S, seconds)
    shocks = random.normal(0, 0.5 * np.sqrt(1 - 0.98**2), len(due)).tolist()
    state, states = random.normal(0, 0.5), []
    for shock in shocks:
        state = 0.98 * state + shock
        states.append(state)
    return due, served(due, SERVICE_S * np.exp(np.array(states) - 0.125))


def hyperexponential(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """M/G/1 at 60 % load: one request in ten is eleven times as long as the others, both exponential."""
    due = arrivals(random, 0.6 / SERVICE_S, seconds)
    means = SERVICE_S * np.where(random.random(len(due)) < 0.1, 5.5, 0.5)
    return due, served(due, random.exponential(means))


def gamma_service(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """M/G/1 at 65 % load, gamma service times of shape 0.3 (cv 183 %)."""
    due = arrivals(random, 0.65 / SERVICE_S, seconds)
    return due, served(due, random.gamma(0.3, SERVICE_S / 0.3, len(due)))


def two_rates(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """Arrivals at 60 and at 160 a second, each for an exponential time of 1 s on average (MMPP)."""
    ends = np.cumsum(random.exponential(1.0, int(2 * seconds) + 30))
    due = arrivals(random, 160, seconds)
    is_slow = np.searchsorted(ends, due) % 2 == random.integers(2)
    due = due[~is_slow | (random.random(len(due)) < 60 / 160)]
    return due, served(due, lognormal(random, len(due), 0.7))


def thinking_users(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """20 users who wait for 0.1 s on average between an answer and the next request, one server, cv 1."""
    ready = (random.exponential(0.1, 20)).tolist()
    heapq.heapify(ready)
    count = round(1.5 * seconds * 20 / 0.105) + 100
    due, done, free = [], [], 0.0
    takes, thinks = lognormal(random, count, 1.0).tolist(), random.exponential(0.1, count).tolist()
    for service, think in zip(takes, thinks, strict=True):
        sent = heapq.heappop(ready)
        if sent >= seconds:
            break
        free = max(free, sent) + service
        due.append(sent)
        done.append(free)
        heapq.heappush(ready, free + think)
    return np.array(due), np.array(done) - np.array(due)


def batching(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """Batches of up to 8, after a delay of at most 5 ms; a batch takes 8 ms and 1 ms a request, cv 20 %."""
    due = arrivals(random, 300, seconds)
    takes = random.gamma(25, 1 / 25, len(due)).tolist()
    at, done, free, first = due.tolist(), np.empty(len(due)), 0.0, 0
    while first < len(at):
        full = at[first + 7] if first + 7 < len(at) else math.inf
        start = max(free, min(full, at[first] + 0.005))
        last = min(bisect.bisect_right(at, start, first + 1, min(first + 8, len(at))), first + 8)
        free = start + (0.008 + 0.001 * (last - first)) * takes[first]
        done[first:last] = free
        first = last
    return due, done - due


def slowing(random: Random, seconds: float) -> tuple[Floats, Floats]:
    """M/G/1 at 60 to 66 % load: its service gets 10 % longer in the course of a trial."""
    due = arrivals(random, 0.6 / SERVICE_S, seconds)
    return due, served(due, lognormal(random, len(due), 1.0) * (1 + 0.1 * due / seconds))


SERVERS: dict[str, Server] = {
    "independent requests": independent,
    "M/G/1, lognormal cv 1, 70 % load": one_server(0.7, 1.0),
    "M/G/1, Pareto 2.2, 60 % load": pareto,
    "bursts, x3 for 0.2 s in every 2 s": bursts,
    "a luck of 3 % a repeat (M/G/1, cv 1, 70 %)": one_server(0.7, 1.0, luck=0.03),
}
NOT_TUNED_TO: dict[str, Server] = {
    "M/G/2, lognormal cv 1, 75 % load": two_servers,
    "closed loop, 8 users": eight_users,
    "pauses of 50 ms in every second": pauses(0.05, 1.0),
    "M/G/1, lognormal cv 3, 50 % load": one_server(0.5, 3.0),
    "slow spells (service times autoregressive)": slow_spells,
    "hyperexponential service, 60 % load (new)": hyperexponential,
    "gamma service, cv 183 %, 65 % load (new)": gamma_service,
    "pauses of 300 ms in every 5 s (new)": pauses(0.3, 5.0),
    "arrivals at two rates in turns (MMPP) (new)": two_rates,
    "20 users with think time (new)": thinking_users,
    "batches of up to 8, with a delay (new)": batching,
    "10 % slower over a trial, 60 % load (new)": slowing,
}


def trial_ns(server: Server, random: Random, seconds: float) -> NDArray[np.int64]:
    """Response times of a trial in the order of time, after a warm-up, in ns."""
    due, response = server(random, WARMUP_S + seconds)
    order = np.argsort(due, kind="stable")
    return np.asarray(response[order][due[order] >= WARMUP_S] * 1e9, dtype=np.int64)


def true_ns(server: Server, parts: int = 800, seconds: float = 50.0) -> dict[float, float]:
    """The percentiles over many trials, each with a luck of its own."""
    random = np.random.default_rng(99)
    pooled = np.concatenate([trial_ns(server, random, seconds) for _ in range(parts)])
    return dict(zip(PERCENTS, np.percentile(pooled, PERCENTS).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Judged:
    """What one study says of a true percentile."""

    covers: bool
    has_upper: bool
    proves_below: bool
    proves_above: bool


Study = dict[float, Judged]  # by percent


def study(
    server: Server, truths_ns: dict[float, float], random: Random, repeats: int, seconds: float
) -> Study:
    """Simulate so many trials and judge them as a real run is judged."""
    pooled = PooledLatencies.of([trial_ns(server, random, seconds) for _ in range(repeats)])
    return {percent: _judged(pooled, percent, truth_ns) for percent, truth_ns in truths_ns.items()}


def _judged(pooled: PooledLatencies, percent: float, truth_ns: float) -> Judged:
    low, high = pooled.interval_ns(percent) or (0.0, None)
    proved = pooled.proved_ns(percent)
    return Judged(
        covers=low <= truth_ns and (high is None or truth_ns <= high),
        has_upper=high is not None,
        proves_below=proved is not None and proved <= BELOW * truth_ns,
        proves_above=proved is not None and proved <= ABOVE * truth_ns,
    )


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """Rows of p99 and of the lower percentiles for each server."""
    table: list[Row] = []
    for name, server in {**SERVERS, **NOT_TUNED_TO}.items():
        truths_ns = true_ns(server)
        settings = {}
        for repeats, seconds in product(REPEATS, WINDOWS_S):
            random = np.random.default_rng([2, repeats, seconds, *name.encode()])
            settings[f"{repeats} x {seconds} s"] = [
                study(server, truths_ns, random, repeats, seconds) for _ in range(studies)
            ]
        table += _rows(name, settings, studies)
        say(f"{name}: {'; '.join(row.measured for row in table[-4:])}")
    return table


def _rows(name: str, settings: dict[str, list[Study]], studies: int) -> Iterator[Row]:
    first, *_, last = settings.values()
    for percents, words in (((99.0,), "p99"), (PERCENTS[:-1], "p50, p90 or p95")):
        covers = {over: _share(results, percents, "covers", min) for over, results in settings.items()}
        false = {over: _share(results, percents, "proves_below", max) for over, results in settings.items()}
        least, most = min(covers, key=covers.__getitem__), max(false, key=false.__getitem__)
        upper, above = (
            [_share(results, percents, what, min) for results in (first, last)]
            for what in ("has_upper", "proves_above")
        )
        yield Row(
            f"The interval covers the true {words}",
            name,
            f">= {COVERS:.0%}",
            f"{covers[least]:.1%} at least ({least}); has an upper end in {upper[0]:.0%} and {upper[1]:.0%}",
            covers[least] >= COVERS,
            studies,
        )
        yield Row(
            f"{words} proved while false",
            name,
            f"<= {FALSE_PROOFS:.0%}",
            f"{false[most]:.2%} at most" + (f" ({most})" if false[most] else "")
            + f"; proves {ABOVE:g} x in {above[0]:.0%} and {above[1]:.0%}",
            false[most] <= FALSE_PROOFS,
            studies,
        )  # fmt: skip


def _share(
    results: list[Study], percents: tuple[float, ...], what: str, worst: Callable[[list[float]], float]
) -> float:
    """Of the studies, for the percentile that is worst at it."""
    return worst([sum(getattr(one[percent], what) for one in results) / len(results) for percent in percents])
