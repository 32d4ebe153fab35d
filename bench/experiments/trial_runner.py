"""Run one trial at a time on a Triton under test: every experiment measures through a `TrialRunner`.

The runner loads the server configuration that a trial needs, verifies and writes down what is served, adds
the reference answers, runs the engine with the sensors beside it, and writes the trial into the run folder.
What cannot be measured is a `NotMeasured` that names the reason: the experiment goes on with something else.
A server of ours that dies is started again; a configuration with which it dies MOST_CRASHES times is given
up. Errors that end the whole experiment pass through: a target elsewhere that does not answer any more
(Unreachable), a server of ours that does not start again (ServerStartFailed).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench.analysis.checks.evidence import PERCENTILE
from bench.analysis.checks.load import is_stalled, stalled
from bench.core.cell import Cell, ServerConfiguration
from bench.core.errors import (
    DeadlineReached,
    ModelLoadFailed,
    ServerDied,
    ServerStartFailed,
    TargetError,
    ToolError,
    Unreachable,
)
from bench.core.run_folder import Crash, Discarded, RunFolder
from bench.core.slo import parse_slo
from bench.core.spec import AUTO_LONGEST_S, AUTO_SHORTEST_S, PlannedTrial, Reload, SweepSpec
from bench.core.target import Target
from bench.core.trial import Plan, Reference, Served, Trial
from bench.experiments.progress import Progress
from bench.loadgen.engine import Engine
from bench.protocols.routes import route_record
from bench.sensors import host, nvml, triton_metrics
from bench.server.control import Triton
from bench.server.reference_answers import refer
from bench.server.serving import Serving
from bench.server.session import Session

# A trial whose load generator stood still is measured again at most so often; the last one is kept as it is.
MOST_AGAIN = 2
# A server that died so often with one configuration loaded is not started with it again.
MOST_CRASHES = 2


class NotMeasured(Exception):
    """One trial, or every trial of a configuration, could not be measured; the message is the reason.

    `may_repeat`: the server died during this trial and is up again, so the same trial can be tried again.
    """

    def __init__(self, reason: str, *, may_repeat: bool = False) -> None:
        super().__init__(reason)
        self.may_repeat = may_repeat


@dataclass(slots=True, kw_only=True)
class TrialRunner:
    """Trials of one model on one server, in one run folder.

    `loaded`: by model, the runner that loaded it last, in which configuration, and what was served then. A
    model stays loaded until another configuration is needed. Runners that share a server share this mapping.
    """

    spec: SweepSpec
    serving: Serving
    folder: RunFolder
    engine: Engine
    sensors: Callable[[], list[host.Sensor]]
    refer: Callable[[Served], Served]  # adds the reference answers, where there are any
    progress: Progress
    ends_at_s: float = math.inf  # of the monotonic clock: no trial begins that would end later
    loaded: dict[str, tuple[TrialRunner, ServerConfiguration, Served]] = field(
        default_factory=dict, repr=False
    )
    _references: dict[str, Reference | None] = field(default_factory=dict)  # by key of the configuration
    _given_up: dict[str, str] = field(default_factory=dict)  # the reason by key of the configuration
    _crashes: Counter[str] = field(default_factory=Counter)  # by key of the configuration

    @classmethod
    def on(
        cls,
        target: Session,
        spec: SweepSpec,
        folder: RunFolder,
        engine: Engine,
        progress: Progress,
        scratch: Path,
    ) -> TrialRunner:
        """A runner on an opened target, with all sensors and with reference answers kept in `scratch`."""
        return cls(
            spec=spec,
            serving=target.serving,
            folder=folder,
            engine=engine,
            sensors=lambda: sensors_of(target.target, lambda: engine.pids),
            refer=partial(refer, height=spec.image_height, width=spec.image_width, folder=scratch),
            progress=progress,
        )

    def served(self, server: ServerConfiguration) -> Served:
        """Load a configuration, unless it is loaded; return what the server reports, with reference answers.

        A server that dies meanwhile is started again and the load repeated. Raises NotMeasured when the
        configuration does not load, or is given up: then at once, every time it is asked for.
        """
        while server.key not in self._given_up:
            runner, configuration, served = self.loaded.get(server.model, (None, None, None))
            if runner is self and configuration == server and served is not None:
                return served
            try:
                self._load(server)
            except ModelLoadFailed as error:
                self._given_up[server.key] = str(error)
            except ServerDied:
                continue  # it runs again, and the crash is counted
        raise NotMeasured(self._given_up[server.key])

    def measure(
        self,
        planned: PlannedTrial,
        duration_s: float | None = None,
        warmup_s: float | None = None,
        into: RunFolder | None = None,
    ) -> Trial:
        """Measure one trial and write it into the run folder. `duration_s`, `warmup_s`: not the spec's.

        One whose load generator stood still is measured again, and the run folder says so.
        `into`: instead of the folder, such as its part for fresh trials.
        Raises NotMeasured as `served`, and when the engine fails or the server dies during the trial, and
        DeadlineReached where the trial would not end before `ends_at_s`.
        """
        if time.monotonic() + self.spec.trial_s() > self.ends_at_s:
            raise DeadlineReached(
                "The --deadline was reached before everything was measured: --resume goes on from here."
            )
        try:
            plan = self.plan(planned, duration_s, warmup_s)
            trial = self._measured(planned, self.served(planned.cell.server), plan)
            while is_stalled(trial) and self._may_discard(trial):
                trial = self._measured(planned, self.served(planned.cell.server), plan)
        except ServerDied as error:
            raise NotMeasured(str(error), may_repeat=True) from error
        except (ToolError, TargetError) as error:
            if self._is_over(error):
                raise
            raise NotMeasured(str(error)) from error
        (into or self.folder).write_trial(trial)
        return trial

    def _may_discard(self, trial: Trial) -> bool:
        """Write down why a stalled trial is measured again. False when that was done MOST_AGAIN times."""
        key, repeat = trial.cell.key, trial.plan.repeat
        before = [d for d in self.folder.record.discarded if (d.key, d.repeat) == (key, repeat)]
        if len(before) >= MOST_AGAIN:
            return False
        reason = next(finding.seen for finding in stalled(trial))
        self.folder.add_discarded(Discarded(key, repeat, reason))
        self.progress.remark(trial.cell, f"measured again. {reason}")
        return True

    def begin_repeat(self) -> None:
        """What is loaded is loaded again for the trials of a further repeat, if the spec asks for that."""
        if self.spec.reload is Reload.REPEAT:
            self.loaded.pop(self.spec.model, None)

    def plan(
        self, planned: PlannedTrial, duration_s: float | None = None, warmup_s: float | None = None
    ) -> Plan:
        """What the engine is asked for."""
        spec = self.spec
        shortest_s = AUTO_SHORTEST_S if spec.auto_duration else spec.duration_s
        return Plan(
            cell=planned.cell,
            repeat=planned.repeat,
            seed=spec.seed_of(planned),
            warmup_s=spec.warmup_s if warmup_s is None else warmup_s,
            duration_s=shortest_s if duration_s is None else duration_s,
            longest_s=AUTO_LONGEST_S if spec.auto_duration else None,
            percent=_asked_percent(self.folder.record.slo),
            image_height=spec.image_height,
            image_width=spec.image_width,
            timeout_s=spec.timeout_s,
            max_answer_bytes=spec.max_answer_bytes,
            check_fraction=spec.check_fraction,
            workers=spec.workers or spec.processes,
            limit_s=spec.trial_timeout_s,
        )

    def fail(self, cells: tuple[Cell, ...], reason: str) -> None:
        """Write down, and tell whoever watches, that these cells could not be measured."""
        self.folder.add_failed(cells, reason)
        self.progress.failed(cells, reason)

    def _load(self, server: ServerConfiguration) -> None:
        """Raises ModelLoadFailed, ServerDied, Unreachable, ServerStartFailed."""
        self.progress.configuring(server)
        self.loaded.pop(server.model, None)
        self._raise_if_dead(server, server.key)
        try:
            served = self.serving.configure(server, afresh=self.spec.reload is Reload.REPEAT)
        except Unreachable:
            self._raise_if_dead(server, server.key)
            raise
        self.folder.add_served(server.key, served.config)
        if server.key not in self._references:  # right answers are the same each time it is loaded
            self._references[server.key] = self.refer(served).reference
        served = replace(served, reference=self._references[server.key])
        self.loaded[server.model] = (self, server, served)

    def _measured(self, planned: PlannedTrial, served: Served, plan: Plan) -> Trial:
        """One trial with the sensors' series. Raises ServerDied also when the server died in the drain."""
        cell = planned.cell
        target = served.target or self.serving.triton.target
        try:
            with host.Sampler(self.sensors()) as sampler:
                trial = self.engine.measure(
                    plan,
                    target,
                    served,
                    lambda live: self.progress.live(planned, live),
                )
        except (ToolError, TargetError):
            self._raise_if_dead(cell.server, cell.key)
            raise
        self._raise_if_dead(cell.server, cell.key)
        engine = {**trial.engine, **route_record(target, cell.load)}
        return replace(trial, machine=sampler.series(), engine=engine)

    def _is_over(self, error: Exception) -> bool:
        """Whether nothing more can be measured."""
        return isinstance(error, Unreachable | ServerStartFailed) or not self.serving.triton.live()

    def _raise_if_dead(self, server: ServerConfiguration, key: str) -> None:
        """Start a dead server of ours again, write that down, and raise ServerDied.

        `key`: of the cell or configuration it was busy with. Raises ServerStartFailed when it stays dead.
        """
        reason = self.serving.triton.revive()
        if not reason:
            return
        self.loaded.clear()
        self.folder.add_crash(Crash(key, reason))
        self._crashes[server.key] += 1
        if self._crashes[server.key] >= MOST_CRASHES:
            self._given_up[server.key] = (
                f"The server died {MOST_CRASHES} times with this configuration, so it was given up. {reason}"
            )
        raise ServerDied(reason)


def sensors_of(target: Target, client_pids: Callable[[], Iterable[int]]) -> list[host.Sensor]:
    """The sensors beside a trial: of this host, the GPU wherever it is, the server, and the load's makers."""
    # NVML sees only this machine's GPUs; a server elsewhere tells of its own on its metrics page.
    gpu = (nvml.sensors() if triton_metrics.is_here(target) else []) or triton_metrics.sensors(
        target, partial(_metrics, target)
    )
    pid = target.pid
    server = [] if pid is None else [host.process_sensor("server_cpu_cores", lambda: [pid])]
    return [*host.host_sensors(), *gpu, *server, host.process_sensor("client_cpu_cores", client_pids)]


def _metrics(target: Target, timeout_s: float) -> str:
    """The server's page of metrics, or ""."""
    with closing(Triton(target)) as control:
        return control.metrics(timeout_s)


def _asked_percent(slo: str) -> float:
    """The highest percentile that is asked for, since it needs the most samples; at least p99."""
    asked = parse_slo(slo).latencies if slo else ()
    return max([PERCENTILE, *(percent for percent, _ in asked)])
