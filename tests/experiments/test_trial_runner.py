"""What may go wrong with a server costs one configuration, in every experiment, and is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.results import RunResults
from bench.cli.verbs.search import exit_code, sentence
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import (
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    ServerStartFailed,
    TargetError,
    ToolError,
    Unreachable,
)
from bench.core.run_folder import SEARCH_FILE
from bench.core.samples import Outcome, Samples, Window
from bench.core.slo import parse_slo
from bench.core.spec import PlannedTrial, SweepSpec
from bench.core.trial import Plan
from bench.experiments.search.runner import SearchRunner
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import MOST_AGAIN, MOST_CRASHES, NotMeasured
from bench.experiments.tune.algorithm import tune
from bench.experiments.tune.history import FITS
from bench.experiments.tune.runner import TuneRunner
from bench.experiments.tune.space import space_of
from tests.support.fake_lab import CRASH, REFERENCE, Lab

SLO = "p99=10ms"
CAPACITY_PER_S = 100.0
SPEC = SweepSpec(model="m", batches=(1,), instances=(1, 2), concurrencies=(1,), repeats=3, duration_s=10.0)
BAD, GOOD = SPEC.configurations()  # trouble comes with one instance, none with two


def window(plan: Plan) -> Window:
    return Window(0, round(plan.duration_s * 1e9))


def served(plan: Plan) -> Samples:
    """A server that answers one user, and up to CAPACITY_PER_S, in 5 ms, and above that in 50 ms."""
    rate = plan.cell.load.rate_per_s
    latency_ns = 5_000_000 if rate is None or rate <= CAPACITY_PER_S else 50_000_000
    due_ns = np.arange(0, plan.duration_s * 1e9, latency_ns if rate is None else 1e9 / rate).astype(np.int64)
    return Samples(due_ns, due_ns, due_ns + latency_ns, np.full(len(due_ns), Outcome.OK, dtype=np.int64))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab.at(tmp_path / "run", SPEC, planned=(), slo=SLO)
    lab.engine.samples, lab.engine.window = served, window
    return lab


Answers = dict[int, str]  # by instances: "" for an answer, or why there is none


def sweep(lab: Lab) -> Answers:
    Sweep(lab.runner).run()
    record, measured = lab.folder.record, {trial.cell.key for trial in lab.folder.trials()}
    return {
        cell.server.instances or 0: "" if cell.key in measured else record.failed[cell.key]
        for cell in SPEC.cells()
    }


def search(lab: Lab) -> Answers:
    searches = SearchRunner(lab.runner, parse_slo(SLO), 60.0, lambda _: None)
    searches.run()
    return {
        server.instances or 0: capacity.failure
        for server, (_, capacity) in zip(SPEC.configurations(), searches.answers, strict=True)
    }


def tuning(lab: Lab) -> Answers:
    space, answers = space_of(SPEC), dict[int, str]()
    runner = TuneRunner(lab.runner, space, parse_slo(SLO), 20.0, lambda _: None)
    result = tune(space, runner.measure, bound_s=0.01, budget=10)
    for step in result.steps:
        count = space.instances(step.point.configuration)
        answers[count] = "" if step.reading.holds in FITS or answers.get(count) == "" else step.reading.why
    assert not runner.is_interrupted
    return answers


EXPERIMENTS = pytest.mark.parametrize("experiment", [sweep, search, tuning])
Experiment = Callable[[Lab], Answers]


@EXPERIMENTS
def test_without_trouble_every_configuration_has_an_answer(lab: Lab, experiment: Experiment) -> None:
    assert experiment(lab) == {1: "", 2: ""}
    assert not lab.folder.record.failed
    assert lab.serving.loaded.count(BAD) >= 1


@EXPERIMENTS
def test_a_model_that_does_not_load_costs_its_configuration_and_is_tried_once(
    lab: Lab, experiment: Experiment
) -> None:
    lab.serving.refuses = BAD.instances
    assert experiment(lab) == {1: "no memory left", 2: ""}
    assert lab.serving.loaded.count(BAD) == 1
    assert set(lab.folder.record.failed.values()) == {"no memory left"}


@pytest.mark.parametrize("experiment", [sweep, search])
@pytest.mark.parametrize("after", [0, 1])
def test_a_server_that_dies_once_costs_no_answer(lab: Lab, experiment: Experiment, after: int) -> None:
    count = iter(range(1_000_000))
    lab.dies(lambda plan: plan.cell.server == BAD and next(count) == after)
    assert experiment(lab) == {1: "", 2: ""}
    record = lab.folder.record
    assert [crash.reason for crash in record.crashes] == [CRASH]
    assert lab.serving.loaded.count(BAD) >= 2


def test_a_server_that_dies_once_is_an_answer_of_a_tuning(lab: Lab) -> None:
    count = iter(range(1_000_000))
    lab.dies(lambda plan: plan.cell.server == BAD and next(count) == 0)
    assert tuning(lab) == {1: CRASH, 2: ""}
    assert [crash.reason for crash in lab.folder.record.crashes] == [CRASH]


@pytest.mark.parametrize("experiment", [sweep, search])
def test_a_configuration_with_which_the_server_dies_again_and_again_is_given_up(
    lab: Lab, experiment: Experiment
) -> None:
    lab.dies(lambda plan: plan.cell.server == BAD)
    answers = experiment(lab)
    assert answers[2] == ""
    assert "given up" in answers[1]
    assert "SIGSEGV" in answers[1]
    assert len(lab.folder.record.crashes) == lab.serving.loaded.count(BAD) == MOST_CRASHES


@EXPERIMENTS
def test_a_server_that_dies_at_every_load_of_a_configuration_is_given_up_too(
    lab: Lab, experiment: Experiment
) -> None:
    lab.serving.dies_of = BAD.instances
    answers = experiment(lab)
    assert answers[2] == ""
    assert "given up" in answers[1]
    assert len(lab.folder.record.crashes) == lab.serving.loaded.count(BAD) == MOST_CRASHES


@contextmanager
def ending(lab: Lab, error: BaseException) -> Iterator[None]:
    """The second configuration's third trial ends the experiment."""
    count = iter(range(1_000_000))
    lab.engine.fails = lambda plan: error if plan.cell.server == GOOD and next(count) == 2 else None
    with pytest.raises(type(error)):
        yield


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), Unreachable("Nothing answers."), ServerStartFailed("It does not start again.")],
)
def test_a_search_that_is_ended_keeps_every_answer_and_names_the_one_it_lacks(
    lab: Lab, error: BaseException
) -> None:
    searches = SearchRunner(lab.runner, parse_slo(SLO), 60.0, lambda _: None)
    with ending(lab, error):
        searches.run()
    answers = json.loads((lab.folder.path / SEARCH_FILE).read_text())
    assert [entry["failed"] for entry in answers] == ["", str(error) or "The search was interrupted."]
    assert answers[0]["rate_per_s"] == pytest.approx(CAPACITY_PER_S, rel=0.1)
    assert [len(entry["probes"]) for entry in answers][1] == 1  # the first of three trials is a closed loop
    assert not lab.folder.record.finished_at
    assert len(list(lab.folder.trials())) == len(lab.engine.measured) - 1


def test_a_sweep_that_is_interrupted_keeps_what_it_measured(lab: Lab) -> None:
    with ending(lab, KeyboardInterrupt()):
        Sweep(lab.runner).run()
    assert len(list(lab.folder.trials())) == SPEC.repeats + 2
    assert not lab.folder.record.finished_at


def test_a_tuning_that_is_interrupted_has_the_best_so_far_for_an_answer(lab: Lab) -> None:
    lab.engine.fails = lambda _: KeyboardInterrupt() if len(lab.engine.measured) == 3 else None
    space = space_of(SPEC)
    runner = TuneRunner(lab.runner, space, parse_slo(SLO), 20.0, lambda _: None)
    result = tune(space, runner.measure, bound_s=0.01, budget=10)
    assert runner.is_interrupted
    assert result.best is not None
    assert len(result.steps) == len(list(lab.folder.trials())) == 2


@pytest.mark.parametrize(
    ("bad", "good", "code"),
    [(False, False, EXIT_OK), (True, False, EXIT_INCONCLUSIVE), (True, True, EXIT_FAILED)],
)
def test_a_search_that_lacks_an_answer_ends_with_3_and_one_without_any_with_4(
    lab: Lab, bad: bool, good: bool, code: int
) -> None:
    broken = [server for server, is_broken in ((BAD, bad), (GOOD, good)) if is_broken]
    lab.engine.fails = lambda plan: ToolError("Locust ended.") if plan.cell.server in broken else None
    searches = SearchRunner(lab.runner, parse_slo(SLO), 60.0, lambda _: None)
    searches.run()
    assert exit_code([capacity for _, capacity in searches.answers]) == code
    said = [sentence(capacity, parse_slo(SLO)) for _, capacity in searches.answers]
    assert [text.startswith("FAILED") and "Locust ended." in text for text in said] == [bad, good]
    assert lab.folder.record.finished_at


def cell_of(server: ServerConfiguration) -> Cell:
    return Cell(server=server, load=Load(protocol=Protocol.HTTP, batch=1, concurrency=1))


def test_a_configuration_stays_loaded_and_its_reference_is_computed_once(lab: Lab) -> None:
    runner = lab.runner
    for server in (GOOD, GOOD, BAD, GOOD):
        assert runner.served(server).reference == REFERENCE
    assert lab.serving.loaded == [GOOD, BAD, GOOD]
    assert set(lab.folder.record.served) == {GOOD.key, BAD.key}


def test_runners_that_share_a_server_know_what_the_other_loaded(lab: Lab, tmp_path: Path) -> None:
    one, other = lab.runner, Lab.at(tmp_path / "other", SPEC).runner
    other.loaded = one.loaded
    for runner in (one, other, other, one):
        runner.served(GOOD)
    assert lab.serving.loaded == [GOOD, GOOD]  # twice by this one, since the other's load replaced its own


@pytest.mark.parametrize("error", [ToolError("perf_analyzer ended."), TargetError("The model is sick.")])
def test_an_engine_that_fails_is_a_reason_and_a_dead_target_is_an_error(lab: Lab, error: Exception) -> None:
    lab.engine.fails = lambda _: error
    with pytest.raises(NotMeasured, match=str(error)) as caught:
        lab.runner.measure(PlannedTrial(cell_of(GOOD), 0))
    assert not caught.value.may_repeat
    lab.serving.triton.is_live = False
    with pytest.raises(type(error)):
        lab.runner.measure(PlannedTrial(cell_of(GOOD), 0))
    assert not list(lab.folder.trials())


def test_a_trial_is_as_long_as_asked_and_otherwise_as_the_spec_says(lab: Lab) -> None:
    runner = lab.runner
    runner.measure(PlannedTrial(cell_of(GOOD), 0))
    runner.measure(PlannedTrial(cell_of(GOOD), 1), duration_s=3.0)
    assert [plan.duration_s for plan in lab.engine.measured] == [10.0, 3.0]
    assert all("cpu_busy_percent" in trial.machine for trial in lab.folder.trials())


@pytest.mark.parametrize(
    ("stalls", "trials", "verdict"),
    [
        (0, 1, "VALID"),
        (1, 2, "VALID"),
        (MOST_AGAIN, MOST_AGAIN + 1, "VALID"),
        (99, MOST_AGAIN + 1, "INVALID"),
    ],
)
def test_a_trial_whose_generator_was_stopped_is_measured_again_so_often(
    lab: Lab, stalls: int, trials: int, verdict: str
) -> None:
    lab.engine.stalled_s = lambda _: 3.0 if len(lab.engine.measured) <= stalls else 0.0
    cell = SPEC.cells()[0]
    lab.runner.measure(PlannedTrial(cell, 0))
    assert len(lab.engine.measured) == trials
    row = RunResults.of(lab.folder).rows[0]
    assert (row.repeats, row.verdict) == (1, verdict)
    assert ("generator-stalled" in row.findings) == (verdict == "INVALID")
    codes = {finding.code for finding in row.remarks}
    assert ("measured-again" in codes) == bool(stalls)
    assert len(lab.folder.record.discarded) == len(lab.progress.all("remark")) == trials - 1


def test_a_run_that_was_killed_meanwhile_does_not_measure_a_stalled_trial_for_ever(lab: Lab) -> None:
    lab.engine.stalled_s = lambda _: 3.0
    lab.engine.fails = lambda _: KeyboardInterrupt() if len(lab.engine.measured) == 3 else None
    cell = SPEC.cells()[0]
    with pytest.raises(KeyboardInterrupt):
        lab.runner.measure(PlannedTrial(cell, 0))
    lab.runner.measure(PlannedTrial(cell, 0))
    assert len(lab.engine.measured) == 4
    assert lab.folder.has_trial(cell.key, 0)
