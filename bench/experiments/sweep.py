"""Measure every cell of a sweep, in rounds, one server configuration after the other.

A trial that cannot be measured ends as a named failure of its cell, and a configuration that does not load,
or with which the server dies again and again, as a failure of its cells; the sweep goes on. Only a target
that is gone ends it, and what was measured is on disk by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.core.cell import ServerConfiguration
from bench.core.spec import PlannedTrial
from bench.experiments.trial_runner import NotMeasured, TrialRunner


@dataclass(slots=True)
class Sweep:
    """Measures what is not in the run folder yet."""

    runner: TrialRunner
    _failed: set[PlannedTrial] = field(default_factory=set)

    def run(self) -> None:
        """Raises Unreachable when the target is gone, ServerStartFailed when ours does not start again."""
        for server in self.runner.spec.configurations():
            for trials in self.runner.spec.rounds(server):
                self.measure(trials)
        self.runner.folder.finish()

    def measure(self, trials: tuple[PlannedTrial, ...]) -> None:
        """Measure one round, as far as it is not measured yet. Raises as `run`."""
        self.runner.begin_repeat()
        for planned in trials:
            if not self._is_over(planned):
                self._measure(planned)

    def _measure(self, planned: PlannedTrial) -> None:
        try:
            self.runner.served(planned.cell.server)
        except NotMeasured as error:
            self._give_up(planned.cell.server, str(error))
            return
        all_trials = self.runner.spec.trials()
        done, total = sum(map(self._is_measured, all_trials)), len(all_trials)
        seconds_left = (total - done) * self.runner.spec.trial_s()
        self.runner.progress.measuring(planned, done, total, seconds_left)
        try:
            trial = self.runner.measure(planned)
        except NotMeasured as error:
            self._failed.add(planned)
            self.runner.fail((planned.cell,), str(error))
        else:
            self.runner.progress.measured(trial)

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
