"""Do many workers measure what one measures? Local Locust workers on a known server, and on a fast one."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from bench.analysis.stats import Interval, geometric, nearest_rank, paired_ratio
from bench.analysis.summary import mean_of, summarize
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.target import Target
from bench.core.trial import Plan, Served, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.locust.remote_workers import RemoteWorkers
from bench.sensors import host as machine
from benchmarks import client_bound
from benchmarks.findings import Findings, Goal, Table, interval_text, versions
from benchmarks.rig import rig

COUNTS = (1, 2, 4, 8)
WARMUP_S = 1.0
USERS = 16  # at least one for each worker
DELAY_MS, DELAY_INSTANCES = 50.0, 4
FULL_PERCENT = 90.0  # of all cores together: no worker more can add anything
_SEED = 1
KNOWN, FAST = "delay", client_bound.MODEL
_KNOWN = ServerConfiguration(
    model=KNOWN, instances=DELAY_INSTANCES, parameters=(("delay_ms", f"{DELAY_MS:g}"),)
)

ABOUT = (
    "This page shows that one worker and many workers measure the same, for everyone who uses "
    "`--workers`. `bench sweep --workers N` runs with local processes: Locust's master and N workers, "
    f"started again for each trial, {USERS} users over HTTP. `delay` sleeps {DELAY_MS:g} ms per "
    f"execution in {DELAY_INSTANCES} instances, so {DELAY_INSTANCES * 1000 / DELAY_MS:g} requests per "
    "second are the true value for any number of workers. `null_small` is answered from Triton's "
    "response cache and every answer is compared, so the worker is the bottleneck until the machine is. "
    "Each round measures every row once, in seeded order. Intervals are 95 % over rounds; a ratio "
    "compares trials of the same round. Workers and servers share the cores."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One trial."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    fullest_percent: float  # of a core: the worker that took most
    busy_percent: float  # of all cores
    failed: int


Rows = Mapping[tuple[str, int], Sequence[Measured]]  # by model and count of workers


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    found: dict[tuple[str, int], list[Measured]] = {
        row: [] for row in itertools.product((KNOWN, FAST), COUNTS)
    }
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch,
        rig((KNOWN,)) as server,
        client_bound.server(Path(scratch), cached=True) as fast,
    ):
        known = server.serve(_KNOWN)
        for position, (model, count) in enumerate(order(rounds), start=1):
            plan = _plan(model, count, seconds)
            target, served = (server.target, known) if model == KNOWN else fast
            measured = _measured(_trial(plan, target, served, server.scratch))
            found[model, count].append(measured)
            said = f"{model}, {count} workers: {measured.requests_per_s:.0f}/s"
            say(f"[{position}/{rounds * len(found)}] {said}")
        triton = server.triton_version()
    return Findings(
        name="workers",
        title="Workers: one worker and many workers measure the same",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "rounds": rounds, "users": USERS, "seed": _SEED},
        versions=versions(Triton=triton),
        tables=tables(found),
        goals=goals(found),
        figures={
            f"{model} {count}": [asdict(one) for one in trials] for (model, count), trials in found.items()
        },
    )


def order(rounds: int) -> Iterator[tuple[str, int]]:
    """Each row once a round."""
    for position in range(rounds):
        shuffled = list(itertools.product((KNOWN, FAST), COUNTS))
        random.Random(f"{_SEED}/{position}").shuffle(shuffled)
        yield from shuffled


def _plan(model: str, count: int, seconds: float) -> Plan:
    server = _KNOWN if model == KNOWN else ServerConfiguration(model=model)
    load = Load(protocol=Protocol.HTTP, batch=1, concurrency=USERS)
    return Plan(
        cell=Cell(server=server, load=load), repeat=0, seed=_SEED, warmup_s=WARMUP_S, duration_s=seconds,
        workers=count, check_fraction=0.01 if model == KNOWN else 1.0,
    )  # fmt: skip


def _trial(plan: Plan, target: Target, served: Served, scratch: Path) -> Trial:
    pool = partial(RemoteWorkers, plan.workers, None)
    with (
        LocustEngine(scratch / "locust.log", pool) as engine,
        machine.Sampler(machine.host_sensors()) as sampler,
    ):
        trial = engine.measure(plan, target, served)
    return replace(trial, machine=sampler.series())


def _measured(trial: Trial) -> Measured:
    summary = summarize(trial)
    p50_ms, p99_ms = (nearest_rank(summary.latencies_ns, percent) / 1e6 for percent in (50, 99))
    return Measured(
        requests_per_s=summary.throughput_req_per_s,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        fullest_percent=max(trial.generator.cpu_s) / trial.window.seconds * 100,
        busy_percent=mean_of(trial, "cpu_busy_percent") or 0.0,
        failed=summary.errors,
    )


def tables(rows: Rows) -> tuple[Table, ...]:
    columns = ("workers", "requests/s", "ratio to 1 worker", "p50 ms", "p99 ms",
               "busiest worker, % of a core", "machine busy, %", "failed")  # fmt: skip
    return tuple(
        Table(title, columns, tuple(_line(rows, model, count) for count in COUNTS), note)
        for model, title, note in (
            (
                KNOWN,
                "A server whose throughput is known",
                "Means have an interval where there are at least three rounds.",
            ),
            (
                FAST,
                "A server that answers at once",
                "The machine is busy with workers, master and servers together.",
            ),
        )
    )


def _line(rows: Rows, model: str, count: int) -> tuple[str, ...]:
    trials = rows[model, count]
    ratio = paired_ratio(_column(rows[model, 1], "requests_per_s"), _column(trials, "requests_per_s"))
    return (
        str(count),
        interval_text(_interval(trials, "requests_per_s")),
        interval_text(ratio),
        interval_text(_interval(trials, "p50_ms")),
        interval_text(_interval(trials, "p99_ms")),
        f"{_mean(trials, 'fullest_percent'):.0f}",
        f"{_mean(trials, 'busy_percent'):.0f}",
        str(sum(trial.failed for trial in trials)),
    )


def goals(rows: Rows) -> tuple[Goal, ...]:
    return (
        _same(rows, "requests_per_s", "requests/s"),
        _same(rows, "p50_ms", "p50"),
        _grows(rows),
        _none_failed(rows),
    )


def _same(rows: Rows, figure: str, name: str) -> Goal:
    """The acceptance of distributed load: 2, 4 and 8 as one."""
    one = _interval(rows[KNOWN, 1], figure)
    others = [_interval(rows[KNOWN, count], figure) for count in COUNTS[1:]]
    apart = [
        n for n, other in zip(COUNTS[1:], others, strict=True) if not (one and other and one.overlaps(other))
    ]
    text = f"{KNOWN}: {name} of 2, 4 and 8 workers, intervals overlap those of 1 worker"
    if one is None or one.low is None:
        return Goal(text, "fewer than three rounds: no intervals", "open")
    worst = max((abs(other.value / one.value - 1) for other in others if other), default=0.0)
    said = f"difference at most {worst:.2%}" + (
        f"; no overlap with {', '.join(map(str, apart))}" if apart else ""
    )
    return Goal(text, said, "no" if apart else "yes")


def _grows(rows: Rows) -> Goal:
    """Each doubling gains, until the machine has no core left to gain with."""
    text = f"{FAST}: throughput grows with workers until the cores are full ({FULL_PERCENT:g} % busy)"
    said, verdicts = [], []
    for fewer, more in itertools.pairwise(COUNTS):
        if _mean(rows[FAST, fewer], "busy_percent") >= FULL_PERCENT:
            said.append(f"cores full with {fewer}")
            break
        gain = paired_ratio(*(_column(rows[FAST, count], "requests_per_s") for count in (fewer, more)))
        said.append(f"{fewer} to {more}: {interval_text(gain)}")
        verdicts.append(_gained(gain))
    met = "no" if "no" in verdicts else "open" if "open" in verdicts else "yes"
    return Goal(text, "; ".join(said), met)


def _gained(gain: Interval | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return "open"
    return "yes" if gain.low > 1 else "no" if gain.high < 1 else "open"


def _none_failed(rows: Rows) -> Goal:
    failed = sum(trial.failed for trials in rows.values() for trial in trials)
    return Goal("no request fails", f"{failed} failed", "no" if failed else "yes")


def _interval(trials: Sequence[Measured], figure: str) -> Interval | None:
    return geometric(_column(trials, figure))


def _column(trials: Sequence[Measured], figure: str) -> list[float]:
    return [float(getattr(trial, figure)) for trial in trials]


def _mean(trials: Sequence[Measured], figure: str) -> float:
    return sum(_column(trials, figure)) / max(1, len(trials))
