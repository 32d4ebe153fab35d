"""What the engines of a run are made from: who makes the load, and perf_analyzer where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.core.cell import Engine
from bench.core.spec import SweepSpec
from bench.loadgen.locust.local_workers import LocalWorkers
from bench.loadgen.locust.remote_workers import RemoteWorkers
from bench.loadgen.locust.worker_pool import WorkerPool
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, find


def worker_pool(workers: int, master: tuple[str, int] | None) -> Callable[[Path], WorkerPool]:
    """What makes the pool of workers, once there is a log to write to.

    `workers` 0: processes of our own. `master`: where workers on other machines find us; None: they are
    started here.
    """
    return partial(RemoteWorkers, workers, master) if workers else LocalWorkers


def tool_for(specs: Sequence[SweepSpec], binary: Path | None) -> PerfAnalyzer | None:
    """The perf_analyzer that these specs need; None where none does. Raises ToolError where none runs."""
    is_needed = any(Engine.PERF_ANALYZER in spec.engines for spec in specs)
    return find(binary) if is_needed else None
