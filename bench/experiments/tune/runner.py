"""Measure points of a configuration space on a real server, one trial at a time, in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.analysis.aggregate import MeasuredTrial, aggregate
from bench.analysis.recommendation import Limit, holds
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.cluster.deploy.model_patch import config_map, config_text, mlservice_patch
from bench.core.cell import Cell
from bench.core.run_folder import RunFolder
from bench.core.slo import Slo
from bench.core.spec import PlannedTrial
from bench.core.trial import Trial
from bench.experiments.progress import Say
from bench.experiments.trial_runner import NotMeasured, TrialRunner
from bench.experiments.tune import answer
from bench.experiments.tune.history import Point, Reading, Space, Stop
from bench.experiments.tune.space import cell_of
from bench.server import model_config

# A trial is planned to have this many times the samples that the percentile needs, since the rate of the
# server is known only roughly before the trial.
_MARGIN = 1.2


@dataclass(slots=True)
class TuneRunner:
    """The function that a tuning measures with. `longest_s`: of a trial that is made longer by itself."""

    runner: TrialRunner
    space: Space
    slo: Slo
    longest_s: float
    say: Say
    is_interrupted: bool = False
    _trials: dict[str, list[Trial]] = field(default_factory=dict)  # by key of the cell
    _before: dict[tuple[str, int], Trial] = field(default_factory=dict)  # by key of the cell, and repeat
    _requests_per_s: dict[int, float] = field(default_factory=dict)  # by batch, of the last trial

    def measure(self, point: Point, times: int = 1) -> Reading:
        """One trial more, so many times as long as asked, judged together with those before.

        A configuration that does not load, or with which the server dies, and a load that cannot be made, are
        readings that miss the SLO. Raises Stop after Ctrl-C, and Unreachable or ServerStartFailed when
        nothing more can be measured.
        """
        if self.is_interrupted:  # the tuning has stages, and Stop ends one of them
            raise Stop
        cell = cell_of(self.space, self.runner.spec, point)
        self.runner.folder.add_planned(cell)  # in the order of the search, failed ones too
        try:
            reading = self._measured(cell, times)
        except NotMeasured as error:
            self.runner.folder.add_failed((cell,), str(error))
            reading = Reading(0.0, Holds.NO, str(error))
        except KeyboardInterrupt:
            self.is_interrupted = True
            raise Stop from None
        where = answer.describe_point(self.space, point)
        self.say(f"  {where}: {reading.img_per_s:.4g} img/s, {reading.why}")
        return reading

    def recall(self) -> None:
        """Take the trials of a resumed run: the search begins anew and measures none of them again."""
        self._before = {(trial.cell.key, trial.plan.repeat): trial for trial in self.runner.folder.trials()}

    def _measured(self, cell: Cell, times: int) -> Reading:
        trials = self._trials.setdefault(cell.key, [])
        trial = self._before.pop((cell.key, len(trials)), None)
        if trial is None:
            duration_s = max(times * self.runner.spec.duration_s, self._duration_s(cell))
            trial = self.runner.measure(PlannedTrial(cell, len(trials)), duration_s)
        trials.append(trial)
        answered = trial.samples.done_in(trial.window)
        self._requests_per_s[cell.load.batch] = len(answered) / trial.window.seconds
        return judged(trials, self.runner.folder, self.slo)

    def _duration_s(self, cell: Cell) -> float:
        """As asked; longer where the percentile would have too few samples, up to `longest_s`."""
        per_s = cell.load.rate_per_s or self._requests_per_s.get(cell.load.batch, 0.0)
        needed = max(samples_needed(percent) for percent, _ in self.slo.latencies)
        wanted_s = _MARGIN * needed / per_s if per_s else 0.0
        return max(self.runner.spec.duration_s, min(wanted_s, self.longest_s))

    def files(self, best: Point) -> dict[str, str]:
        """What to deploy: the model's configuration with the settings of the best point, in three forms."""
        model = self.runner.spec.model
        server = cell_of(self.space, self.runner.spec, best).server
        text = config_text(model_config.variant(dict(self.runner.serving.base()), server))
        return {
            "config_pbtxt": text,
            "config_map": config_map(model, text),
            "mlservice_patch": mlservice_patch(model, text),
        }


def judged(trials: Sequence[Trial], folder: RunFolder, slo: Slo) -> Reading:
    """The last trial's throughput, and whether the SLO holds by all trials, as the report decides it."""
    measured = [MeasuredTrial.of(trial, slo) for trial in trials]
    row, last = aggregate(measured, folder.record), aggregate(measured[-1:], folder.record)
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
