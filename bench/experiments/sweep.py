"""An experiment made of trials: every cell, in rounds, grouped by server configuration.

A trial that cannot be measured ends as a named failure of its cells; the sweep goes on. A server of ours
that dies is started again, and its configuration given up when it dies of that twice. Only a dead target
elsewhere or a full disk ends it, and what was measured is on disk by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from bench.analysis.checks.evidence import PERCENTILE
from bench.core.cell import Cell, Engine, ServerConfiguration
from bench.core.errors import (
    ModelLoadFailed,
    ServerDied,
    ServerStartFailed,
    TargetError,
    ToolError,
    Unreachable,
)
from bench.core.run_folder import Crash, RunFolder
from bench.core.slo import parse_slo
from bench.core.spec import AUTO_LONGEST_S, AUTO_SHORTEST_S, SweepSpec, Turn
from bench.core.target import Target
from bench.core.trial import Live, Plan, Served, Trial
from bench.experiments.progress import Progress
from bench.sensors.host import Sampler, Sensor
from bench.server.fleet import way_of
from bench.server.serving import Serving

MOST_CRASHES = 2  # of a server in one configuration

OnLive = Callable[[Live], None]
Measure = Callable[[Plan, Target, Served, OnLive], Trial]


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
    _tried: set[Turn] = field(default_factory=set)  # and failed
    _crashes: Counter[str] = field(default_factory=Counter)  # by configuration

    def run(self) -> None:
        """Measure everything that is not in the folder yet.

        Raises Unreachable when the target is gone, ServerStartFailed when one of ours does not come up again;
        what was measured stays.
        """
        for server in self.spec.configurations():
            while not self.is_measured(server):
                try:
                    self._measure_all(server)
                except ServerDied as error:
                    if not self.gives_up(server, error):
                        continue
                break
        self.finish()

    def _measure_all(self, server: ServerConfiguration) -> None:
        try:
            served = self.configure(server)
        except ModelLoadFailed as error:
            self.fail_to_load(server, error)
            return
        for turns in self.spec.rounds(server):
            self.measure_round(turns, served)

    def gives_up(self, server: ServerConfiguration, error: ServerDied) -> bool:
        """Whether the server died of this configuration once too often; then the rest of it has failed."""
        self._crashes[server.key] += 1
        if self._crashes[server.key] < MOST_CRASHES:
            return False
        turns = [turn for of_round in self.spec.rounds(server) for turn in of_round]
        left = tuple(dict.fromkeys(turn.cell for turn in turns if not self._is_over(turn)))
        if left:
            self._fail(left, f"The server died {MOST_CRASHES} times of this configuration, given up. {error}")
        return True

    def is_measured(self, server: ServerConfiguration) -> bool:
        return all(self._is_done(turn) for turns in self.spec.rounds(server) for turn in turns)

    def configure(self, server: ServerConfiguration) -> Served:
        """Loaded, read back, written down, and with its reference answers.

        Raises as `load`.
        """
        self.progress.configuring(server)
        served = self.load(server)
        record = self.folder.record
        configs = {**record.served, server.key: dict(served.config)}
        self.folder.write_record(replace(record, served=configs))
        return self.refer(served)

    def load(self, server: ServerConfiguration) -> Served:
        """Raises ModelLoadFailed, and ServerDied as `raise_if_dead`."""
        self.raise_if_dead(server.key)
        try:
            return self.serving.configure(server)
        except Unreachable:
            self.raise_if_dead(server.key)
            raise

    def fail_to_load(self, server: ServerConfiguration, error: ModelLoadFailed) -> None:
        self._fail(tuple(c for c in self.spec.cells() if c.server == server), str(error))

    def measure_round(self, turns: tuple[Turn, ...], served: Served) -> None:
        for turn in turns:
            if not self._is_over(turn):
                self._measure(turn, served)

    def finish(self) -> None:
        self.folder.write_record(replace(self.folder.record, finished_at=utc_now()))

    def _measure(self, turn: Turn, served: Served) -> None:
        done, total = self._count()
        self.progress.measuring(turn, done, total, (total - done) * self.spec.trial_s())
        try:
            trial = self.trial(turn, self.plan(turn), served)
        except (ToolError, TargetError) as error:
            died = isinstance(error, ServerDied)
            if not died and self.is_gone(error):
                raise
            self._tried.add(turn)
            self._fail((turn.cell,), str(error))
            if died:
                raise
            return
        self.folder.write_trial(trial)
        self.progress.measured(trial)

    def trial(self, turn: Turn, plan: Plan, served: Served) -> Trial:
        """One trial, with the machine's series beside it. Raises ServerDied as `raise_if_dead`."""
        target = served.target or self.target
        try:
            with Sampler(self.sensors()) as sampler:
                trial = self.engines[turn.cell.engine](
                    plan, target, served, lambda live: self.progress.live(turn, live)
                )
        except (ToolError, TargetError):
            self.raise_if_dead(turn.cell.key)
            raise
        self.raise_if_dead(turn.cell.key)
        engine = {**trial.engine, **way_of(target, turn.cell.load)}
        return replace(trial, machine=sampler.series(), engine=engine)

    def is_gone(self, error: Exception) -> bool:
        """Whether nothing more can be measured."""
        return isinstance(error, Unreachable | ServerStartFailed) or not self.serving.triton.live()

    def raise_if_dead(self, key: str) -> None:
        """Starts a dead server of ours again, writes that down, and raises ServerDied.

        `key`: of the cell or configuration it was busy with. Raises ServerStartFailed when it stays dead.
        """
        why = self.serving.triton.revive()
        if why:
            record = self.folder.record
            self.folder.write_record(replace(record, crashes=(*record.crashes, Crash(key, why))))
            raise ServerDied(why)

    def plan(self, turn: Turn) -> Plan:
        spec = self.spec
        return Plan(
            cell=turn.cell,
            repeat=turn.repeat,
            seed=spec.seed_of(turn),
            warmup_s=spec.warmup_s,
            duration_s=AUTO_SHORTEST_S if spec.auto_duration else spec.duration_s,
            longest_s=AUTO_LONGEST_S if spec.auto_duration else None,
            percent=_asked_percent(self.folder.record.slo),
            image_height=spec.image_height,
            image_width=spec.image_width,
            timeout_s=spec.timeout_s,
            check_fraction=spec.check_fraction,
            workers=spec.workers or spec.processes,
        )

    def _is_done(self, turn: Turn) -> bool:
        return self.folder.has_trial(turn.cell.key, turn.repeat)

    def _is_over(self, turn: Turn) -> bool:
        return turn in self._tried or self._is_done(turn)

    def _count(self) -> tuple[int, int]:
        turns = self.spec.turns()
        return sum(map(self._is_done, turns)), len(turns)

    def _fail(self, cells: tuple[Cell, ...], reason: str) -> None:
        record = self.folder.record
        failed = {**record.failed, **{cell.key: reason for cell in cells}}
        self.folder.write_record(replace(record, failed=failed))
        self.progress.failed(cells, reason)


def _asked_percent(slo: str) -> float:
    """The highest one, which needs the most samples; p99 at least, as `too-few-samples` has it."""
    asked = parse_slo(slo).latencies if slo else ()
    return max([PERCENTILE, *(percent for percent, _ in asked)])


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
