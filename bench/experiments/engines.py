"""The engines that a run measures with: Locust always, perf_analyzer where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.core.cell import Engine
from bench.core.spec import SweepSpec
from bench.core.target import Target
from bench.core.trial import Plan, Served, Trial
from bench.experiments.sweep import Measure, OnLive
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.locust.local_workers import WorkerProcesses
from bench.loadgen.locust.remote_workers import AttachedWorkers
from bench.loadgen.locust.worker import Crew
from bench.loadgen.perf_analyzer import engine as perf_analyzer
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, find


def worker_pool(workers: int, master: tuple[str, int] | None) -> Callable[[Path], Crew]:
    """What makes the pool of workers, once there is a log to write to.

    `workers` 0: processes of our own. `master`: where workers on other machines find us; None: they are
    started here.
    """
    return partial(AttachedWorkers, workers, master) if workers else WorkerProcesses


def tool_for(specs: Sequence[SweepSpec], binary: Path | None) -> PerfAnalyzer | None:
    """The perf_analyzer that these specs need; None where none does. Raises ToolError where none runs."""
    is_needed = any(Engine.PERF_ANALYZER in spec.engines for spec in specs)
    return find(binary) if is_needed else None


def engines_of(locust: LocustEngine, tool: PerfAnalyzer | None, scratch: Path) -> dict[Engine, Measure]:
    """How a trial is measured with each engine. `scratch`: for perf_analyzer's files."""
    engines: dict[Engine, Measure] = {Engine.LOCUST: locust.measure}
    if tool is not None:
        engines[Engine.PERF_ANALYZER] = partial(_with_perf_analyzer, tool, scratch)
    return engines


def _with_perf_analyzer(
    tool: PerfAnalyzer, folder: Path, plan: Plan, target: Target, served: Served, on_live: OnLive
) -> Trial:
    return perf_analyzer.measure(plan, target, served, tool, folder=folder, on_live=on_live)
