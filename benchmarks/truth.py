"""Is what is measured true? The real engines on a server whose throughput, waits and stalls are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.analysis.checks.window import LEAST_ANSWERS
from bench.analysis.stats import arithmetic, nearest_rank
from bench.analysis.summary import answers_per_user, measured_requests, summarize
from bench.core.cell import Arrival, Cell, Engine, Load, Protocol, ServerConfiguration
from bench.core.samples import Int64
from bench.core.trial import Plan, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.perf_analyzer.engine import PerfAnalyzerEngine
from bench.loadgen.perf_analyzer.install import find
from benchmarks.findings import Findings, Goal, Table, versions
from benchmarks.rig import LABELS, Rig, rig

DELAY_MS = 100.0  # what the backend adds to an execution, half a millisecond or more, is no part of the truth
ENGINES_DELAY_MS = 50.0
WARMUP_S = 0.5
THROUGHPUT_PERCENT, MEDIAN_MS = 2.0, 2.0  # goals
AGREE_PERCENT, AGREE_MS = 3.0, 2.0
WAIT_PERCENT = 10.0
UTILISATIONS = (0.5, 0.8)
QUEUE_MS = 5.0  # short, so that a minute holds thousands of arrivals
ON_THE_WAY_NS = 1_500_000  # no request takes longer to the server
QUEUE_WINDOWS = 6  # windows in a row; waits of neighbours are alike, so many are needed
SLOW_MODELS_MS = (700.0, 900.0, 1300.0)
SLOW_WINDOW_S = 3.0  # two to four answers of such a model, so that the window is lengthened
SLOW_PERCENT = 1.0
STALL_S, STALL_WINDOW_S, STALL_RATE_PER_S = 1.5, 30.0, 200

ABOUT = (
    "This page compares measurements with known true values, for everyone who wants to know whether the "
    "numbers of `bench` are right. The calibration model `delay` sleeps a known time per execution, so "
    "its true figures are known: k instances serve k requests per delay, a single request takes the "
    "delay, and under Poisson arrivals the mean wait is that of an M/D/1 queue. Throughput is measured "
    "with two users per instance (one request is always waiting), the median with one. Both engines are "
    f"interleaved within each round, with a delay of {ENGINES_DELAY_MS:g} ms. The service time of the "
    "queue is the mean time between answers where the next request was already waiting. The true wait "
    "is what exactly these arrivals would wait in the queue (Lindley's recursion); the value of the "
    "formula for infinite time is given beside it. Slow models: a window of "
    f"{SLOW_WINDOW_S:g} s holds two to four of their answers, so it is lengthened; a count of whole requests "
    "would be up to a third off, in every round alike. The truth is the rate at the measured service time, "
    f"and the interval must contain it. Stall: the server stops once for {STALL_S:g} s in "
    f"{STALL_WINDOW_S:g} s."
)


@dataclass(frozen=True, slots=True)
class Held:
    """A measured figure against the truth."""

    what: str
    truth: str
    measured: str
    off: str
    allowed: str
    met: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """What every measurement needs."""

    server: Rig
    engine: LocustEngine
    seconds: float
    rounds: int
    say: Callable[[str], None]

    def trial(
        self,
        load: Load,
        server: ServerConfiguration,
        *,
        seconds: float | None = None,
        seed: int = 1,
        by: Engine = Engine.LOCUST,
    ) -> Trial:
        """One trial on `server`; without `seconds` as long as the benchmark was asked for."""
        served = self.server.serve(server)
        cell = Cell(server=server, load=load, engine=by)
        build = partial(Plan, cell=cell, repeat=0, seed=seed, workers=1, warmup_s=WARMUP_S)
        plan = build(duration_s=seconds or self.seconds)
        if by is Engine.PERF_ANALYZER:
            return PerfAnalyzerEngine(find(), self.server.scratch).measure(plan, self.server.target, served)
        return self.engine.measure(plan, self.server.target, served)


def delay(instances: int = 1, /, **values: float) -> ServerConfiguration:
    parameters = tuple((name, f"{value:g}") for name, value in values.items())
    return ServerConfiguration(model="delay", instances=instances, parameters=parameters)


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    with rig(("delay",)) as server, LocustEngine() as engine:
        bench = Bench(server, engine, seconds, rounds, say)
        throughput = list(_throughput(bench))
        tables = {
            "Throughput and median": throughput,
            "Both engines": list(_engines(bench)),
            "Slow requests": list(_slow(bench)),
            "Slow models": list(_slow_models(bench)),
            "Waiting under Poisson arrivals": list(_queue(bench)),
            "A stall": list(_stall(bench)),
        }
        triton = server.triton_version()
    return Findings(
        name="truth",
        title="Truth: measurements on a server with known figures",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "rounds": rounds, "delay, ms": DELAY_MS},
        versions=versions(Triton=triton, perf_analyzer=find().version),
        tables=tuple(_table(title, rows) for title, rows in tables.items()),
        goals=tuple(_goal(title, rows) for title, rows in tables.items()),
        figures={title: [asdict(row) for row in rows] for title, rows in tables.items()},
    )


def closed(users: int, protocol: Protocol = Protocol.HTTP) -> Load:
    return Load(protocol=protocol, batch=1, concurrency=users)


def per_s(trial: Trial) -> float:
    return summarize(trial).throughput_req_per_s


def percentile_ms(trial: Trial, percent: float) -> float:
    return nearest_rank(summarize(trial).latencies_ns, percent) / 1e6


def _throughput(bench: Bench) -> Iterator[Held]:
    for protocol in Protocol:
        for k in (1, 2, 4):
            bench.say(f"{LABELS[protocol]}, {k} instances")
            server = delay(k, delay_ms=DELAY_MS)
            busy = [bench.trial(closed(2 * k, protocol), server) for _ in range(bench.rounds)]
            yield _relative(
                f"{LABELS[protocol]}, {k} instances: requests/s",
                k * 1e3 / DELAY_MS,
                [per_s(trial) for trial in busy],
                THROUGHPUT_PERCENT,
            )
            alone = [bench.trial(closed(k, protocol), server) for _ in range(bench.rounds)]
            medians = [percentile_ms(trial, 50) for trial in alone]
            yield _absolute(f"{LABELS[protocol]}, {k} instances: p50, ms", DELAY_MS, medians, MEDIAN_MS)


def _engines(bench: Bench) -> Iterator[Held]:
    for protocol in Protocol:
        server = delay(2, delay_ms=ENGINES_DELAY_MS)
        found: dict[Engine, list[Trial]] = {engine: [] for engine in Engine}
        for position in range(bench.rounds):
            for engine in Engine:
                bench.say(f"{LABELS[protocol]}, {engine}, round {position + 1}/{bench.rounds}")
                found[engine].append(bench.trial(closed(2, protocol), server, by=engine))
        ours, theirs = found[Engine.LOCUST], found[Engine.PERF_ANALYZER]
        speeds = [per_s(trial) for trial in theirs]
        yield _relative(
            f"{LABELS[protocol]}: requests/s, locust compared with perf_analyzer",
            float(np.mean(speeds)),
            [per_s(trial) for trial in ours],
            AGREE_PERCENT,
        )
        medians = [percentile_ms(trial, 50) for trial in ours]
        other = float(np.mean([percentile_ms(trial, 50) for trial in theirs]))
        yield _absolute(
            f"{LABELS[protocol]}: p50, ms, locust compared with perf_analyzer", other, medians, AGREE_MS
        )


def _slow(bench: Bench) -> Iterator[Held]:
    """2 % of executions take ten times as long: p95 is that of a fast one, p99 that of a slow one."""
    bench.say("2 % slow requests")
    server = delay(2, delay_ms=10, slow_fraction=0.02, slow_factor=10)
    trials = [bench.trial(closed(2), server) for _ in range(bench.rounds)]
    p95 = float(np.mean([percentile_ms(trial, 95) for trial in trials]))
    yield Held("p95, ms: that of a fast request", "10", f"{p95:.4g}", "", "under 20", p95 < 20)
    yield _absolute("p99, ms", 100.0, [percentile_ms(trial, 99) for trial in trials], MEDIAN_MS)


def _slow_models(bench: Bench) -> Iterator[Held]:
    """Throughput of models whose windows are lengthened, its interval, and whether a window was too short."""
    for delay_ms in SLOW_MODELS_MS:
        bench.say(f"a model of {delay_ms:g} ms")
        server, load = delay(1, delay_ms=delay_ms), closed(1)
        rounds = range(max(3, bench.rounds))  # an interval needs three
        trials = [bench.trial(load, server, seconds=SLOW_WINDOW_S, seed=seed) for seed in rounds]
        # What the backend and the connection add is milliseconds, and is in the service times.
        counted = [trial.samples.done_in(trial.window).good() for trial in trials]
        service_ns = np.concatenate([samples.service_ns for samples in counted]).mean()
        truth, name = 1e9 / float(service_ns), f"{delay_ms:g} ms"
        rates = [per_s(trial) for trial in trials]
        yield _relative(f"{name}: requests/s", truth, rates, SLOW_PERCENT)
        edges = float(np.mean([summarize(trial).edges_img_per_s for trial in trials]))
        found = arithmetic(rates, edges)
        low, high = (found.low or math.nan, found.high or math.nan) if found else (math.nan, math.nan)
        holds = low <= truth * 1.002 and truth * 0.998 <= high
        said = f"{low:.4g}-{high:.4g}"
        yield Held(f"{name}: interval of requests/s", f"{truth:.4g}", said, "", "contains it", holds)
        fewest = min(answers_per_user(trial) or 0.0 for trial in trials)
        enough = fewest >= LEAST_ANSWERS
        yield Held(
            f"{name}: answers in a window", "", f"{fewest:.3g}", "", f"{LEAST_ANSWERS:g} or more", enough
        )


def md1_wait_s(rate_per_s: float, service_s: float) -> float:
    """Mean wait before service, Poisson arrivals, constant service, one server; infinite from capacity on.

    Source: Pollaczek-Khinchine, W = rho s / (2 (1 - rho)).
    """
    utilisation = rate_per_s * service_s
    return utilisation * service_s / (2 * (1 - utilisation)) if utilisation < 1 else math.inf


def _queue(bench: Bench) -> Iterator[Held]:
    server = delay(1, delay_ms=QUEUE_MS)
    bench.say("capacity of the queue")
    capacity_per_s = per_s(bench.trial(closed(2), server))
    for utilisation in UTILISATIONS:
        rate = utilisation * capacity_per_s
        load = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=rate, arrival=Arrival.POISSON)
        trials = []
        for seed in range(1, bench.rounds + 1):
            bench.say(f"utilisation {utilisation:g}, tape {seed}/{bench.rounds}")
            trials.append(bench.trial(load, server, seconds=QUEUE_WINDOWS * bench.seconds, seed=seed))
        theory = float(np.mean([tape_wait_ms(trial) for trial in trials]))
        service_s = float(np.mean([service_ns(trial) for trial in trials])) / 1e9
        endless = (
            f"{rate:.0f}/s x {service_s * 1e3:.3f} ms; infinite time: {md1_wait_s(rate, service_s) * 1e3:.2f}"
        )
        waits = [waited_ms(trial) for trial in trials]
        yield _relative(
            f"utilisation {utilisation:g}: mean wait, ms ({endless})", theory, waits, WAIT_PERCENT
        )


def service_ns(trial: Trial) -> float:
    """Mean time from one answer to the next where the next was due well before: the server was busy."""
    order = np.argsort(trial.samples.done_ns)
    due_ns, done_ns = trial.samples.intended_ns[order], trial.samples.done_ns[order]
    waited = due_ns[1:] < done_ns[:-1] - ON_THE_WAY_NS
    return float(np.diff(done_ns)[waited].mean())


def waited_ms(trial: Trial) -> float:
    """Mean response time beyond the mean of those that found the server idle."""
    asked = measured_requests(trial)
    order = np.argsort(asked.intended_ns)
    due_ns, response_ns = asked.intended_ns[order], asked.response_ns[order]
    found_idle = due_ns[1:] > (due_ns + response_ns)[:-1]
    return float(response_ns.mean() - response_ns[1:][found_idle].mean()) / 1e6


def tape_wait_ms(trial: Trial) -> float:
    """Of the requests that were due in the window; those before it fill the queue."""
    due_ns = np.sort(trial.samples.intended_ns)
    waits = lindley_ns(due_ns, round(service_ns(trial)))
    inside = (due_ns >= trial.window.start_ns) & (due_ns < trial.window.end_ns)
    return float(waits[inside].mean()) / 1e6


def lindley_ns(due_ns: Int64, service_ns: int) -> NDArray[np.float64]:
    """Wait of each arrival at a single server: W(n+1) = max(0, W(n) + S - gap) (Lindley 1952)."""
    waits = [0]
    for gap in np.diff(due_ns).tolist():
        waits.append(max(0, waits[-1] + service_ns - gap))
    return np.array(waits, dtype=np.float64)


def _stall(bench: Bench) -> Iterator[Held]:
    """Whoever was due in the stall waited; a closed loop does not send, and so does not see it."""
    stall = {"delay_ms": 2.0, "stall_after_s": 10.0, "stall_s": STALL_S}
    bench.say("a stall, open loop")
    paced = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=STALL_RATE_PER_S, arrival=Arrival.CONSTANT)
    opened = bench.trial(paced, delay(1, **stall), seconds=STALL_WINDOW_S)
    bench.say("a stall, closed loop")
    again = delay(1, **stall, slow_factor=9)  # another configuration, so the model starts anew
    looped = bench.trial(closed(1), again, seconds=STALL_WINDOW_S)
    p99 = percentile_ms(opened, 99)
    yield Held("open loop: p99, ms", "over 1000", f"{p99:.0f}", "", "over 1000", p99 > 1000)
    p99 = percentile_ms(looped, 99)
    yield Held("closed loop: p99, ms", "under 1000", f"{p99:.1f}", "", "under 1000", p99 < 1000)
    kept = len(opened.samples)
    yield Held(
        "arrivals in the schedule = requests recorded", f"{opened.planned}", f"{kept}", "", "equal",
        opened.planned == kept,
    )  # fmt: skip


def _relative(what: str, truth: float, measured: Sequence[float], percent: float) -> Held:
    mean = float(np.mean(measured))
    off = (mean / truth - 1) * 100
    spread = f"{mean:.4g} ({min(measured):.4g}-{max(measured):.4g})"
    return Held(what, f"{truth:.4g}", spread, f"{off:+.1f} %", f"{percent:g} %", abs(off) <= percent)


def _absolute(what: str, truth: float, measured: Sequence[float], allowed: float) -> Held:
    mean = float(np.mean(measured))
    spread = f"{mean:.4g} ({min(measured):.4g}-{max(measured):.4g})"
    off = mean - truth
    return Held(what, f"{truth:.4g}", spread, f"{off:+.2f}", f"{allowed:g}", abs(off) <= allowed)


def _table(title: str, rows: Sequence[Held]) -> Table:
    columns = ("figure", "truth", "measured (lowest-highest round)", "difference", "allowed", "met")
    return Table(
        title,
        columns,
        tuple(
            (row.what, row.truth, row.measured, row.off, row.allowed, "yes" if row.met else "no")
            for row in rows
        ),
    )


def _goal(title: str, rows: Sequence[Held]) -> Goal:
    missed = [row for row in rows if not row.met]
    figure = f"{len(rows) - len(missed)} of {len(rows)}"
    return Goal(f"{title}: every figure within the allowed difference", figure, "no" if missed else "yes")
