"""The engines: what makes the load of a trial and measures it, each behind one interface.

To add an engine: write a class like `Engine`, give it a member of `core.cell.Engine`, and a line in
`ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.core import cell
from bench.core.target import Target
from bench.core.trial import Live, Plan, Served, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.locust.local_workers import LocalWorkers
from bench.loadgen.locust.worker_pool import WorkerPool
from bench.loadgen.perf_analyzer.engine import PerfAnalyzerEngine
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, find


class Engine(Protocol):
    """Measures one trial after another."""

    def measure(self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:
        """One trial of `plan.cell`. `on_live` is called a few times a second while it runs.

        Raises ToolError when the engine fails, TargetError when the server does.
        """

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes on this host that make load now: what they cost is measured beside a trial."""

    def close(self) -> None:
        """End whatever the engine has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What engines are made from."""

    scratch: Path  # a folder for their files, which somebody else removes
    log: Path | None = None  # of Locust's workers; None: nobody wants to read it
    worker_pool: Callable[[Path], WorkerPool] = LocalWorkers
    tool: PerfAnalyzer | None = None  # None: looked for when it is needed


ENGINES: dict[cell.Engine, Callable[[Setup], Engine]] = {
    cell.Engine.LOCUST: lambda setup: LocustEngine(setup.log, setup.worker_pool),
    cell.Engine.PERF_ANALYZER: lambda setup: PerfAnalyzerEngine(setup.tool or find(), setup.scratch),
}


class Engines:
    """Several engines as one: a plan is measured by the engine that its cell names.

    Use as a context manager, or `close` it. Raises ToolError when one of them cannot be made.
    """

    def __init__(self, names: Iterable[cell.Engine], setup: Setup) -> None:
        self._engines: dict[cell.Engine, Engine] = {}
        self._stack = ExitStack()
        with ExitStack() as opened:
            for name in dict.fromkeys(names):
                self._engines[name] = ENGINES[name](setup)
                opened.callback(self._engines[name].close)
            self._stack = opened.pop_all()

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(
        self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None] = lambda _: None
    ) -> Trial:
        return self._engines[plan.cell.engine].measure(plan, target, served, on_live)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(pid for engine in self._engines.values() for pid in engine.pids)

    def close(self) -> None:
        self._stack.close()
