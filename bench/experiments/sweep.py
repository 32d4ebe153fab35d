"""Measure every cell of a sweep, in rounds, one server configuration after the other.

A trial that cannot be measured ends as a named failure of its cell, and a configuration that does not load,
or with which the server dies again and again, as a failure of its cells; the sweep goes on. Only a target
that is gone ends it, and what was measured is on disk by then.

After the last round the cell that the report would recommend may be confirmed: it gets as many fresh trials
as it had repeats. They are kept apart, because it was picked for its repeats, and the luckiest is picked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.analysis.recommendation import Limit, recommend
from bench.analysis.results import RunResults
from bench.core.cell import Cell, ServerConfiguration
from bench.core.run_folder import RunFolder
from bench.core.slo import parse_slo
from bench.core.spec import PlannedTrial
from bench.experiments.trial_runner import NotMeasured, TrialRunner


@dataclass(slots=True)
class Sweep:
    """Measures what is not in the run folder yet. `confirm`: fresh trials of the best cell at the end."""

    runner: TrialRunner
    confirm: bool = False
    _failed: set[PlannedTrial] = field(default_factory=set)

    def run(self) -> None:
        """Raises Unreachable when the target is gone, ServerStartFailed when ours does not start again."""
        for server in self.runner.spec.configurations():
            for trials in self.runner.spec.rounds(server):
                self.measure(trials)
        if self.confirm:
            self._confirm()
        self.runner.folder.finish()

    def measure(self, trials: tuple[PlannedTrial, ...]) -> None:
        """Measure one round, as far as it is not measured yet. Raises as `run`."""
        for planned in trials:
            if not self._is_over(planned):
                self._measure(planned)

    def _measure(self, planned: PlannedTrial) -> None:
        try:
            self.runner.served(planned.cell.server)
        except NotMeasured as error:
            self._give_up(planned.cell.server, str(error))
            return
        self._tell(planned)
        try:
            trial = self.runner.measure(planned)
        except NotMeasured as error:
            self._failed.add(planned)
            self.runner.fail((planned.cell,), str(error))
        else:
            self.runner.progress.measured(trial)

    def _tell(self, planned: PlannedTrial, fresh: int = 0) -> None:
        """Tell whoever watches how far it is. `fresh`: how many fresh trials there are already."""
        spec = self.runner.spec
        all_trials = spec.trials()
        done = sum(map(self._is_measured, all_trials)) + fresh
        total = len(all_trials) + (spec.repeats if self.confirm else 0)
        self.runner.progress.measuring(planned, done, total, (total - done) * spec.trial_s())

    def _confirm(self) -> None:
        """Measure the fresh trials of the best cell. One that cannot be measured ends that, and no more."""
        best, kept = best_cell(self.runner.folder), self.runner.folder.confirmation
        for number, planned in enumerate(self.runner.spec.fresh(best) if best else ()):
            if kept.has_trial(planned.cell.key, planned.repeat):
                continue
            try:
                self.runner.served(planned.cell.server)
                self._tell(planned, number)
                self.runner.progress.measured(self.runner.measure(planned, into=kept))
            except NotMeasured as error:  # the cell's own repeats are as good as before
                self.runner.progress.failed((planned.cell,), f"not confirmed: {error}")
                return

    def _give_up(self, server: ServerConfiguration, reason: str) -> None:
        """Everything of a configuration that is not over has failed."""
        trials = (trial for of_round in self.runner.spec.rounds(server) for trial in of_round)
        left = [trial for trial in trials if not self._is_over(trial)]
        self._failed.update(left)
        self.runner.fail(tuple(dict.fromkeys(trial.cell for trial in left)), reason)

    def _is_over(self, planned: PlannedTrial) -> bool:
        return planned in self._failed or self._is_measured(planned)

    def _is_measured(self, planned: PlannedTrial) -> bool:
        return self.runner.folder.has_trial(planned.cell.key, planned.repeat)


def best_cell(folder: RunFolder) -> Cell | None:
    """The cell that the report would recommend by what was measured; None where there is none."""
    results = RunResults.of(folder)
    slo = results.record.slo
    best = recommend(results.rows, Limit.of(parse_slo(slo)) if slo else None).best
    return next((cell for cell in results.record.planned if best and cell.key == best.cell), None)
