"""Our users against perf_analyzer: the same server, the same requests, interleaved, one process each."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np

from bench.analysis.summary import server_times, summarize
from bench.core.cell import Engine, Load, Protocol
from bench.core.errors import BenchError
from bench.core.trial import Live, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.perf_analyzer.engine import PerfAnalyzerEngine
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, find
from benchmarks import compared, memory
from benchmarks.compared import Compared, Measured, Row
from benchmarks.findings import Findings, versions
from benchmarks.rig import Rig, plan, rig

USERS = (1, 4, 16)
MODELS = (("null_small", 1), ("null_vit", 1), ("null_vit", 8), ("null_vit", 32))
WARMUP_S = 1.0
_SEED = 1
OURS, THEIRS = Engine.LOCUST, Engine.PERF_ANALYZER

ABOUT = (
    "This page compares the load generator of `bench` with perf_analyzer, for everyone who has to "
    "choose between them. Our HTTP and gRPC users (Locust, one process) and perf_analyzer (one process) "
    "load one embedded Triton whose models answer at once: `null_small` receives and returns 64 bytes, "
    "`null_vit` receives 602 KB and returns 605 KB per image. Every round measures each row with both "
    "generators, one directly after the other; the order alternates from round to round. A ratio is the "
    "geometric mean of the ratios of all rounds, with its 95 % interval. Our users check the frame of "
    "every answer and the values of 1 %; perf_analyzer checks none. Client and server share the cores "
    "of the machine, so a generator that uses less CPU leaves more for the server. The ceiling is an "
    "estimate, not a measurement: the ratio if our client used no CPU and the server kept its speed. "
    "With one user, the CPU time of the client is subtracted from each round trip; with more users, it "
    "is given to the server, as if all cores were busy."
)

Pair = dict[Engine, Measured]


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    tool = find()
    with rig(("null_small", "null_vit")) as server:
        pairs, failed = _measure(server, tool, seconds, rounds, say)
        growth = memory.run(server, max(10.0, 3 * seconds), say)
        triton = server.triton_version()
    both = [_compared(row, found) for row, found in pairs.items() if found]
    return Findings(
        name="generator",
        title="The load generator compared with perf_analyzer",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "rounds": rounds, "seed": _SEED},
        versions=versions(Triton=triton, perf_analyzer=tool.version),
        tables=(*compared.tables(both), *compared.failures(failed), memory.table(growth)),
        goals=(*compared.goals(both), memory.goal(growth)),
        figures={
            "rows": [compared.figures(entry) for entry in both],
            "failures": failed,
            "memory": [asdict(entry) for entry in growth],
        },
    )


def rows() -> tuple[Row, ...]:
    axes = itertools.product(MODELS, Protocol, USERS)
    return tuple(Row(model, batch, protocol, users) for (model, batch), protocol, users in axes)


def order(rounds: int) -> Iterator[tuple[Row, tuple[Engine, Engine]]]:
    """Each row once a round, in seeded random order; who comes first changes from round to round."""
    for position in range(rounds):
        shuffled = list(rows())
        random.Random(f"{_SEED}/{position}").shuffle(shuffled)
        for row in shuffled:
            yield row, (OURS, THEIRS) if position % 2 == 0 else (THEIRS, OURS)


def _measure(
    server: Rig, tool: PerfAnalyzer, seconds: float, rounds: int, say: Callable[[str], None]
) -> tuple[dict[Row, list[Pair]], list[str]]:
    """Pairs of trials by row; a row that one of the two cannot do is told, with the reason."""
    found: dict[Row, list[Pair]] = {row: [] for row in rows()}
    failures: list[str] = []
    total = len(found) * rounds
    for position, (row, engines) in enumerate(order(rounds), start=1):
        try:
            pair = {engine: _trial(server, tool, row, engine, seconds) for engine in engines}
        except BenchError as error:
            failures.append(f"{' '.join(row.name)} users: {error}")
            say(f"[{position}/{total}] {failures[-1]}")
            continue
        found[row].append(pair)
        failures += [f"{' '.join(row.name)} users: {n} requests failed with {engine}"
                     for engine, trial in pair.items() if (n := trial.failed)]  # fmt: skip
        say(f"[{position}/{total}] {' '.join(row.name)} users: {_said(pair)}")
    return found, failures


def _trial(server: Rig, tool: PerfAnalyzer, row: Row, engine: Engine, seconds: float) -> Measured:
    load = Load(protocol=row.protocol, batch=row.batch, concurrency=row.users)
    asked = plan(row.model, load, seconds=seconds, warmup_s=WARMUP_S)
    served = server.served[row.model]
    if engine is THEIRS:
        asked = replace(asked, cell=replace(asked.cell, engine=engine))
        trial = PerfAnalyzerEngine(tool, server.scratch).measure(asked, server.target, served)
        return measured(trial, trial.generator.max_rss_bytes)
    with LocustEngine() as ours:  # as fresh a process as perf_analyzer's
        peak = _Peak(ours)
        trial = ours.measure(asked, server.target, served, peak)
    return measured(trial, max(peak.rss_bytes, trial.generator.max_rss_bytes))


class _Peak:
    """The most resident memory of an engine's workers, looked at whenever a trial shows itself."""

    def __init__(self, engine: LocustEngine) -> None:
        self._engine = engine
        self.rss_bytes = 0

    def __call__(self, _: Live) -> None:
        self.rss_bytes = max(self.rss_bytes, *(memory.rss_bytes(pid) for pid in self._engine.pids))


def measured(trial: Trial, rss: int) -> Measured:
    summary, server = summarize(trial), server_times(trial.counters)
    done = summary.requests + summary.errors
    latencies_ms = summary.latencies_ns / 1e6 if len(summary.latencies_ns) else np.zeros(1)
    p50_ms, mean_ms = float(np.median(latencies_ms)), float(np.mean(latencies_ms))
    server_ms = server.total_ms if server else 0.0
    return Measured(
        requests_per_s=summary.throughput_req_per_s,
        cpu_us=sum(trial.generator.cpu_s) / max(1, done) * 1e6,
        p50_ms=p50_ms,
        server_ms=server_ms,
        overhead_ms=p50_ms - server_ms,
        mean_overhead_ms=mean_ms - server_ms,
        rss_bytes=rss,
        failed=summary.errors,
    )


def _compared(row: Row, pairs: Sequence[Pair]) -> Compared:
    return Compared(row, *(tuple(pair[engine] for pair in pairs) for engine in (OURS, THEIRS)))


def _said(pair: Pair) -> str:
    ours, theirs = pair[OURS], pair[THEIRS]
    ratio = ours.requests_per_s / max(theirs.requests_per_s, 1e-9)
    return f"{ours.requests_per_s:.0f}/s against {theirs.requests_per_s:.0f}/s, {ratio:.2f}x"
