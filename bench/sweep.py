"""An experiment made of trials: every cell, in rounds, grouped by server configuration.

A trial that cannot be measured ends as a named failure of its cells; the sweep goes on. Only a dead
target or a full disk ends it, and what was measured is on disk by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol as Interface

from bench.cell import Cell, Engine, ServerConfiguration
from bench.errors import ModelLoadFailed, TargetError, ToolError, Unreachable
from bench.machine import Sampler, Sensor
from bench.run import RunFolder
from bench.serving import Serving
from bench.spec import AUTO_LONGEST_S, AUTO_SHORTEST_S, SweepSpec, Turn
from bench.trial import Live, Plan, Served, Target, Trial

OnLive = Callable[[Live], None]
Measure = Callable[[Plan, Target, Served, OnLive], Trial]


class Progress(Interface):
    """Somebody who watches. Each call says what begins or has just happened."""

    def configuring(self, server: ServerConfiguration) -> None: ...
    def measuring(self, turn: Turn, done: int, total: int, seconds_left: float) -> None: ...
    def live(self, turn: Turn, live: Live) -> None: ...
    def measured(self, trial: Trial) -> None: ...
    def failed(self, cells: tuple[Cell, ...], reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Sweep:
    spec: SweepSpec
    serving: Serving
    target: Target
    folder: RunFolder
    engines: Mapping[Engine, Measure]
    sensors: Callable[[], list[Sensor]]
    refer: Callable[[Served], Served]  # adds the reference answers, where they can be had
    progress: Progress

    def run(self) -> None:
        """Measure everything that is not in the folder yet.

        Raises Unreachable when the target is gone; what was measured stays.
        """
        for server in self.spec.configurations():
            if self.is_measured(server):
                continue
            try:
                served = self.configure(server)
            except ModelLoadFailed as error:
                self.fail_to_load(server, error)
                continue
            for turns in self.spec.rounds(server):
                self.measure_round(turns, served)
        self.finish()

    def is_measured(self, server: ServerConfiguration) -> bool:
        return all(self._is_done(turn) for turns in self.spec.rounds(server) for turn in turns)

    def configure(self, server: ServerConfiguration) -> Served:
        """Loaded, read back, written down, and with its reference answers. Raises ModelLoadFailed."""
        self.progress.configuring(server)
        served = self.serving.configure(server)
        record = self.folder.record
        configs = {**record.served, server.key: dict(served.config)}
        self.folder.write_record(replace(record, served=configs))
        return self.refer(served)

    def fail_to_load(self, server: ServerConfiguration, error: ModelLoadFailed) -> None:
        self._fail(tuple(c for c in self.spec.cells() if c.server == server), str(error))

    def measure_round(self, turns: tuple[Turn, ...], served: Served) -> None:
        for turn in turns:
            if not self._is_done(turn):
                self._measure(turn, served)

    def finish(self) -> None:
        self.folder.write_record(replace(self.folder.record, finished_at=utc_now()))

    def _measure(self, turn: Turn, served: Served) -> None:
        done, total = self._count()
        self.progress.measuring(turn, done, total, (total - done) * self.spec.trial_s())
        try:
            with Sampler(self.sensors()) as sampler:
                trial = self.engines[turn.cell.engine](
                    self.plan(turn),
                    served.target or self.target,
                    served,
                    lambda live: self.progress.live(turn, live),
                )
        except (ToolError, TargetError) as error:
            if isinstance(error, Unreachable) or not self.serving.triton.live():
                raise
            self._fail((turn.cell,), str(error))
            return
        self.folder.write_trial(replace(trial, machine=sampler.series()))
        self.progress.measured(trial)

    def plan(self, turn: Turn) -> Plan:
        spec = self.spec
        return Plan(
            cell=turn.cell,
            repeat=turn.repeat,
            seed=spec.seed_of(turn),
            warmup_s=spec.warmup_s,
            duration_s=AUTO_SHORTEST_S if spec.auto_duration else spec.duration_s,
            longest_s=AUTO_LONGEST_S if spec.auto_duration else None,
            image_height=spec.image_height,
            image_width=spec.image_width,
            timeout_s=spec.timeout_s,
            check_fraction=spec.check_fraction,
            workers=spec.workers or spec.processes,
        )

    def _is_done(self, turn: Turn) -> bool:
        return self.folder.has_trial(turn.cell.key, turn.repeat)

    def _count(self) -> tuple[int, int]:
        turns = self.spec.turns()
        return sum(map(self._is_done, turns)), len(turns)

    def _fail(self, cells: tuple[Cell, ...], reason: str) -> None:
        record = self.folder.record
        failed = {**record.failed, **{cell.key: reason for cell in cells}}
        self.folder.write_record(replace(record, failed=failed))
        self.progress.failed(cells, reason)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
