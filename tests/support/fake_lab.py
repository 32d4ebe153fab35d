"""Everything around a trial runner faked but the run folder: a server, an engine, somebody who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from bench.core.cell import Cell, ServerConfiguration
from bench.core.errors import ModelLoadFailed, ServerStartFailed, Unreachable
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.samples import Outcome, Samples, Window
from bench.core.spec import PlannedTrial, SweepSpec
from bench.core.target import Target
from bench.core.trial import Generator, Live, Plan, Reference, Served, Trial
from bench.experiments.trial_runner import TrialRunner
from bench.server.serving import Serving

CRASH = "tritonserver crashed (SIGSEGV)."
REFERENCE = Reference("answers.npz", "the model answers with its input", 0.0, 0.0)


@dataclass
class FakeTriton:
    is_live: bool = True
    died: str = ""  # why; one of ours
    stays_dead: bool = False
    target: Target = field(default_factory=lambda: Target("http://h:1"))

    def live(self) -> bool:
        return self.is_live

    def revive(self) -> str:
        if self.stays_dead:
            raise ServerStartFailed("3 times did not start again")
        why, self.died = self.died, ""
        return why


@dataclass
class FakeServing:
    """Loads anything but configurations with `refuses` instances; dies while it loads `dies_of` instances."""

    refuses: int | None = None
    dies_of: int | None = None
    triton: FakeTriton = field(default_factory=FakeTriton)
    loaded: list[ServerConfiguration] = field(default_factory=list)
    on_load: Callable[[], None] = lambda: None
    afresh: int = 0  # loads that had the model unloaded before

    def configure(self, server: ServerConfiguration, *, afresh: bool = False) -> Served:
        self.loaded.append(server)
        self.afresh += afresh
        self.on_load()
        if server.instances is not None and server.instances == self.refuses:
            raise ModelLoadFailed("no memory left")
        if server.instances is not None and server.instances == self.dies_of:
            self.triton.died = CRASH
            raise Unreachable("nothing answers")
        return Served({"name": server.model}, {"max_batch_size": 64, "loaded": server.key})


def one_answer(_: Plan) -> Samples:
    return Samples.of([(1, 2, 3, Outcome.OK)])


@dataclass
class FakeEngine:
    """Answers at once; `fails` decides which trial raises what, `samples` and `window` what it measures."""

    fails: Callable[[Plan], BaseException | None] = lambda _: None
    samples: Callable[[Plan], Samples] = one_answer
    window: Callable[[Plan], Window] = lambda _: Window(0, 10)
    stalled_s: Callable[[Plan], float] = lambda _: 0.0  # of its one worker, in the window
    measured: list[Plan] = field(default_factory=list)
    seen: list[Served] = field(default_factory=list)

    def measure(self, plan: Plan, _target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:
        self.measured.append(plan)
        self.seen.append(served)
        on_live(Live(0.5, 1, 2.0, 1e6))
        error = self.fails(plan)
        if error is not None:
            raise error
        return Trial(
            plan=plan,
            window=self.window(plan),
            samples=self.samples(plan),
            errors={},
            generator=Generator(workers=1, cpu_s=(0.0,), max_rss_bytes=1, stalled_s=(self.stalled_s(plan),)),
        )

    @property
    def pids(self) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        pass


@dataclass
class Watcher:
    said: list[tuple[str, Any]] = field(default_factory=list)

    def configuring(self, server: ServerConfiguration) -> None:
        self.said.append(("configuring", server))

    def measuring(self, planned: PlannedTrial, done: int, total: int, seconds_left: float) -> None:
        self.said.append(("measuring", (planned, done, total, seconds_left)))

    def live(self, planned: PlannedTrial, live: Live) -> None:
        self.said.append(("live", (planned, live)))

    def measured(self, trial: Trial) -> None:
        self.said.append(("measured", trial))

    def remark(self, cell: Cell, text: str) -> None:
        self.said.append(("remark", (cell, text)))

    def failed(self, cells: tuple[Cell, ...], reason: str) -> None:
        self.said.append(("failed", (cells, reason)))

    def all(self, kind: str) -> list[Any]:
        return [what for said, what in self.said if said == kind]


@dataclass
class Lab:
    """`runner`: on a faked server, engine and watcher, and a real run folder."""

    folder: RunFolder
    spec: SweepSpec
    serving: FakeServing = field(default_factory=FakeServing)
    engine: FakeEngine = field(default_factory=FakeEngine)
    progress: Watcher = field(default_factory=Watcher)

    @classmethod
    def at(
        cls, path: Path, spec: SweepSpec, *, planned: tuple[Cell, ...] | None = None, slo: str = ""
    ) -> Lab:
        record = RunRecord(
            name="r", created_at="", command=(), seed=1, spec={}, machine={}, versions={}, target="embedded",
            planned=spec.cells() if planned is None else planned, slo=slo,
        )  # fmt: skip
        return cls(RunFolder.create(path, record), spec)

    @property
    def runner(self) -> TrialRunner:
        """A new one, as a new process would have it."""
        return TrialRunner(
            spec=self.spec,
            serving=cast(Serving, self.serving),
            folder=self.folder,
            engine=self.engine,
            sensors=lambda: [lambda: {"cpu_busy_percent": 50.0}],
            refer=lambda served: replace(served, reference=REFERENCE),
            progress=self.progress,
        )

    @property
    def order(self) -> list[tuple[str, int]]:
        return [(plan.cell.key, plan.repeat) for plan in self.engine.measured]

    def dies(self, when: Callable[[Plan], bool]) -> None:
        """The server dies in these trials, and the engine notices."""

        def fails(plan: Plan) -> Exception | None:
            if not when(plan):
                return None
            self.serving.triton.died = CRASH
            return Unreachable("nothing answers")

        self.engine.fails = fails
