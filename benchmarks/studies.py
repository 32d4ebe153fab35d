"""Whole studies on a real server: two equal cells, a capacity search, and a generator at its limit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import checks
from bench.arrivals import poisson
from bench.cell import Cell, Load, Protocol, ServerConfiguration
from bench.locust_engine import LocustEngine
from bench.machine import usable_cores
from bench.stats import Interval, geometric, nearest_rank
from bench.summary import summarize
from bench.trial import Plan, Trial
from benchmarks.findings import ROOT, Findings, Goal, Table, interval_text, versions
from benchmarks.rig import Rig, rig

STUDIES, REPEATS = 3, 5
USERS = 64
WARMUP_S = 0.5
SERVICE_MS, SLO_MS = 3.0, 25.0
CAPACITY_PERCENT = 5.0
_COMMAND_TIMEOUT_S = 2400.0  # of twenty probes, the longest of two minutes

ABOUT = (
    "A/A: the same cell (`null_vit`, batch 8, HTTP, 4 users) as two, five repeats each, in seeded random "
    "order; the 95 % intervals of throughput and p50 have to overlap, in every study. Search: "
    f"`bench search --slo p99={SLO_MS:g}ms --longest-probe 120s` on `delay` with {SERVICE_MS:g} ms; the true "
    "capacity is that of the simulated queue with the service time and the time on the way as measured here. "
    f"Client-bound: the 64-byte model with {USERS} users in one process has to be labelled so, and "
    "`--processes auto` has to take more of them."
)


@dataclass(frozen=True, slots=True)
class AA:
    """One study: intervals of the two equal cells."""

    measure: str
    one: Interval
    other: Interval

    @property
    def overlap(self) -> bool:
        ends = (self.one.low, self.one.high, self.other.low, self.other.high)
        low, high, other_low, other_high = (float("nan") if end is None else end for end in ends)
        return low <= other_high and other_low <= high


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    del rounds  # the studies' own repeats are what is studied
    with rig(("null_vit", "null_small", "delay")) as server, LocustEngine() as engine:
        studies = [study for i in range(STUDIES) for study in _aa(server, engine, seconds, i, say)]
        bound = _client_bound(server, engine, seconds, say)
        say("service time of the busy server")
        service_ms, on_the_way_ms = _service(server, engine, seconds)
        triton = server.triton_version()
    say("bench search")
    search = _search()
    truth = capacity(service_ms, SLO_MS - on_the_way_ms)
    return Findings(
        name="studies",
        title="Studies: equal cells, a known capacity, a generator at its limit",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "studies": STUDIES, "repeats": REPEATS},
        versions=versions(Triton=triton),
        tables=(
            _aa_table(studies),
            _search_table(search, truth, service_ms, on_the_way_ms),
            _bound_table(bound),
        ),
        goals=(_aa_goal(studies), _search_goal(search, truth), _bound_goal(bound)),
        figures={
            "aa": [asdict(study) for study in studies],
            "search": {**search, "truth_per_s": truth, "service_ms": service_ms},
            "client_bound": bound,
        },
    )


def _plan(server: ServerConfiguration, load: Load, seconds: float, workers: int) -> Plan:
    cell = Cell(server=server, load=load)
    return Plan(cell=cell, repeat=0, seed=1, warmup_s=WARMUP_S, duration_s=seconds, workers=workers)


def _aa(
    server: Rig, engine: LocustEngine, seconds: float, study: int, say: Callable[[str], None]
) -> Iterator[AA]:
    load = Load(protocol=Protocol.HTTP, batch=8, concurrency=4)
    plan = _plan(ServerConfiguration(model="null_vit"), load, seconds, 1)
    order = np.random.default_rng(study).permutation(np.repeat([0, 1], REPEATS))
    found: dict[int, list[Trial]] = {0: [], 1: []}
    for position, which in enumerate(order.tolist()):
        say(f"A/A study {study + 1}/{STUDIES}, trial {position + 1}/{2 * REPEATS}")
        found[which].append(engine.measure(plan, server.target, server.served["null_vit"]))
    for name, measure in (("requests/s", _per_s), ("p50, ms", _p50_ms)):
        one, other = (geometric([measure(trial) for trial in found[which]]) for which in (0, 1))
        if one is None or other is None:
            raise RuntimeError(f"an A/A study has no interval of {name}: a trial answered nothing")
        yield AA(name, one, other)


def _per_s(trial: Trial) -> float:
    return summarize(trial).throughput_req_per_s


def _p50_ms(trial: Trial) -> float:
    return nearest_rank(summarize(trial).latencies_ns, 50) / 1e6


def _client_bound(
    server: Rig, engine: LocustEngine, seconds: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    found = []
    for protocol in Protocol:
        load = Load(protocol=protocol, batch=1, concurrency=USERS)
        for asked in (1, 0):
            say(f"{USERS} users, {protocol}, {'auto' if asked == 0 else asked} processes")
            plan = _plan(ServerConfiguration(model="null_small"), load, seconds, asked)
            trial = engine.measure(plan, server.target, server.served["null_small"])
            entry = {
                "protocol": protocol.value,
                "processes asked": "auto" if asked == 0 else str(asked),
                "processes": trial.generator.workers,
                "requests/s": _per_s(trial),
                "busiest process, % of a core": checks.busiest_worker(trial) * 100,
                "client-bound": any(f.code == "client-bound" for f in checks.judge(trial)),
            }
            found.append(entry)
    return found


def _service(server: Rig, engine: LocustEngine, seconds: float) -> tuple[float, float]:
    """Time between answers of the busy server, and what a lone request takes beyond it; in ms."""
    configuration = ServerConfiguration(
        model="delay", instances=1, parameters=(("delay_ms", f"{SERVICE_MS:g}"),)
    )
    served = server.serve(configuration)

    def trial(users: int) -> Trial:
        load = Load(protocol=Protocol.HTTP, batch=1, concurrency=users)
        return engine.measure(_plan(configuration, load, seconds, 1), server.target, served)

    service_ms = 1e3 / _per_s(trial(2))
    return service_ms, max(0.0, _p50_ms(trial(1)) - service_ms)


def _search() -> dict[str, Any]:
    """The command, as a user types it."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        words = (
            f"--model delay --instances 1 --parameter delay_ms={SERVICE_MS:g} --slo p99={SLO_MS:g}ms --json"
        )
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "search", *words.split(), "--out", str(Path(scratch) / "run")],
            cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S,
        )  # fmt: skip
    if not ended.stdout:
        raise RuntimeError(f"bench search ended with {ended.returncode}:\n{ended.stderr}")
    (found,) = json.loads(ended.stdout)
    return {**found, "exit_code": ended.returncode}


def capacity(service_ms: float, bound_ms: float, percent: float = 99.0) -> float:
    """The highest Poisson rate a second whose percentile of response holds, by bisection on long tapes."""
    low, high = 0.1e3 / service_ms, 1e3 / service_ms
    for _ in range(12):
        middle = (low + high) / 2
        holds = _simulated_ms(middle, service_ms, percent) <= bound_ms
        low, high = (middle, high) if holds else (low, middle)
    return low


def _simulated_ms(rate_per_s: float, service_ms: float, percent: float) -> float:
    """Percentile of response time of a single server with a constant service time."""
    due_ns = poisson(rate_per_s, 400_000 / rate_per_s, 99)
    free_ns, service_ns, taken = 0, round(service_ms * 1e6), []
    for due in due_ns.tolist():
        free_ns = max(free_ns, due) + service_ns
        taken.append(free_ns - due)
    return float(np.percentile(taken, percent)) / 1e6


def _aa_table(studies: Sequence[AA]) -> Table:
    rows = [
        (
            f"{position // 2 + 1}",
            study.measure,
            interval_text(study.one),
            interval_text(study.other),
            "yes" if study.overlap else "no",
        )
        for position, study in enumerate(studies)
    ]
    return Table("A/A", ("study", "figure", "one", "the other", "overlap"), tuple(rows))


def _search_table(search: dict[str, Any], truth: float, service_ms: float, on_the_way_ms: float) -> Table:
    found = search["rate_per_s"]
    high = search["rate_per_s_high"]
    rows = (
        ("service time as measured, ms", f"{service_ms:.3f}"),
        ("on the way, beyond it, ms", f"{on_the_way_ms:.3f}"),
        ("true capacity, requests/s", f"{truth:.1f}"),
        ("found, requests/s", "none" if found is None else f"{found:.1f}"),
        ("lowest rate above it that missed", "none" if high is None else f"{high:.1f}"),
        ("off", "" if found is None else f"{(found / truth - 1) * 100:+.1f} %"),
        ("probes", f"{len(search['probes'])}"),
    )
    return Table(f"bench search --slo p99={SLO_MS:g}ms on `delay`", ("figure", "value"), rows)


def _bound_table(bound: Sequence[dict[str, Any]]) -> Table:
    def text(value: Any) -> str:
        return "yes" if value is True else "no" if value is False else (
            f"{value:,.0f}" if isinstance(value, float) else str(value)
        )  # fmt: skip

    rows = tuple(tuple(text(value) for value in entry.values()) for entry in bound)
    return Table(f"{USERS} users on the 64-byte model, {usable_cores()} cores", tuple(bound[0]), rows)


def _aa_goal(studies: Sequence[AA]) -> Goal:
    held = sum(study.overlap for study in studies)
    return Goal(
        "equal cells have overlapping intervals",
        f"{held} of {len(studies)}",
        "yes" if held == len(studies) else "no",
    )


def _search_goal(search: dict[str, Any], truth: float) -> Goal:
    found = search["rate_per_s"]
    off = None if found is None else (found / truth - 1) * 100
    return Goal(
        f"the search finds the capacity within {CAPACITY_PERCENT:g} %",
        "nothing found" if off is None else f"{off:+.1f} %",
        "yes" if off is not None and abs(off) <= CAPACITY_PERCENT else "no",
    )


def _bound_goal(bound: Sequence[dict[str, Any]]) -> Goal:
    """Labelled with one process; `auto` takes more of them."""
    pairs = list(zip(bound[::2], bound[1::2], strict=True))
    held = sum(one["client-bound"] and auto["processes"] > 1 for one, auto in pairs)
    return Goal(
        "client-bound is labelled, and --processes auto changes it",
        f"{held} of {len(pairs)} protocols",
        "yes" if held == len(pairs) else "no",
    )
