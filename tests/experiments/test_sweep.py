"""The sweep: each cell once a round, each configuration loaded once, failures named, nothing twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from bench.analysis.results import RunResults
from bench.core.cell import Cell, Engine, Protocol, ServerConfiguration
from bench.core.errors import ModelLoadFailed, ServerStartFailed, TargetError, ToolError, Unreachable
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.samples import Outcome, Samples, Window
from bench.core.spec import SweepSpec, Turn
from bench.core.target import Target
from bench.core.trial import Generator, Live, Plan, Served, Trial
from bench.experiments.sweep import Sweep
from bench.report.terminal import restarts
from bench.server.serving import Serving

SPEC = SweepSpec(
    model="m",
    batches=(1, 8),
    instances=(1, 2),
    concurrencies=(1, 4),
    protocols=(Protocol.HTTP, Protocol.GRPC),
    repeats=3,
)


@dataclass
class FakeTriton:
    is_live: bool = True
    died: str = ""  # why; one of ours

    def live(self) -> bool:
        return self.is_live

    def revive(self) -> str:
        why, self.died = self.died, ""
        return why


@dataclass
class FakeServing:
    """Loads anything but what it was told to refuse."""

    refuses: int | None = None  # so many instances
    triton: FakeTriton = field(default_factory=FakeTriton)
    loaded: list[ServerConfiguration] = field(default_factory=list)

    def configure(self, server: ServerConfiguration) -> Served:
        self.loaded.append(server)
        if server.instances == self.refuses:
            raise ModelLoadFailed("no memory left")
        return Served({"name": server.model}, {"max_batch_size": 64, "loaded": server.key})


@dataclass
class FakeEngine:
    """Answers at once; `fails` decides which trial raises what."""

    fails: Callable[[Plan], Exception | None] = lambda _: None
    measured: list[Plan] = field(default_factory=list)
    seen: list[Served] = field(default_factory=list)

    def measure(self, plan: Plan, _target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:
        self.measured.append(plan)
        self.seen.append(served)
        on_live(Live(0.5, 1, 2.0, 1e6))
        error = self.fails(plan)
        if error is not None:
            raise error
        return Trial(
            plan=plan,
            window=Window(0, 10),
            samples=Samples.of([(1, 2, 3, Outcome.OK)]),
            errors={},
            generator=Generator(workers=1, cpu_s=(0.0,), max_rss_bytes=1),
        )


@dataclass
class Watcher:
    said: list[tuple[str, Any]] = field(default_factory=list)

    def configuring(self, server: ServerConfiguration) -> None:
        self.said.append(("configuring", server))

    def measuring(self, turn: Turn, done: int, total: int, seconds_left: float) -> None:
        self.said.append(("measuring", (turn, done, total, seconds_left)))

    def live(self, turn: Turn, live: Live) -> None:
        self.said.append(("live", (turn, live)))

    def measured(self, trial: Trial) -> None:
        self.said.append(("measured", trial))

    def failed(self, cell_table: tuple[Cell, ...], reason: str) -> None:
        self.said.append(("failed", (cell_table, reason)))

    def all(self, kind: str) -> list[Any]:
        return [what for said, what in self.said if said == kind]


@dataclass
class Lab:
    """A sweep with everything around it faked but the run folder."""

    folder: RunFolder
    spec: SweepSpec = SPEC
    serving: FakeServing = field(default_factory=FakeServing)
    engine: FakeEngine = field(default_factory=FakeEngine)
    progress: Watcher = field(default_factory=Watcher)

    def run(self) -> None:
        Sweep(
            spec=self.spec,
            serving=cast(Serving, self.serving),
            target=Target("http://h:1"),
            folder=self.folder,
            engines=dict.fromkeys(Engine, self.engine.measure),
            sensors=lambda: [lambda: {"cpu_busy_percent": 50.0}],
            refer=lambda served: replace(served, config={**served.config, "referred": True}),
            progress=self.progress,
        ).run()

    @property
    def order(self) -> list[tuple[str, int]]:
        return [(plan.cell.key, plan.repeat) for plan in self.engine.measured]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    record = RunRecord(
        name="r", created_at="", command=(), seed=1, spec={}, machine={}, versions={}, target="embedded",
        planned=SPEC.cells(),
    )  # fmt: skip
    return Lab(RunFolder.create(tmp_path / "run", record))


def again(lab: Lab, **changes: Any) -> Lab:
    """The same folder, met by a new process."""
    return Lab(lab.folder, **changes)


def test_everything_is_measured_in_the_order_of_the_rounds_each_configuration_loaded_once(lab: Lab) -> None:
    lab.run()
    assert lab.order == [(turn.cell.key, turn.repeat) for turn in SPEC.turns()]
    assert lab.serving.loaded == list(SPEC.configurations())
    servers = [plan.cell.server for plan in lab.engine.measured]
    assert sum(a != b for a, b in itertools.pairwise(servers)) == len(SPEC.configurations()) - 1


def test_what_is_measured_is_on_disk_with_its_machine_and_its_configuration(lab: Lab) -> None:
    lab.run()
    trials = {(trial.cell.key, trial.plan.repeat): trial for trial in lab.folder.trials()}
    assert set(trials) == set(lab.order)
    assert all("cpu_busy_percent" in trial.machine for trial in trials.values())
    assert {config["loaded"] for config in lab.folder.record.served.values()} == {
        server.key for server in SPEC.configurations()
    }
    assert lab.folder.record.finished_at


def test_engines_meet_what_is_really_served_with_its_reference(lab: Lab) -> None:
    lab.run()
    for plan, served in zip(lab.engine.measured, lab.engine.seen, strict=True):
        assert served.config["loaded"] == plan.cell.server.key
        assert served.config["referred"]


def test_a_plan_says_what_the_flags_said(lab: Lab) -> None:
    lab.spec = replace(SPEC, duration_s=7, warmup_s=2, timeout_s=3, check_fraction=0.5, processes=2)
    lab.run()
    plan = lab.engine.measured[0]
    assert (plan.duration_s, plan.warmup_s, plan.timeout_s) == (7, 2, 3)
    assert (plan.check_fraction, plan.workers, plan.longest_s) == (0.5, 2, None)


def test_an_automatic_duration_has_bounds(lab: Lab) -> None:
    lab.spec = replace(SPEC, auto_duration=True)
    lab.run()
    plan = lab.engine.measured[0]
    assert plan.longest_s is not None
    assert plan.duration_s < plan.longest_s


@pytest.mark.parametrize(("slo", "percent"), [("", 99), ("p50=1s", 99), ("p90=1s,p99.9=2s", 99.9)])
def test_an_automatic_duration_goes_on_for_the_percentile_asked(lab: Lab, slo: str, percent: float) -> None:
    lab.spec = replace(SPEC, auto_duration=True)
    lab.folder.write_record(replace(lab.folder.record, slo=slo))
    lab.run()
    assert {plan.percent for plan in lab.engine.measured} == {percent}


@pytest.mark.parametrize("after", [0, 1, 5, 13, 26])
def test_a_sweep_that_was_interrupted_goes_on_where_it_was(lab: Lab, after: int) -> None:
    def interrupt(_: Plan) -> Exception | None:
        if len(lab.engine.measured) > after:
            raise KeyboardInterrupt
        return None

    lab.engine.fails = interrupt
    with pytest.raises(KeyboardInterrupt):
        lab.run()
    assert not lab.folder.record.finished_at
    rest = again(lab)
    rest.run()
    everything = [(turn.cell.key, turn.repeat) for turn in SPEC.turns()]
    assert lab.order[:after] + rest.order == everything
    assert len(list(lab.folder.trials())) == len(everything)


def test_a_sweep_that_is_complete_loads_nothing(lab: Lab) -> None:
    lab.run()
    rest = again(lab)
    rest.run()
    assert rest.order == []
    assert rest.serving.loaded == []


def test_a_configuration_that_does_not_load_is_named_and_the_others_are_measured(lab: Lab) -> None:
    lab.serving.refuses = 1
    lab.run()
    assert {plan.cell.server.instances for plan in lab.engine.measured} == {2}
    failed = lab.folder.record.failed
    assert set(failed) == {cell.key for cell in SPEC.cells() if cell.server.instances == 1}
    assert set(failed.values()) == {"no memory left"}
    ((cell_table, reason),) = lab.progress.all("failed")
    assert len(cell_table) == len(failed)
    assert reason == "no memory left"
    assert lab.folder.record.finished_at


@pytest.mark.parametrize("error", [ToolError("perf_analyzer ended"), TargetError("the model is sick")])
def test_a_trial_that_cannot_be_measured_fails_its_cell_and_no_other(lab: Lab, error: Exception) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = lambda plan: error if plan.cell == victim else None
    lab.run()
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
        lab.run()
    assert len(lab.engine.measured) == 4
    assert len(list(lab.folder.trials())) == 3
    assert not lab.folder.record.finished_at


def test_a_target_that_dies_while_loading_ends_the_sweep(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_self: FakeServing, _server: ServerConfiguration) -> Served:
        raise Unreachable("nothing answers")

    monkeypatch.setattr(FakeServing, "configure", gone)
    with pytest.raises(Unreachable):
        lab.run()
    assert lab.engine.measured == []


def test_whoever_watches_is_told_what_begins_how_far_it_is_and_what_came_out(lab: Lab) -> None:
    lab.run()
    total = len(SPEC.turns())
    measuring = lab.progress.all("measuring")
    assert [done for _, done, _, _ in measuring] == list(range(total))
    assert {count for _, _, count, _ in measuring} == {total}
    left = [seconds for _, _, _, seconds in measuring]
    assert left == sorted(left, reverse=True)
    assert len(lab.progress.all("live")) == len(lab.progress.all("measured")) == total
    assert lab.progress.all("configuring") == list(SPEC.configurations())


def killer(lab: Lab, victims: dict[Cell, int]) -> Callable[[Plan], Exception | None]:
    """The server dies of these cells, so many times each."""

    def fails(plan: Plan) -> Exception | None:
        if not victims.get(plan.cell):
            return None
        victims[plan.cell] -= 1
        lab.serving.triton.died = "tritonserver crashed (SIGSEGV)."
        return Unreachable("nothing answers")

    return fails


def test_a_server_of_ours_that_dies_fails_the_trial_and_everything_else_is_measured(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = killer(lab, {victim: 1})
    lab.run()
    record = lab.folder.record
    assert record.failed == {victim.key: "tritonserver crashed (SIGSEGV)."}
    assert [crash.key for crash in record.crashes] == [victim.key]
    measured = {(trial.cell.key, trial.plan.repeat) for trial in lab.folder.trials()}
    everything = {(turn.cell.key, turn.repeat) for turn in SPEC.turns()}
    (lost,) = everything - measured
    assert lost[0] == victim.key
    assert lab.serving.loaded.count(victim.server) == 2  # again, on the new server
    assert record.finished_at
    assert not lab.serving.triton.died


def test_a_server_that_dies_in_the_trial_s_drain_fails_that_trial(lab: Lab) -> None:
    """The engine has its figures by then, and raises nothing."""
    first = SPEC.turns()[0]

    def die(_: Plan) -> Exception | None:
        lab.serving.triton.died = "killed" if len(lab.engine.measured) == 1 else ""
        return None

    lab.engine.fails = die
    lab.run()
    assert lab.folder.record.failed == {first.cell.key: "killed"}
    assert len(list(lab.folder.trials())) == len(SPEC.turns()) - 1


def test_a_configuration_the_server_dies_of_twice_is_given_up_and_the_next_is_measured(lab: Lab) -> None:
    server = SPEC.configurations()[0]
    of_it = [cell for cell in SPEC.cells() if cell.server == server]
    lab.engine.fails = killer(lab, {of_it[0]: 9, of_it[1]: 9})
    lab.run()
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


def test_a_server_that_dies_while_loading_is_tried_once_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[ServerConfiguration] = []
    configure = FakeServing.configure

    def die(self: FakeServing, server: ServerConfiguration) -> Served:
        loads.append(server)
        if server.instances == 2:
            self.triton.died = "tritonserver was ended by SIGKILL."
            raise Unreachable("nothing answers")
        return configure(self, server)

    monkeypatch.setattr(FakeServing, "configure", die)
    lab.run()
    assert [server.instances for server in loads].count(2) == 2
    failed = lab.folder.record.failed
    assert set(failed) == {cell.key for cell in SPEC.cells() if cell.server.instances == 2}
    assert all("SIGKILL" in reason for reason in failed.values())
    assert {plan.cell.server.instances for plan in lab.engine.measured} == {1}


def test_a_server_that_does_not_come_up_again_ends_the_sweep(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay_dead(_: FakeTriton) -> str:
        raise ServerStartFailed("3 times did not start again")

    def fails(_: Plan) -> Exception | None:
        if len(lab.engine.measured) < 4:
            return None
        monkeypatch.setattr(FakeTriton, "revive", stay_dead)
        return Unreachable("nothing answers")

    lab.engine.fails = fails
    with pytest.raises(ServerStartFailed, match="3 times"):
        lab.run()
    assert len(list(lab.folder.trials())) == 3


def test_what_a_crash_cost_is_measured_with_resume_and_told_until_then(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = killer(lab, {victim: 1})
    lab.run()
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert (row.repeats, row.verdict) == (2, "INVALID")
    assert "server-died" in row.findings
    assert any("SIGSEGV" in remark.seen for remark in row.remarks)
    record = lab.folder.record
    assert restarts(record) == "tritonserver died 1 time and was started again."
    lab.folder.write_record(replace(record, failed={}, finished_at=""))  # as --resume does
    rest = again(lab)
    rest.run()
    assert len(rest.order) == 1
    after = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert after.repeats == 3
    assert "server-died" not in after.findings


def test_a_cell_that_only_killed_the_server_is_failed_with_a_typed_finding(lab: Lab) -> None:
    victim = SPEC.cells()[-1]
    lab.engine.fails = killer(lab, {victim: 1})
    lab.spec = replace(SPEC, repeats=1)
    lab.run()
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert (row.repeats, row.verdict, row.findings) == (0, "FAILED", "server-died")
    assert row.reason == "tritonserver crashed (SIGSEGV)."


def test_a_repeat_that_failed_otherwise_is_a_warning_beside_the_others(lab: Lab) -> None:
    victim = SPEC.cells()[3]
    lab.engine.fails = lambda plan: (
        ToolError("the tool ended") if plan.cell == victim and plan.repeat == 2 else None
    )
    lab.run()
    row = next(row for row in RunResults.of(lab.folder).rows if row.cell == victim.key)
    assert row.repeats == 2
    assert "repeat-failed" in row.findings
