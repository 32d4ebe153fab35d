"""Measure every cell of a sweep, in rounds, one server configuration after the other.

A trial that cannot be measured ends as a named failure of its cell, and a configuration that does not load,
or with which the server dies again and again, as a failure of its cells; the sweep goes on. Only a target
that is gone ends it, and what was measured is on disk by then.

After the last round the cell that the report would recommend may be confirmed: it gets as many fresh trials
as it had repeats. They are kept apart, because it was picked for its repeats, and the luckiest is picked.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.analysis.failures import allowed_share, is_hopeless
from bench.analysis.recommendation import Limit, recommend
from bench.analysis.results import RunResults
from bench.analysis.summary import measured_requests
from bench.core.cell import Cell, ServerConfiguration
from bench.core.run_folder import RunFolder
from bench.core.samples import Outcome
from bench.core.slo import parse_slo
from bench.core.spec import PlannedTrial
from bench.core.trial import Trial
from bench.core.units import count, plural
from bench.experiments.trial_runner import NotMeasured, TrialRunner


@dataclass(slots=True)
class Sweep:
    """Measures what is not in the run folder yet.

    `leaves_out`: end a cell whose requests fail too often before its last repeat. A comparison needs all.
    `confirm`: fresh trials of the best cell at the end.
    """

    runner: TrialRunner
    leaves_out: bool = True
    confirm: bool = False
    _failed: set[PlannedTrial] = field(default_factory=set)
    _left_out: set[str] = field(default_factory=set)  # keys of cells

    def __post_init__(self) -> None:
        self._left_out.update(self.runner.folder.record.left_out)

    def run(self) -> None:
        """Raises Unreachable when the target is gone, ServerStartFailed when ours does not start again, and
        DeadlineReached when the time is over."""
        for server in self.runner.spec.configurations():
            for trials in self.runner.spec.rounds(server):
                self.measure(trials)
        if self.confirm:
            self._confirm()
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
        self._tell(planned)
        try:
            trial = self.runner.measure(planned)
        except NotMeasured as error:
            self._failed.add(planned)
            self.runner.fail((planned.cell,), str(error))
        else:
            self.runner.progress.measured(trial)
            if self.leaves_out and trial.samples.failures():
                self._end_if_hopeless(planned.cell)

    def _end_if_hopeless(self, cell: Cell) -> None:
        """Leave out the other repeats of a cell that fails too many requests whatever they would show."""
        folder = self.runner.folder
        of_cell = [trial for trial in self.runner.spec.trials() if trial.cell == cell]
        left = sum(not self._is_over(trial) for trial in of_cell)
        counts = [_failures(trial) for trial in folder.trials(cell.key)]
        if not left or not is_hopeless(counts, left, allowed_share(folder.record)):
            return
        failed, asked = (sum(column) for column in zip(*counts, strict=True))
        said = f"{count(failed)} of {plural(asked, 'request')} failed"
        self.runner.progress.remark(cell, f"{said}: its other repeats are left out (--max-errors).")
        why = f" After {len(counts)} of {plural(len(of_cell), 'repeat')} the others were left out."
        folder.add_left_out(cell.key, why)
        self._left_out.add(cell.key)

    def _tell(self, planned: PlannedTrial, fresh: int = 0) -> None:
        """Tell whoever watches how far it is. `fresh`: how many fresh trials there are already."""
        spec = self.runner.spec
        all_trials = spec.trials()
        is_done = (t.cell.key in self._left_out or self._is_measured(t) for t in all_trials)
        done = sum(is_done) + fresh
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
        is_left_out = planned.cell.key in self._left_out
        return is_left_out or planned in self._failed or self._is_measured(planned)

    def _is_measured(self, planned: PlannedTrial) -> bool:
        return self.runner.folder.has_trial(planned.cell.key, planned.repeat)


def _failures(trial: Trial) -> tuple[int, int]:
    """Failed requests, and all of them. One that this machine had no room for says nothing of the server."""
    asked = measured_requests(trial)
    return len(asked.failed()) - asked.failures().get(Outcome.CLIENT, 0), len(asked)


def best_cell(folder: RunFolder) -> Cell | None:
    """The cell that the report would recommend by what was measured; None where there is none."""
    results = RunResults.of(folder)
    slo = results.record.slo
    best = recommend(results.rows, Limit.of(parse_slo(slo)) if slo else None).best
    return next((cell for cell in results.record.planned if best and cell.key == best.cell), None)
