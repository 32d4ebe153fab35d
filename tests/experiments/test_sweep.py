"""The sweep: each cell once a round, each configuration loaded once, failures named, nothing twice."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.recommendation import recommend
from bench.analysis.results import RunResults
from bench.core.cell import Cell, Protocol, ServerConfiguration
from bench.core.errors import DeadlineReached, ServerStartFailed, TargetError, ToolError, Unreachable
from bench.core.samples import Outcome, Samples, Window
from bench.core.spec import Reload, SweepSpec
from bench.core.trial import Plan, Served
from bench.experiments.sweep import Sweep
from bench.report.terminal import restarts
from tests.support.fake_lab import REFERENCE, FakeServing, Lab
from tests.support.simulation import SECOND

SPEC = SweepSpec(
    model="m",
    batches=(1, 8),
    instances=(1, 2),
    concurrencies=(1, 4),
    protocols=(Protocol.HTTP, Protocol.GRPC),
    repeats=3,
)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.at(tmp_path / "run", SPEC)


def run(lab: Lab) -> None:
    Sweep(lab.runner).run()


def again(lab: Lab) -> Lab:
    """The same folder, met by a new process."""
    return Lab(lab.folder, lab.spec)


def test_everything_is_measured_in_the_order_of_the_rounds_each_configuration_loaded_once(lab: Lab) -> None:
    run(lab)
    assert lab.order == [(planned.cell.key, planned.repeat) for planned in SPEC.trials()]
    assert lab.serving.loaded == list(SPEC.configurations())
    servers = [plan.cell.server for plan in lab.engine.measured]
    assert sum(a != b for a, b in itertools.pairwise(servers)) == len(SPEC.configurations()) - 1


def test_what_is_measured_is_on_disk_with_its_machine_and_its_configuration(lab: Lab) -> None:
    run(lab)
    trials = {(trial.cell.key, trial.plan.repeat): trial for trial in lab.folder.trials()}
    assert set(trials) == set(lab.order)
    assert all("cpu_busy_percent" in trial.machine for trial in trials.values())
    assert {config["loaded"] for config in lab.folder.record.served.values()} == {
        server.key for server in SPEC.configurations()
    }
    assert lab.folder.record.finished_at


def test_engines_meet_what_is_really_served_with_its_reference(lab: Lab) -> None:
    run(lab)
    for plan, served in zip(lab.engine.measured, lab.engine.seen, strict=True):
        assert served.config["loaded"] == plan.cell.server.key
        assert served.reference == REFERENCE


def test_a_plan_says_what_the_flags_said(lab: Lab) -> None:
    lab.spec = replace(SPEC, duration_s=7, warmup_s=2, timeout_s=3, check_fraction=0.5, processes=2)
    run(lab)
    plan = lab.engine.measured[0]
    assert (plan.duration_s, plan.warmup_s, plan.timeout_s) == (7, 2, 3)
    assert (plan.check_fraction, plan.workers, plan.longest_s) == (0.5, 2, None)


def test_an_automatic_duration_has_bounds(lab: Lab) -> None:
    lab.spec = replace(SPEC, auto_duration=True)
    run(lab)
    plan = lab.engine.measured[0]
    assert plan.longest_s is not None
    assert plan.duration_s < plan.longest_s


@pytest.mark.parametrize(("slo", "percent"), [("", 99), ("p50=1s", 99), ("p90=1s,p99.9=2s", 99.9)])
def test_an_automatic_duration_goes_on_for_the_percentile_asked(lab: Lab, slo: str, percent: float) -> None:
    lab.spec = replace(SPEC, auto_duration=True)
    lab.folder.write_record(replace(lab.folder.record, slo=slo))
    run(lab)
    assert {plan.percent for plan in lab.engine.measured} == {percent}


@pytest.mark.parametrize("after", [0, 1, 5, 13, 26])
def test_a_sweep_that_was_interrupted_goes_on_where_it_was(lab: Lab, after: int) -> None:
    def interrupt(_: Plan) -> Exception | None:
        if len(lab.engine.measured) > after:
            raise KeyboardInterrupt
        return None

    lab.engine.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(lab)
    assert not lab.folder.record.finished_at
    rest = again(lab)
    run(rest)
    everything = [(planned.cell.key, planned.repeat) for planned in SPEC.trials()]
    assert lab.order[:after] + rest.order == everything
    assert len(list(lab.folder.trials())) == len(everything)


def test_a_sweep_that_is_complete_loads_nothing(lab: Lab) -> None:
    run(lab)
    rest = again(lab)
    run(rest)
    assert rest.order == []
    assert rest.serving.loaded == []


def test_a_configuration_that_does_not_load_is_named_and_the_others_are_measured(lab: Lab) -> None:
    lab.serving.refuses = 1
    run(lab)
    assert {plan.cell.server.instances for plan in lab.engine.measured} == {2}
    failed = lab.folder.record.failed
    assert set(failed) == {cell.key for cell in SPEC.cells() if cell.server.instances == 1}
    assert set(failed.values()) == {"no memory left"}
    ((cells, reason),) = lab.progress.all("failed")
    assert len(cells) == len(failed)
    assert reason == "no memory left"
    assert lab.folder.record.finished_at


@pytest.mark.parametrize("error", [ToolError("perf_analyzer ended"), TargetError("the model is sick")])
def test_a_trial_that_cannot_be_measured_fails_its_cell_and_no_other(lab: Lab, error: Exception) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = lambda plan: error if plan.cell == victim else None
    run(lab)
    assert lab.folder.record.failed == {victim.key: str(error)}
    measured = {trial.cell.key for trial in lab.folder.trials()}
    assert measured == {cell.key for cell in SPEC.cells()} - {victim.key}


@pytest.mark.parametrize(
    ("error", "is_live"),
    [
        (Unreachable("nothing answers"), True),
        (ToolError("no answer at all"), False),  # the tool's words, the server's death
        (TargetError("bad gateway"), False),
    ],
)
def test_a_dead_target_ends_the_sweep_and_what_was_measured_stays(
    lab: Lab, error: Exception, is_live: bool
) -> None:
    def die(_: Plan) -> Exception | None:
        if len(lab.engine.measured) <= 3:
            return None
        lab.serving.triton.is_live = is_live
        return error

    lab.engine.fails = die
    with pytest.raises(type(error)):
        run(lab)
    assert len(lab.engine.measured) == 4
    assert len(list(lab.folder.trials())) == 3
    assert not lab.folder.record.finished_at


def test_a_target_that_dies_while_loading_ends_the_sweep(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_self: FakeServing, _server: ServerConfiguration, *, afresh: bool) -> Served:  # noqa: ARG001
        raise Unreachable("nothing answers")

    monkeypatch.setattr(FakeServing, "configure", gone)
    with pytest.raises(Unreachable):
        run(lab)
    assert lab.engine.measured == []


def failing(share: float, victim: Cell) -> Callable[[Plan], Samples]:
    """A thousand requests a trial, of which a share fails in one cell."""

    def samples(plan: Plan) -> Samples:
        outcome = np.zeros(1000, dtype=np.int64)
        outcome[: round(share * 1000)] = Outcome.SERVER_ERROR if plan.cell == victim else Outcome.OK
        at = np.arange(1000, dtype=np.int64)
        return Samples(at, at, at + 1, outcome)

    return samples


@pytest.mark.parametrize(("share", "repeats"), [(0.5, 1), (0.031, 1), (0.029, 2), (0.009, 3), (0.0, 3)])
def test_a_cell_that_fails_too_many_requests_for_sure_ends_early(
    lab: Lab, share: float, repeats: int
) -> None:
    victim = SPEC.cells()[3]
    lab.engine.samples, lab.engine.window = failing(share, victim), lambda _: Window(0, 2000)
    run(lab)
    assert [key for key, _ in lab.order].count(victim.key) == repeats
    others = [trial for trial in SPEC.trials() if trial.cell != victim]
    assert len(lab.order) == len(others) + repeats
    assert lab.folder.record.finished_at
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert row.fails_too_often == (share > 0.01)
    assert not (row.fails_too_often and row.is_candidate)
    rest = again(lab)
    run(rest)
    assert rest.order == []


def test_a_sweep_ends_at_its_deadline_and_goes_on_with_the_rest_later(lab: Lab) -> None:
    runner = lab.runner

    def time_is_over(_: Plan) -> None:
        if len(lab.engine.measured) == 7:
            runner.ends_at_s = time.monotonic() + SPEC.trial_s() / 2

    lab.engine.fails = time_is_over
    with pytest.raises(DeadlineReached, match="--resume"):
        Sweep(runner).run()
    assert len(list(lab.folder.trials())) == len(lab.order) == 7
    assert not lab.folder.record.finished_at
    rest = again(lab)
    run(rest)
    assert len(lab.order) + len(rest.order) == len(SPEC.trials())


def test_a_comparison_measures_every_repeat_of_a_failing_cell(lab: Lab) -> None:
    lab.engine.samples, lab.engine.window = failing(0.5, SPEC.cells()[3]), lambda _: Window(0, 2000)
    Sweep(lab.runner, leaves_out=False).run()
    assert len(lab.order) == len(SPEC.trials())


def test_whoever_watches_is_told_what_begins_how_far_it_is_and_what_came_out(lab: Lab) -> None:
    run(lab)
    total = len(SPEC.trials())
    measuring = lab.progress.all("measuring")
    assert [done for _, done, _, _ in measuring] == list(range(total))
    assert {count for _, _, count, _ in measuring} == {total}
    left = [seconds for _, _, _, seconds in measuring]
    assert left == sorted(left, reverse=True)
    assert len(lab.progress.all("live")) == len(lab.progress.all("measured")) == total
    assert lab.progress.all("configuring") == list(SPEC.configurations())


def killer(lab: Lab, victims: dict[Cell, int]) -> None:
    """The server dies of these cells, so many times each."""

    def dies(plan: Plan) -> bool:
        victims[plan.cell] = victims.get(plan.cell, 0) - 1
        return victims[plan.cell] >= 0

    lab.dies(dies)


def test_a_server_of_ours_that_dies_fails_the_trial_and_everything_else_is_measured(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    killer(lab, {victim: 1})
    run(lab)
    record = lab.folder.record
    assert record.failed == {victim.key: "tritonserver crashed (SIGSEGV)."}
    assert [crash.key for crash in record.crashes] == [victim.key]
    measured = {(trial.cell.key, trial.plan.repeat) for trial in lab.folder.trials()}
    everything = {(planned.cell.key, planned.repeat) for planned in SPEC.trials()}
    (lost,) = everything - measured
    assert lost[0] == victim.key
    assert lab.serving.loaded.count(victim.server) == 2  # again, on the new server
    assert record.finished_at
    assert not lab.serving.triton.died


def test_a_server_that_dies_in_the_trial_s_drain_fails_that_trial(lab: Lab) -> None:
    """The engine has its figures by then, and raises nothing."""
    first = SPEC.trials()[0]

    def die(_: Plan) -> Exception | None:
        lab.serving.triton.died = "killed" if len(lab.engine.measured) == 1 else ""
        return None

    lab.engine.fails = die
    run(lab)
    assert lab.folder.record.failed == {first.cell.key: "killed"}
    assert len(list(lab.folder.trials())) == len(SPEC.trials()) - 1


def test_a_configuration_the_server_dies_of_twice_is_given_up_and_the_next_is_measured(lab: Lab) -> None:
    server = SPEC.configurations()[0]
    of_it = [cell for cell in SPEC.cells() if cell.server == server]
    killer(lab, {of_it[0]: 9, of_it[1]: 9})
    run(lab)
    record, kept = lab.folder.record, {trial.cell.key for trial in lab.folder.trials()}
    assert len(record.crashes) == 2
    assert lab.serving.loaded.count(server) == 2
    assert {plan.cell.server for plan in lab.engine.measured} == set(SPEC.configurations())
    assert set(record.failed) >= {cell.key for cell in of_it} - kept
    given_up = [reason for reason in record.failed.values() if "given up" in reason]
    assert given_up
    assert all("SIGSEGV" in reason for reason in given_up)
    others = {cell.key for cell in SPEC.cells() if cell.server != server}
    assert others <= kept
    assert not others & set(record.failed)


def test_a_server_that_dies_while_loading_is_tried_once_more(lab: Lab) -> None:
    lab.serving.dies_of = 2
    run(lab)
    assert [server.instances for server in lab.serving.loaded].count(2) == 2
    failed = lab.folder.record.failed
    assert set(failed) == {cell.key for cell in SPEC.cells() if cell.server.instances == 2}
    assert all("SIGSEGV" in reason for reason in failed.values())
    assert {plan.cell.server.instances for plan in lab.engine.measured} == {1}


def test_a_server_that_does_not_come_up_again_ends_the_sweep(lab: Lab) -> None:
    def fails(_: Plan) -> Exception | None:
        lab.serving.triton.stays_dead = len(lab.engine.measured) == 4
        return Unreachable("nothing answers") if lab.serving.triton.stays_dead else None

    lab.engine.fails = fails
    with pytest.raises(ServerStartFailed, match="3 times"):
        run(lab)
    assert len(list(lab.folder.trials())) == 3


def test_what_a_crash_cost_is_measured_with_resume_and_told_until_then(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    killer(lab, {victim: 1})
    run(lab)
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert (row.repeats, row.verdict) == (2, "INVALID")
    assert "server-died" in row.findings
    assert any("SIGSEGV" in remark.seen for remark in row.remarks)
    record = lab.folder.record
    assert restarts(record) == "tritonserver died 1 time and was started again."
    lab.folder.write_record(replace(record, failed={}, finished_at=""))  # as --resume does
    rest = again(lab)
    run(rest)
    assert len(rest.order) == 1
    after = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert after.repeats == 3
    assert "server-died" not in after.findings


def test_a_cell_that_only_killed_the_server_is_failed_with_a_typed_finding(lab: Lab) -> None:
    victim = SPEC.cells()[-1]
    killer(lab, {victim: 1})
    lab.spec = replace(SPEC, repeats=1)
    run(lab)
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert (row.repeats, row.verdict, row.findings) == (0, "FAILED", "server-died")
    assert row.reason == "tritonserver crashed (SIGSEGV)."


def test_a_repeat_that_failed_otherwise_is_a_warning_beside_the_others(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = lambda plan: (
        ToolError("the tool ended") if plan.cell == victim and plan.repeat == 2 else None
    )
    run(lab)
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert row.repeats == 2
    assert "repeat-failed" in row.findings


def answers(plan: Plan) -> Samples:
    """Each user's requests one after the other: more of them a second with a larger batch and more users."""
    users, took = plan.cell.load.concurrency or 1, 10_000_000 - 1000 * plan.repeat
    rows = [(at, at, at + took, int(Outcome.OK)) for at in range(0, SECOND, took)]
    return Samples.of(sorted(rows * users))


def confirmed(lab: Lab) -> list[tuple[str, int]]:
    lab.engine.samples, lab.engine.window = answers, lambda _: Window(SECOND // 10, SECOND)
    Sweep(lab.runner, confirm=True).run()
    return [(trial.cell.key, trial.plan.repeat) for trial in lab.folder.confirmation.trials()]


def test_the_best_cell_gets_fresh_trials_that_are_kept_apart(lab: Lab) -> None:
    fresh = confirmed(lab)
    results = RunResults.of(lab.folder)
    best = recommend(results.rows, None).best
    assert best is not None
    assert fresh == [(best.cell, repeat) for repeat in (6, 7, 8)]
    assert lab.order[-3:] == fresh
    assert len(list(lab.folder.trials())) == len(SPEC.trials())
    assert best.confirmed is not None
    assert best.confirmed.repeats == 3
    assert sum(row.confirmed is not None for row in results.rows) == 1
    total = len(SPEC.trials()) + 3
    assert [done for _, done, _, _ in lab.progress.all("measuring")] == list(range(total))
    assert lab.folder.record.finished_at


def test_fresh_trials_go_on_where_they_were_interrupted(lab: Lab) -> None:
    def interrupt(_: Plan) -> Exception | None:
        if len(lab.engine.measured) == len(SPEC.trials()) + 2:
            raise KeyboardInterrupt
        return None

    lab.engine.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        confirmed(lab)
    assert not lab.folder.record.finished_at
    rest = again(lab)
    assert len(confirmed(rest)) == 3
    assert len(rest.order) == 2


def test_a_best_cell_that_cannot_be_confirmed_keeps_its_own_figures(lab: Lab) -> None:
    lab.engine.fails = lambda plan: ToolError("no load") if plan.repeat >= 2 * SPEC.repeats else None
    assert confirmed(lab) == []
    assert lab.folder.record.failed == {}
    assert lab.folder.record.finished_at
    ((cells, reason),) = lab.progress.all("failed")
    assert len(cells) == 1
    assert reason == "not confirmed: no load"


def test_with_reload_repeat_the_cells_of_a_repeat_share_one_load_of_their_own(tmp_path: Path) -> None:
    spec = SweepSpec(
        model="m", batches=(1, 2, 4, 8), instances=(1, 2), concurrencies=(1,), repeats=3, reload=Reload.REPEAT
    )
    lab = Lab.at(tmp_path / "reload", spec)
    run(lab)
    assert [server.instances for server in lab.serving.loaded] == [1, 1, 1, 2, 2, 2]
    assert lab.serving.afresh == len(lab.serving.loaded) == spec.model_loads()
    assert len(lab.order) == len(set(lab.order)) == 24  # and no reference cell: rounds differ by their load
    run(lab)
    assert lab.serving.afresh == 6  # what is measured already needs no load
