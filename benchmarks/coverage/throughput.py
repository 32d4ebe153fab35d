"""Throughput of closed loops.

Users of a closed loop send when their last answer is there. The window opens, grows and closes by the rule of
`bench/loadgen/warmup.py`, after a warm-up of 0.5 s, as `make sweep` has it; a study is 3 or 5 repeats, and
where one of them holds fewer than three answers per user, the report says "too short to say" and gives no
interval. "Covers" counts the studies with an interval whose 95 % interval contains the truth, "bias" is the
mean of their throughputs against it, with two standard errors of the simulation. A row has several kinds of
loads; of a kind there are 12 to 50 studies, so the worst kind of a row is partly chance.

The first rows are what is claimed: independent lognormal service times with a coefficient of variation (cv),
1, 2, 4 and 16 users, windows of 3 and 5 s. The rule was chosen on 1.1 s of service with cv 50 % and on the
servers marked (seen). The other servers were simulated once, when the rule stood. perf_analyzer's requests go
through the same functions, but its windows have a fixed length, and a request that its load does not see end
is lost.

With a real server, the calibration model `delay` at 700, 900 and 1300 ms and windows of 3 s, the throughput
of three repeats was within 1 % of the truth and the interval contained it. tests/e2e/test_ground_truth.py
does this with half the times.

What misses, in plain words. With one user alone, services of 0.7 and 2 s and cv 50 %, throughput is 1.0 % too
high (± 0.5 %, in 1600 studies more), within an interval of ± 35 %; rows are means over all numbers of users.
A slow request or a pause that is so rare that most repeats do not hold one is in no interval: the server that
stands still once in 30 s, and the one in which one request in thirty takes ten times as long. No rule on the
samples can tell what did not happen yet; measure for longer. Where requests vary by their own mean or more
and a window holds about ten of each user, throughput is some percent too high, because a window with few
answers goes on; its interval is some ten times as wide. A fixed order of unequal requests that is longer than
two requests can beat with the window; its interval says so.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.checks.window import LEAST_ANSWERS
from bench.analysis.stats import Interval, arithmetic
from bench.analysis.summary import answers_per_user, edges_req_per_s, throughput_req_per_s
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.samples import Samples, Window
from bench.core.trial import Generator, Plan, Trial
from bench.loadgen.warmup import MOST_S, MOST_TIMES, has_enough, longer_s, opening, phase_s, planned_s
from benchmarks.coverage.row import Row

WARMUP_S = 0.5
LEAST_COVERED, MOST_BIAS = 0.93, 0.005
SERVICES_S, CVS, USERS, WINDOWS_S = (
    (0.001, 0.003, 0.01, 0.05, 0.3, 0.7, 2.0),
    (0.0, 0.005, 0.02, 0.1, 0.5),
    (1, 2, 4, 16),
    (3.0, 5.0),
)
CLAIM = "The 95 % interval of throughput covers, without bias"
# The engine's command to close the window is this late, at random, as reading the counters is.
READING_S = 0.003
# Of perf_analyzer's windows, and the load that goes on after them: bench/loadgen/perf_analyzer/engine.py.
STRETCHES, START_S, TAIL_SHARE, LEAST_TAIL_S = (1, 4, 16), 0.5, 0.3, 0.5

Random = np.random.Generator
Times = NDArray[np.float64]
# (generator, shape) -> service times with a mean of 1, one row a user, in the order of its requests.
Draw = Callable[[Random, tuple[int, int]], Times]


def lognormal(cv: float) -> Draw:
    sigma = math.sqrt(math.log1p(cv * cv))
    return lambda random, shape: np.exp(random.normal(-sigma * sigma / 2, sigma, shape))


def gamma(cv: float) -> Draw:
    return lambda random, shape: random.gamma(cv**-2, cv**2, shape)


def pareto(alpha: float) -> Draw:
    return lambda random, shape: (random.pareto(alpha, shape) + 1) * (alpha - 1) / alpha


def alternating(*times: float) -> Draw:
    """In this order, every user from the first one on: nothing is random but where the window opens."""
    cycle = np.array(times) / np.mean(times)
    return lambda _, shape: np.broadcast_to(np.resize(cycle, shape[1]), shape)


def bimodal(share: float, factor: float) -> Draw:
    """A share of the requests takes `factor` times as long."""
    mean = 1 + share * (factor - 1)
    return lambda random, shape: np.where(random.random(shape) < share, factor, 1.0) / mean


@dataclass(frozen=True, slots=True)
class Server:
    """A server with a closed loop of users on it.

    `requests`: from (generator, users, seconds), when each was sent and answered, in s, for at least so long.
    `response_s`: about the mean response time. `per_s`: the true throughput.
    """

    requests: Callable[[Random, int, float], tuple[Times, Times]]
    response_s: Callable[[int], float]
    per_s: Callable[[int], float]


def of_its_own(draw: Draw, service_s: float) -> Server:
    """Each user has an instance to itself."""

    def requests(random: Random, users: int, seconds: float) -> tuple[Times, Times]:
        count = seconds / service_s
        ends = np.cumsum(draw(random, (users, int(count + 8 * math.sqrt(count) + 20))) * service_s, 1)
        return np.concatenate([np.zeros((users, 1)), ends[:, :-1]], axis=1).ravel(), ends.ravel()

    return Server(requests, lambda _: service_s, lambda users: users / service_s)


def queue(draw: Draw, service_s: float, instances: int) -> Server:
    """Users share some instances, first come, first served."""

    def requests(random: Random, users: int, seconds: float) -> tuple[Times, Times]:
        count = seconds * instances / service_s
        takes = (draw(random, (1, int(1.1 * count + 8 * math.sqrt(count) + 20 + users))) * service_s)[0]
        free, ready = [0.0] * instances, [0.0] * users
        sent, done = [], []
        for service in takes.tolist():
            sent.append(heapq.heappop(ready))
            done.append(max(sent[-1], heapq.heappop(free)) + service)
            heapq.heappush(free, done[-1])
            heapq.heappush(ready, done[-1])
        return np.array(sent), np.array(done)

    return Server(
        requests,
        lambda users: service_s * max(1, users / instances),
        lambda users: min(users, instances) / service_s,
    )


def batches(service_s: float, most: int, each: float, cv: float) -> Server:
    """One instance takes groups of up to `most` in turns: service_s x (1 + each x (size - 1))."""
    draw = lognormal(cv)

    def requests(random: Random, users: int, seconds: float) -> tuple[Times, Times]:
        size = min(most, users)
        takes = service_s * (1 + each * (size - 1))
        count = seconds / takes
        ends = np.cumsum(draw(random, (1, int(count + 8 * math.sqrt(count) + 20)))[0] * takes)
        rounds = -(-users // size)  # batches that wait for each other
        starts = np.concatenate([np.zeros(rounds), ends])[: len(ends)]
        return np.repeat(starts, size), np.repeat(ends, size)

    def takes_s(users: int) -> float:
        return service_s * (1 + each * (min(most, users) - 1))

    return Server(
        requests,
        lambda users: takes_s(users) * -(-users // min(most, users)),
        lambda users: min(most, users) / takes_s(users),
    )


def with_spells(server: Server, slow_s: float, every_s: float, slower: float) -> Server:
    """For `slow_s` in every `every_s` all is so many times slower (1e6: it stands still); random phase."""
    fast_s = every_s - slow_s
    work_s = fast_s + slow_s / slower  # done in each period, in seconds of the plain server

    def real_s(work: Times) -> Times:
        whole = np.floor(work / work_s)
        rest = work - whole * work_s
        return np.asarray(whole * every_s + rest + np.maximum(rest - fast_s, 0) * (slower - 1))

    def requests(random: Random, users: int, seconds: float) -> tuple[Times, Times]:
        phase_s = random.uniform(0, every_s)
        whole, rest = divmod(phase_s, every_s)
        begun = whole * work_s + min(rest, fast_s) + max(rest - fast_s, 0) / slower
        sent, done = server.requests(random, users, seconds)
        return real_s(sent + begun) - phase_s, real_s(done + begun) - phase_s

    share = work_s / every_s
    return Server(
        requests, lambda users: server.response_s(users) / share, lambda users: server.per_s(users) * share
    )


def with_luck(server: Server, luck: float) -> Server:
    """Each trial has a speed of its own; `luck`: the deviation of its logarithm."""

    def requests(random: Random, users: int, seconds: float) -> tuple[Times, Times]:
        slower = math.exp(random.normal(0, luck))
        sent, done = server.requests(random, users, 1.2 * seconds)
        return sent * slower, done * slower

    return Server(requests, server.response_s, lambda users: server.per_s(users) * math.exp(luck * luck / 2))


@dataclass(frozen=True, slots=True)
class Study:
    """`drift`: how much slower the last repeat is than the first. `engine`: whose windows they are."""

    server: Server
    users: int
    window_s: float
    repeats: int = 3
    drift: float = 0.0
    engine: str = "locust"

    def measured(self, random: Random) -> Interval | None:
        """The interval of one study, divided by the truth; None where a repeat is too short to say."""
        slower = 1 + self.drift * np.linspace(0, 1, self.repeats)
        trials = [self.trial(random, by) for by in slower]
        if any((answers_per_user(trial) or 0) < LEAST_ANSWERS for trial in trials):
            return None
        truth = self.server.per_s(self.users) * float(np.mean(1 / slower))
        values = [throughput_req_per_s(trial) for trial in trials]
        edges = np.mean([edges_req_per_s(*both) for both in zip(trials, values, strict=True)])
        return arithmetic([value / truth for value in values], float(edges) / truth)

    def trial(self, random: Random, slower: float = 1.0) -> Trial:
        """One trial, with the window that the engine would have opened and closed."""
        load = Load(protocol=Protocol.HTTP, batch=1, concurrency=self.users)
        seed = int(random.integers(1 << 31))
        window = _locust(self, load, random, seed, slower)
        if self.engine == "perf_analyzer":
            window = _perf_analyzer(self, load, random, seed, slower)
        open_s, close_s, sent_s, done_s = window
        kept = sent_s < close_s
        sent, done = ((times[kept] * 1e9).astype(np.int64) for times in (sent_s, done_s))
        return Trial(
            plan=Plan(
                cell=Cell(server=ServerConfiguration(model="m"), load=load),
                repeat=0, seed=seed, warmup_s=WARMUP_S, duration_s=self.window_s,
            ),
            window=Window(int(open_s * 1e9), int(close_s * 1e9)),
            samples=Samples(sent, sent, done, np.zeros_like(sent)),
            errors={},
            generator=Generator(workers=1, cpu_s=(0.0,), max_rss_bytes=0),
        )  # fmt: skip


_Opened = tuple[float, float, Times, Times]  # the window's ends; when requests were sent and done, all in s


def _locust(study: Study, load: Load, random: Random, seed: int, slower: float) -> _Opened:
    response_s, window_s = study.server.response_s(study.users) * slower, study.window_s
    longest_s = min(MOST_TIMES * window_s, MOST_S) if 60 * response_s > window_s else window_s
    seconds = WARMUP_S + 40 * response_s + longest_s
    sent, done = (times * slower for times in study.server.requests(random, study.users, seconds / slower))
    order = np.sort(done)

    def ended(at_s: float) -> int:
        return int(np.searchsorted(order, at_s, side="right"))

    begins = opening(load, WARMUP_S)
    ready_s = max(begins.at_s, float(order[begins.ended - 1]))
    length_s = planned_s(load, window_s, ready_s, ended(ready_s))
    open_s = ready_s + phase_s(load, seed, ready_s, ended(ready_s)) + READING_S * random.random()
    while (longer := longer_s(load, window_s, length_s, ended(open_s + length_s) - ended(open_s))) > length_s:
        length_s = longer
    return open_s, open_s + length_s + READING_S * random.random(), sent, done


def _perf_analyzer(study: Study, load: Load, random: Random, seed: int, slower: float) -> _Opened:
    for stretch in STRETCHES:
        duration_s = study.window_s * stretch
        ends_s = START_S + WARMUP_S * stretch + duration_s
        exported_s = ends_s + max(LEAST_TAIL_S * stretch, TAIL_SHARE * duration_s)
        sent, done = (
            START_S + times * slower
            for times in study.server.requests(random, study.users, 1.2 * exported_s / slower)
        )
        order = np.sort(done)
        begins = opening(load, START_S + WARMUP_S * stretch)
        ready_s = max(begins.at_s, float(order[begins.ended - 1]))
        open_s = ready_s + phase_s(load, seed, ready_s, int(np.searchsorted(order, ready_s, side="right")))
        close_s = min(ends_s, open_s + duration_s)
        answers = int(np.searchsorted(order, close_s) - np.searchsorted(order, open_s))
        is_late = ready_s > ends_s - duration_s / 2
        if stretch == STRETCHES[-1] or not (is_late or close_s <= open_s or not has_enough(load, answers)):
            break
    seen = done < exported_s
    return open_s, max(close_s, open_s + READING_S), sent[seen], done[seen]


@dataclass(frozen=True, slots=True)
class Covered:
    """Of the studies of one kind; `studies`: how many had an interval."""

    share: float
    bias: float
    error: float  # standard error of the bias
    half_width: float  # the middle one of the intervals
    studies: int


def covered(study: Study, studies: int, seed: int) -> Covered:
    """How often the interval contains the truth."""
    intervals = [study.measured(np.random.default_rng([seed, number])) for number in range(studies)]
    known = [
        (one.value, one.low, one.high)
        for one in intervals
        if one and one.low is not None and one.high is not None
    ]
    if len(known) < 2:
        return Covered(math.nan, math.nan, math.nan, math.nan, len(known))
    values, low, high = np.array(known).T
    return Covered(
        share=float(np.mean((low <= 1) & (high >= 1))),
        bias=float(values.mean() - 1),
        error=float(values.std(ddof=1) / math.sqrt(len(values))),
        half_width=float(np.median((high - low) / 2)),
        studies=len(known),
    )


def others() -> dict[str, Callable[[float], Server]]:
    """Servers that nothing is claimed of beforehand, by their mean service time."""

    def plain(draw: Draw) -> Callable[[float], Server]:
        return lambda service_s: of_its_own(draw, service_s)

    def even(service_s: float) -> Server:
        return of_its_own(lognormal(0.05), service_s)

    return {
        "gamma cv 30 %": plain(gamma(0.3)),
        "Pareto 3.5": plain(pareto(3.5)),
        "two instances for all users, cv 30 %": lambda s: queue(lognormal(0.3), s, 2),
        "one instance for all users, cv 100 %": lambda s: queue(lognormal(1.0), s / 2, 1),
        "batches of up to 4, cv 10 %": lambda s: batches(s, 4, 0.3, 0.1),
        "a luck of 3 % a repeat, cv 5 %": lambda s: with_luck(even(s), 0.03),
        "3 x slower for 0.2 s in every 2 s": lambda s: with_spells(even(s), 0.2, 2.0, 3.0),
        "stands still for 0.3 s in every 5 s": lambda s: with_spells(even(s), 0.3, 5.0, 1e6),
        "stands still for 1 s in every 30 s": lambda s: with_spells(even(s), 1.0, 30.0, 1e6),
        "0.5 and 1.5 x strictly in turns (seen)": plain(alternating(0.5, 1.5)),
        "1, 1, 4 x strictly in turns (seen)": plain(alternating(1.0, 1.0, 4.0)),
        "1, 2, 1, 8 x strictly in turns": plain(alternating(1.0, 2.0, 1.0, 8.0)),
        "lognormal cv 100 %": plain(lognormal(1.0)),
        "one in ten takes 5 x (seen)": plain(bimodal(0.1, 5.0)),
        "one in thirty takes 10 x": plain(bimodal(1 / 30, 10.0)),
    }


OTHER_SERVICES_S, OTHER_USERS, OTHER_REPEATS = (0.037, 0.41, 1.3), (1, 3, 8), (3, 5)


def families() -> Iterable[tuple[str, list[Study]]]:
    """Rows of the table: what was simulated, and the studies of each kind."""
    for service_s in SERVICES_S:
        for cv in CVS:
            server = of_its_own(lognormal(cv), service_s)
            yield (
                f"service {service_s * 1e3:g} ms, lognormal cv {cv:.1%}",
                [Study(server, users, window_s) for users in USERS for window_s in WINDOWS_S],
            )
    for cv in (0.0, 0.1):
        yield (
            f"perf_analyzer; service 50, 300, 700, 1300 ms, lognormal cv {cv:.0%}",
            [
                Study(of_its_own(lognormal(cv), s), users, window_s, engine="perf_analyzer")
                for s in (0.05, 0.3, 0.7, 1.3) for users in (1, 4) for window_s in WINDOWS_S
            ],
        )  # fmt: skip
    for name, of_service in others().items():
        yield (
            f"service 37, 410, 1300 ms, {name}",
            [
                Study(of_service(s), users, window_s, repeats)
                for s in OTHER_SERVICES_S for users in OTHER_USERS
                for window_s in WINDOWS_S for repeats in OTHER_REPEATS
            ],
        )  # fmt: skip
    yield (
        "service 37, 410, 1300 ms, cv 5 %, 10 % slower over the study",
        [
            Study(of_its_own(lognormal(0.05), s), users, 3.0, repeats, drift=0.1)
            for s in OTHER_SERVICES_S for users in OTHER_USERS for repeats in OTHER_REPEATS
        ],
    )  # fmt: skip


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """A row for each family: coverage and bias over all its kinds, and the worst kind of them."""
    table = []
    for number, (over, kinds) in enumerate(families()):
        each = max(2, math.ceil(studies / len(kinds)))  # one study has no spread
        results = [covered(kind, each, 1000 * number + k) for k, kind in enumerate(kinds)]
        claim = CLAIM if number < len(SERVICES_S) * len(CVS) else f"{CLAIM}, other servers"
        table.append(_row(claim, over, results, each))
        say(f"{over}: {table[-1].measured}")
    return table


def _row(claim: str, over: str, results: list[Covered], each: int) -> Row:
    known = [one for one in results if one.studies > 1]
    weights = np.array([one.studies for one in known], dtype=np.float64)
    weights /= weights.sum()

    def mean(name: str) -> float:
        return float(sum(w * getattr(one, name) for w, one in zip(weights, known, strict=True)))

    share, bias = mean("share"), mean("bias")
    error = math.sqrt(sum((w * one.error) ** 2 for w, one in zip(weights, known, strict=True)))
    refused = 1 - sum(one.studies for one in results) / (each * len(results))
    measured = (
        f"covers {share:.1%} (worst kind {min(one.share for one in known):.0%}), "
        f"bias {bias:+.2%} ± {2 * error:.2%}, half width {mean('half_width'):.1%}"
        + (f"; too short to say in {refused:.1%}" if refused else "")
    )
    goal = f">= {LEAST_COVERED:.0%}, bias < {MOST_BIAS:.1%} beyond the noise"
    holds = share >= LEAST_COVERED and abs(bias) < MOST_BIAS + 2 * error
    return Row(claim, over, goal, measured, holds, each * len(results))
