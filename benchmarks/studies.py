"""Whole studies on a real server: two equal cells, a capacity search, and a generator at its limit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np

from bench.analysis.stats import Interval, geometric, nearest_rank
from bench.analysis.summary import summarize
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.samples import Int64, Samples
from bench.core.trial import Plan, Trial
from bench.loadgen.arrivals import poisson
from bench.loadgen.locust.engine import LocustEngine
from benchmarks import client_bound
from benchmarks.findings import ROOT, Findings, Goal, Table, interval_text, versions
from benchmarks.rig import Rig, rig

STUDIES, REPEATS = 3, 5
WARMUP_S = 0.5
INSTANCES, SERVICE_MS, SLO_MS = 4, 12.0, 60.0  # long beside what a noisy machine adds to each request
CAPACITY_PERCENT = 5.0
LEAST_SERVICE_S = 20.0  # enough of them that the rare long ones are among them
LIKE_THAT = 0.85  # of what the busy server makes: the capacity is about there, and so is its speed
SIMULATED = 300_000  # requests
_COMMAND_TIMEOUT_S = 2400.0  # of twenty probes, the longest of two minutes

ABOUT = (
    "This page shows three complete studies on a real server, for everyone who wants to know how far to "
    "trust comparisons, capacity searches and the `client-bound` label. A/A: the same cell (one server "
    "configuration under one load: `null_vit`, batch 8, HTTP, 4 users) is measured as if it were two "
    "cells, with five repeats each, in seeded random order. The 95 % intervals of throughput and p50 "
    f"must overlap in every study. Search: `bench search --slo p99={SLO_MS:g}ms` runs on {INSTANCES} "
    f"instances of `delay` with {SERVICE_MS:g} ms. The true capacity is that of a simulated queue with "
    "the service times that were measured immediately before. " + client_bound.ABOUT
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
    with rig(("null_vit", "delay")) as server, LocustEngine() as engine:
        studies = [study for i in range(STUDIES) for study in _aa(server, engine, seconds, i, say)]
        say("service times")
        services_ns = _service(server, engine, seconds)
        triton = server.triton_version()
    bound = client_bound.measure(seconds, say)
    say("bench search")
    search = _search()
    truth = capacity(services_ns, INSTANCES, SLO_MS)
    return Findings(
        name="studies",
        title="Studies: equal cells, a known capacity, a load generator at its limit",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "studies": STUDIES, "repeats": REPEATS},
        versions=versions(Triton=triton),
        tables=(
            _aa_table(studies),
            _search_table(search, truth, services_ns),
            client_bound.table(bound),
        ),
        goals=(_aa_goal(studies), _search_goal(search, truth), client_bound.goal(bound)),
        figures={
            "aa": [asdict(study) for study in studies],
            "search": {**search, "truth_per_s": truth, "service_ms": float(services_ns.mean()) / 1e6},
            "client_bound": [asdict(each) for each in bound],
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


def _service(server: Rig, engine: LocustEngine, seconds: float) -> Int64:
    """What an instance spends on each request at a load like the one in question, in ns."""
    configuration = ServerConfiguration(
        model="delay", instances=INSTANCES, parameters=(("delay_ms", f"{SERVICE_MS:g}"),)
    )
    served = server.serve(configuration)

    def trial(load: Load, seconds: float) -> Trial:
        return engine.measure(_plan(configuration, load, seconds, 1), server.target, served)

    most = _per_s(trial(Load(protocol=Protocol.HTTP, batch=1, concurrency=2 * INSTANCES), seconds))
    rate = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=round(LIKE_THAT * most, 1))
    return services_of(trial(rate, LEAST_SERVICE_S).samples, INSTANCES)


def services_of(samples: Samples, servers: int) -> Int64:
    """First come first served by `servers`: one starts the next request when it is there and one of them is
    free (Kiefer and Wolfowitz, 1955), so what it took is known from when each was sent and done."""
    free_ns = [0] * servers
    order = np.argsort(samples.sent_ns, kind="stable")
    services_ns = np.empty(len(order), np.int64)
    ends = zip(samples.sent_ns[order].tolist(), samples.done_ns[order].tolist(), strict=True)
    for i, (sent, done) in enumerate(ends):
        services_ns[i] = done - max(sent, heappop(free_ns))
        heappush(free_ns, done)
    return services_ns[servers:]


def _search() -> dict[str, Any]:
    """The command, as a user types it."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        words = (
            f"--model delay --instances {INSTANCES} --parameter delay_ms={SERVICE_MS:g} "
            f"--slo p99={SLO_MS:g}ms --json"
        )
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "search", *words.split(), "--out", str(Path(scratch) / "run")],
            cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S,
        )  # fmt: skip
    if not ended.stdout:
        raise RuntimeError(f"bench search ended with {ended.returncode}:\n{ended.stderr}")
    (found,) = json.loads(ended.stdout)
    return {**found, "exit_code": ended.returncode}


def capacity(services_ns: Int64, servers: int, bound_ms: float, percent: float = 99.0) -> float:
    """The highest Poisson rate a second whose percentile of response holds, by bisection on long tapes."""
    per_s = servers * 1e9 / float(services_ns.mean())
    low, high = 0.1 * per_s, per_s
    for _ in range(10):
        middle = (low + high) / 2
        holds = _simulated_ms(middle, services_ns, servers, percent) <= bound_ms
        low, high = (middle, high) if holds else (low, middle)
    return low


def _simulated_ms(rate_per_s: float, services_ns: Int64, servers: int, percent: float) -> float:
    """Percentile of response time of servers that take these times, over and over."""
    due_ns = poisson(rate_per_s, SIMULATED / rate_per_s, 99)
    taken_ns = np.resize(services_ns, len(due_ns))
    free_ns = [0] * servers
    response_ns = np.empty(len(due_ns), np.int64)
    for i, (due, taken) in enumerate(zip(due_ns.tolist(), taken_ns.tolist(), strict=True)):
        done = max(due, heappop(free_ns)) + taken
        heappush(free_ns, done)
        response_ns[i] = done - due
    return float(np.percentile(response_ns, percent)) / 1e6


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
    return Table(
        "A/A: two equal cells",
        ("study", "figure", "first cell", "second cell", "intervals overlap"),
        tuple(rows),
    )


def _search_table(search: dict[str, Any], truth: float, services_ns: Int64) -> Table:
    rows = (
        ("measured service time, ms", f"{services_ns.mean() / 1e6:.3f}"),
        ("its standard deviation, ms", f"{services_ns.std() / 1e6:.3f}"),
        ("true capacity, requests/s", f"{truth:.1f}"),
        ("capacity estimate: the SLO is just met, requests/s", _rate(search, "edge_per_s")),
        ("its 95 % interval", f"{_rate(search, 'edge_per_s_low')}-{_rate(search, 'edge_per_s_high')}"),
        ("difference of the estimate from the truth", _percent(_off(search["edge_per_s"], truth))),
        ("answer: the SLO is met, requests/s", _rate(search, "rate_per_s")),
        ("difference of the answer from the truth", _percent(_off(search["rate_per_s"], truth))),
        ("probes", f"{len(search['probes'])}"),
    )
    return Table(f"bench search --slo p99={SLO_MS:g}ms on `delay`", ("figure", "value"), rows)


def _rate(search: dict[str, Any], name: str) -> str:
    return "none" if search[name] is None else f"{search[name]:.1f}"


def _off(found: float | None, truth: float) -> float | None:
    return None if found is None else (found / truth - 1) * 100


def _percent(off: float | None) -> str:
    return "nothing found" if off is None else f"{off:+.1f} %"


def _aa_goal(studies: Sequence[AA]) -> Goal:
    held = sum(study.overlap for study in studies)
    return Goal(
        "equal cells have overlapping intervals",
        f"{held} of {len(studies)}",
        "yes" if held == len(studies) else "no",
    )


def _search_goal(search: dict[str, Any], truth: float) -> Goal:
    off = _off(search["rate_per_s"], truth)
    return Goal(
        f"the search finds the capacity within {CAPACITY_PERCENT:g} %",
        _percent(off),
        "yes" if off is not None and abs(off) <= CAPACITY_PERCENT else "no",
    )
