"""Points of a configuration space measured on a real server, one trial at a time, in the run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.analysis import aggregate
from bench.analysis.recommendation import Holds, Limit, holds
from bench.analysis.stats import samples_needed
from bench.cli.progress import ConsoleProgress
from bench.cluster.deploy.model_patch import config_map, config_text, mlservice_patch
from bench.core.cell import Cell, Engine, ServerConfiguration
from bench.core.errors import ModelLoadFailed, ServerDied, TargetError, ToolError
from bench.core.run_folder import RunFolder
from bench.core.slo import Slo
from bench.core.spec import SweepSpec, Turn
from bench.core.trial import Served, Trial
from bench.experiments.sensors import sensors
from bench.experiments.sweep import MOST_CRASHES, Sweep
from bench.experiments.tune import answer
from bench.experiments.tune.history import Point, Reading, Space, Stop
from bench.experiments.tune.space import cell_of
from bench.loadgen.locust.engine import LocustEngine
from bench.server import model_config
from bench.server.reference_answers import refer
from bench.server.session import Session

_MARGIN = 1.2  # more samples than the percentile needs, since a rate is only known roughly


@dataclass(slots=True)
class Probing:
    """Measures points; keeps the model as the last one had it, since loading takes seconds."""

    spec: SweepSpec
    space: Space
    slo: Slo
    target: Session
    folder: RunFolder
    engine: LocustEngine
    progress: ConsoleProgress
    scratch: Path
    longest_s: float
    is_interrupted: bool = False
    trials: dict[str, list[Trial]] = field(default_factory=dict)  # by cell
    _before: dict[tuple[str, int], Trial] = field(default_factory=dict)  # by cell and repeat
    _served: tuple[ServerConfiguration, Served] | None = None
    _failed: dict[ServerConfiguration, str] = field(default_factory=dict)
    _crashes: Counter[ServerConfiguration] = field(default_factory=Counter)
    _requests_per_s: dict[int, float] = field(default_factory=dict)  # by batch, the last measured

    def measure(self, point: Point, times: int = 1) -> Reading:
        """One trial more, so many times as long as asked, judged with those before.

        Raises Stop after Ctrl-C, Unreachable or ServerStartFailed when nothing more can be measured.
        """
        cell = cell_of(self.space, self.spec, point)
        self._plan(cell)
        try:
            reading = self._measured(cell, times)
        except KeyboardInterrupt:
            self.is_interrupted = True
            raise Stop from None
        self.progress.say(f"  {answer.at(self.space, point)}: {reading.img_per_s:.4g} img/s, {reading.why}")
        return reading

    def _measured(self, cell: Cell, times: int) -> Reading:
        """A configuration that does not load, or the server dies of, or a load nobody can make: answers."""
        try:
            trial = self._trial(cell, times)
        except (ToolError, TargetError) as error:
            if isinstance(error, ServerDied):
                self._served = None
                self._crashed(cell.server, error)
            elif self.sweep().is_gone(error):
                raise
            return self._fail(cell, error)
        trials = self.trials.setdefault(cell.key, [])
        trials.append(trial)
        self._requests_per_s[cell.load.batch] = (
            len(trial.samples.done_in(trial.window)) / trial.window.seconds
        )
        return judged(trials, self.folder, self.slo)

    def _configured(self, server: ServerConfiguration) -> Served:
        if server in self._failed:
            raise ModelLoadFailed(self._failed[server])
        if self._served is None or self._served[0] != server:
            self._served = None
            try:
                self._served = server, self.sweep().configure(server)
            except ModelLoadFailed as error:
                self._failed[server] = str(error)
                raise
        return self._served[1]

    def _crashed(self, server: ServerConfiguration, error: ServerDied) -> None:
        self._crashes[server] += 1
        if self._crashes[server] == MOST_CRASHES:
            self._failed[server] = f"The server died {MOST_CRASHES} times of this configuration. {error}"

    def recall(self) -> None:
        """Of a run that is gone on with: the search is repeated, and finds measured what it measured."""
        self._before = {(trial.cell.key, trial.plan.repeat): trial for trial in self.folder.trials()}

    def _trial(self, cell: Cell, times: int) -> Trial:
        sweep, turn = self.sweep(), Turn(cell, len(self.trials.get(cell.key, ())))
        before = self._before.pop((cell.key, turn.repeat), None)
        if before is not None:
            return before
        served = self._configured(cell.server)
        duration_s = max(times * self.spec.duration_s, self._duration_s(cell))
        trial = sweep.trial(turn, replace(sweep.plan(turn), duration_s=duration_s), served)
        self.folder.write_trial(trial)
        return trial

    def _duration_s(self, cell: Cell) -> float:
        """As asked; longer where the percentile would have too few samples, up to the longest."""
        per_s = cell.load.rate_per_s or self._requests_per_s.get(cell.load.batch, 0.0)
        needed = max(samples_needed(percent) for percent, _ in self.slo.latencies)
        wanted_s = _MARGIN * needed / per_s if per_s else 0.0
        return max(self.spec.duration_s, min(wanted_s, self.longest_s))

    def _plan(self, cell: Cell) -> None:
        """In the order of the search, so that the report has the cells in it, failed ones too."""
        record = self.folder.record
        if cell not in record.planned:
            self.folder.write_record(replace(record, planned=(*record.planned, cell)))

    def _fail(self, cell: Cell, error: Exception) -> Reading:
        record = self.folder.record
        self.folder.write_record(replace(record, failed={**record.failed, cell.key: str(error)}))
        return Reading(0.0, Holds.NO, str(error))

    def sweep(self) -> Sweep:
        """Models are loaded, and trials planned, the way a sweep does it."""
        size = self.spec.image_height, self.spec.image_width
        return Sweep(
            spec=self.spec,
            serving=self.target.serving,
            target=self.target.target,
            folder=self.folder,
            engines={Engine.LOCUST: self.engine.measure},
            sensors=lambda: sensors(self.target, self.engine),
            refer=lambda served: refer(served, *size, self.scratch),
            progress=self.progress,
        )

    def files(self, best: Point) -> dict[str, str]:
        """What to deploy: the model's configuration with the winner's settings."""
        server = cell_of(self.space, self.spec, best).server
        text = config_text(model_config.variant(dict(self.target.serving.base()), server))
        return {
            "config_pbtxt": text,
            "config_map": config_map(self.spec.model, text),
            "mlservice_patch": mlservice_patch(self.spec.model, text),
        }


def judged(trials: Sequence[Trial], folder: RunFolder, slo: Slo) -> Reading:
    """The last trial's throughput; whether the SLO holds by all of them, as the report decides it."""
    row, last = aggregate.row(trials, folder.record), aggregate.row(trials[-1:], folder.record)
    images, limit = last.throughput_img_per_s or 0.0, Limit.of(slo)
    if row.verdict != "VALID":
        return Reading(images, Holds.NO, f"{row.verdict}: {row.findings}")
    value = row.latency_ms(limit.percent)
    why = (
        f"p{limit.percent:g} is {value:.3g} ms"
        if value is not None
        else f"{row.latency_n} samples are too few"
    )
    if row.errors:
        why += f", {row.errors} errors"
    kind = holds(row, limit)
    missed = row.slo_met is False and kind is not Holds.UNKNOWN
    return Reading(
        images, Holds.NO if missed else kind, why, None if value is None else value / limit.bound_ms
    )
