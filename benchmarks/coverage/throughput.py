"""Throughput of closed loops.

Users of a closed loop send when their last answer is there. Their service times have a known mean, so the
true throughput is users / mean. The window opens, grows and closes by the rule of `bench/loadgen/warmup.py`,
after a warm-up of 0.5 s, as `make sweep` has it; a study is 3 to 5 repeats. "Covers" counts the studies whose
95 % interval contains the truth, "bias" is the mean of all studies against it, with two standard errors of
the simulation. The families differ in what is drawn: lognormal service times with a coefficient of variation
(cv); two kinds of requests in a fixed order; two kinds at random; gamma and Pareto times; and a server that
gets 10 % slower over the study, where the truth is the mean of its speeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.stats import Interval, arithmetic
from bench.analysis.summary import summarize
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.samples import Samples, Window
from bench.core.trial import Generator, Plan, Trial
from bench.loadgen.warmup import MOST_S, longer_s, opening, phase_s, planned_s
from benchmarks.coverage.row import Row

WARMUP_S = 0.5
LEAST_COVERED, MOST_BIAS = 0.93, 0.005
SERVICES_S, CVS, USERS, WINDOWS_S = (
    (0.001, 0.05, 0.3, 0.7, 2.0),
    (0.0, 0.005, 0.02, 0.1, 0.5),
    (1, 2, 4, 16),
    (3.0, 5.0),
)
# The engine's command to close the window is this late, at random, as reading the counters is.
READING_S = 0.003

Times = NDArray[np.float64]
# (generator, shape) -> service times with a mean of 1, one row a user, in the order of its requests.
Draw = Callable[[np.random.Generator, tuple[int, int]], Times]


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
class Study:
    """`drift`: how much slower the last repeat is than the first."""

    draw: Draw
    service_s: float
    users: int
    window_s: float
    repeats: int = 3
    drift: float = 0.0

    def measured(self, random: np.random.Generator) -> Interval | None:
        """The interval of one study, divided by the truth."""
        slower = 1 + self.drift * np.linspace(0, 1, self.repeats)
        trials = [self.trial(random, self.service_s * by) for by in slower]
        figures = [summarize(trial) for trial in trials]
        truth = float(np.mean(self.users / (self.service_s * slower)))
        edges = float(np.mean([one.edges_img_per_s for one in figures]))
        return arithmetic([one.throughput_img_per_s / truth for one in figures], edges / truth)

    def trial(self, random: np.random.Generator, service_s: float) -> Trial:
        """One trial, with the window that the Locust engine would have opened and closed."""
        load = Load(protocol=Protocol.HTTP, batch=1, concurrency=self.users)
        seed = int(random.integers(1 << 31))
        longest_s = max(self.window_s, min(MOST_S, 30 * service_s)) + 12 * service_s + WARMUP_S
        ends = np.cumsum(
            self.draw(random, (self.users, int(1.5 * longest_s / service_s) + 20)) * service_s, 1
        )
        starts = np.concatenate([np.zeros((self.users, 1)), ends[:, :-1]], axis=1)
        order = np.sort(ends, axis=None)

        def ended(at_s: float) -> int:
            return int(np.searchsorted(order, at_s, side="right"))

        begins = opening(load, WARMUP_S)
        open_s = max(begins.at_s, float(order[begins.ended - 1]))
        open_s += phase_s(load, seed, open_s, ended(open_s)) + READING_S * random.random()
        before, length_s = ended(open_s), planned_s(load, self.window_s, open_s, ended(open_s))
        while (
            longer := longer_s(load, self.window_s, length_s, ended(open_s + length_s) - before)
        ) > length_s:
            length_s = longer
        close_s = open_s + length_s
        close_s += READING_S * random.random()
        kept = starts.ravel() < close_s
        sent, done = ((times.ravel()[kept] * 1e9).astype(np.int64) for times in (starts, ends))
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


@dataclass(frozen=True, slots=True)
class Covered:
    """Of the studies of one kind."""

    share: float
    bias: float
    studies: int

    @property
    def noise(self) -> float:
        """Two standard errors of the share, if it is 95 %."""
        return 2 * math.sqrt(0.95 * 0.05 / self.studies)


def covered(study: Study, studies: int, seed: int) -> tuple[Covered, float]:
    """How often the interval contains the truth, and the standard error of the bias."""
    intervals = [study.measured(np.random.default_rng([seed, number])) for number in range(studies)]
    known = [one for one in intervals if one and one.low is not None and one.high is not None]
    inside = [one.low <= 1 <= one.high for one in known if one.low is not None and one.high is not None]
    values = np.array([one.value for one in known])
    share = float(np.mean(inside)) if known else 0.0
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return Covered(share, float(values.mean() - 1), len(known)), error


def families() -> Iterable[tuple[str, list[Study]]]:
    """Rows of the table: what was simulated, and the studies of each kind."""
    for service_s in SERVICES_S:
        for cv in CVS:
            kinds = [Study(lognormal(cv), service_s, u, w) for u in USERS for w in WINDOWS_S]
            yield f"service {service_s * 1e3:g} ms, lognormal cv {cv:.1%}", kinds
    others: dict[str, Draw] = {
        "0.5 and 1.5 x in turns": alternating(0.5, 1.5),
        "1, 1, 4 x in turns": alternating(1.0, 1.0, 4.0),
        "one in ten takes 5 x": bimodal(0.1, 5.0),
        "gamma cv 30 %": gamma(0.3),
        "Pareto 3.5": pareto(3.5),
    }
    for name, draw in others.items():
        yield f"service 37, 410, 1100 ms, {name}", [
            Study(draw, s, u, w, repeats=n)
            for s in (0.037, 0.41, 1.1) for u in (1, 3) for w in WINDOWS_S for n in (3, 5)
        ]  # fmt: skip
    yield "service 37, 410, 1100 ms, cv 5 %, 10 % slower over the study", [
        Study(lognormal(0.05), s, u, w, repeats=n, drift=0.1)
        for s in (0.037, 0.41, 1.1) for u in (1, 3) for w in WINDOWS_S for n in (3, 5)
    ]  # fmt: skip


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """A row for each family: coverage and bias over all its kinds, and the worst kind of them."""
    table = []
    for number, (over, kinds) in enumerate(families()):
        each = math.ceil(studies / len(kinds))
        results = [covered(kind, each, 1000 * number + k) for k, kind in enumerate(kinds)]
        share = float(np.mean([one.share for one, _ in results]))
        bias = float(np.mean([one.bias for one, _ in results]))
        error = math.sqrt(sum(e * e for _, e in results)) / len(results)
        worst = min(one.share for one, _ in results)
        measured = f"covers {share:.1%} (worst kind {worst:.0%}), bias {bias:+.2%} ± {2 * error:.2%}"
        holds = share >= LEAST_COVERED and abs(bias) < MOST_BIAS + 2 * error
        say(f"{over}: {measured}")
        goal = f">= {LEAST_COVERED:.0%}, bias < {MOST_BIAS:.1%} beyond the noise"
        table.append(
            Row("the 95 % interval of throughput covers", over, goal, measured, holds, each * len(kinds))
        )
    return table
