"""How late requests leave: the real engine on a server that answers at once, and the bare alarm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.analysis.summary import measured_requests
from bench.core.cell import Load, Protocol
from bench.core.samples import Int64
from bench.core.trial import Trial
from bench.loadgen.arrivals import poisson
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.pacing import Alarm, Tape
from benchmarks.findings import Findings, Goal, Table, versions
from benchmarks.rig import LABELS, Rig, plan, rig

RATES_PER_S = (50, 500, 2000)
GOAL_MS = 1.0
GOAL_RATE_PER_S = 500
WARMUP_S = 0.5
ALARM = "timer alone"

ABOUT = (
    "This page shows how punctually requests are sent in an open loop, for everyone who uses `--rate`. "
    "Lateness is the time when a request is sent minus the time when its arrival was due. The arrivals "
    "are Poisson, from one process, on `null_small` (64 bytes), which an embedded Triton serves on the "
    "same machine. The timer alone is a single greenlet that waits for each arrival of such a schedule "
    "and sends nothing, so its lateness comes from the machine: where the timer alone misses a goal, "
    "the machine was too busy to decide. Each rate is measured once per round; the figures cover the "
    "requests of all rounds."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """Of one subject at one rate. `p99_by_round_ms`: how far rounds differ."""

    subject: str
    rate_per_s: int
    requests: int
    achieved_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    p99_by_round_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """One trial: lateness of each request in nanoseconds, and over how long."""

    lateness_ns: Int64
    seconds: float


Observations = dict[tuple[str, int], list[Observed]]


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    found: Observations = {}
    with rig(("null_small",)) as server, LocustEngine() as engine:
        for position in range(rounds):
            for rate in RATES_PER_S:
                say(f"round {position + 1}/{rounds}: {rate}/s")
                _observe(found, server, engine, rate, seconds, position)
        triton = server.triton_version()
    results = [lateness(*key, observed) for key, observed in sorted(found.items())]
    return Findings(
        name="pacing",
        title="Pacing: how late requests are sent",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "rounds": rounds},
        versions=versions(Triton=triton),
        tables=(_table(results),),
        goals=_goals(results),
        figures=[asdict(result) for result in results],
    )


def _observe(
    found: Observations, server: Rig, engine: LocustEngine, rate: int, seconds: float, seed: int
) -> None:
    found.setdefault((ALARM, rate), []).append(bare_alarm(rate, seconds, seed))
    for protocol in Protocol:
        load = Load(protocol=protocol, batch=1, rate_per_s=float(rate))
        asked = plan("null_small", load, seconds=seconds, warmup_s=WARMUP_S, seed=seed)
        trial = engine.measure(asked, server.target, server.served["null_small"])
        found.setdefault((LABELS[protocol], rate), []).append(_observed(trial))


def _observed(trial: Trial) -> Observed:
    return Observed(measured_requests(trial).lateness_ns, trial.window.seconds)


def bare_alarm(rate_per_s: float, seconds: float, seed: int) -> Observed:
    """Waiting for each arrival of a tape, and nothing else."""
    alarm, late_ns = Alarm(), []
    tape = Tape(poisson(rate_per_s, seconds, seed).tolist(), time.monotonic_ns() + 10_000_000)
    try:
        while (due_ns := tape.take()) is not None:
            alarm.wait_until(due_ns)
            late_ns.append(time.monotonic_ns() - due_ns)
    finally:
        alarm.close()
    return Observed(np.array(late_ns, dtype=np.int64), seconds)


def lateness(subject: str, rate: int, observed: Sequence[Observed]) -> Lateness:
    late_ms = np.concatenate([one.lateness_ns for one in observed]) / 1e6
    return Lateness(
        subject=subject,
        rate_per_s=rate,
        requests=len(late_ms),
        achieved_per_s=len(late_ms) / sum(one.seconds for one in observed),
        p50_ms=float(np.percentile(late_ms, 50)),
        p99_ms=float(np.percentile(late_ms, 99)),
        max_ms=float(late_ms.max()),
        p99_by_round_ms=tuple(float(np.percentile(one.lateness_ns / 1e6, 99)) for one in observed),
    )


def _table(results: Sequence[Lateness]) -> Table:
    return Table(
        "Lateness",
        ("subject", "arrivals/s", "requests", "sent/s", "p50 ms", "p99 ms", "max ms", "p99 ms by round"),
        tuple(
            (
                result.subject,
                f"{result.rate_per_s:,}",
                f"{result.requests:,}",
                f"{result.achieved_per_s:,.0f}",
                f"{result.p50_ms:.3f}",
                f"{result.p99_ms:.3f}",
                f"{result.max_ms:.2f}",
                f"{min(result.p99_by_round_ms):.2f}-{max(result.p99_by_round_ms):.2f}",
            )
            for result in results
        ),
    )


def _goals(results: Sequence[Lateness]) -> tuple[Goal, ...]:
    rates = [rate for rate in RATES_PER_S if rate <= GOAL_RATE_PER_S]
    return tuple(_goal(rate, [r for r in results if r.rate_per_s == rate]) for rate in rates)


def _goal(rate: int, results: Sequence[Lateness]) -> Goal:
    """Open where the alarm alone misses it too: then the machine was not idle."""
    worst = max((r for r in results if r.subject != ALARM), key=lambda result: result.p99_ms)
    alone = next(r for r in results if r.subject == ALARM)
    said = "yes" if worst.p99_ms < GOAL_MS else "open" if alone.p99_ms >= GOAL_MS else "no"
    figure = f"{worst.p99_ms:.3f} ms ({worst.subject}); {ALARM} {alone.p99_ms:.3f} ms"
    return Goal(f"p99 under {GOAL_MS:g} ms at {rate}/s", figure, said)
