"""Variants measured in turns: what is asked of each, in which order, and the verdict that follows."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pytest

from bench.analysis.comparison import compare, exit_code
from bench.analysis.results import RunResults
from bench.cli.spec import sweep_spec
from bench.cli.values import Values
from bench.cli.variants import applied, inherited, variants_of
from bench.cli.verbs import ab_test
from bench.core.cell import ServerConfiguration
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_OK, EXIT_WRONG_USE, worst
from bench.core.gates import parse_gate
from bench.core.options import OPTIONS
from bench.core.run_folder import RunFolder
from bench.core.spec import Reload, SweepSpec
from bench.core.trial import Plan
from bench.core.variant import Variant
from bench.experiments.ab_test import variants
from bench.experiments.ab_test.participants import measure_interleaved
from bench.experiments.sweep import Sweep
from bench.report.comparison import render
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from tests.support import calibration, synthetic
from tests.support.command import values_of
from tests.support.fake_lab import FakeTriton, Lab
from tests.support.synthetic import Study, World, cell

GATES = (parse_gate("throughput<-5%"), parse_gate("p50>+5%"))


def values(*words: str) -> Values:
    return values_of("sweep", *words)


def parse_variant(text: str) -> Variant:
    parsed: Variant = OPTIONS["variant"].parse(text)
    return parsed


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("old=", Variant("old")),
        ("new=delay_ms=55", Variant("new", (("delay_ms", "55"),))),
        ("b=model=m2,instances=2", Variant("b", (("model", "m2"), ("instances", "2")))),
        ("c=version=2", Variant("c", (("version", "2"),))),
    ],
)
def test_a_variant_reads_as_it_is_written(text: str, variant: Variant) -> None:
    assert parse_variant(text) == variant


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("old", "NAME= for the flags"),
        ("../x=", "give NAME=SETTING"),
        ("a=instances", "give NAME=SETTING"),
        ("a=rate=5/s", "rate is of the load"),
        ("a=version=x", "whole number"),
        ("a=instances=1,instances=2", "sets something twice"),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_variant(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--variant", "a="], "needs a second one"),
        (["--variant", "a=", "--variant", "a=instances=2"], "names two variants"),
        (["--fail-if", "p99>+5%"], "goes with --against RUN or --variant"),
        (["--against", "run", "--variant", "base="], "choose another name"),
    ],
)
def test_variants_that_cannot_be_compared_are_mistakes(words: list[str], says: str) -> None:
    asked = values(*words)
    variants_of(asked)
    assert says in " ".join(asked.mistakes.mistakes)


def test_a_variant_changes_the_server_and_leaves_the_load() -> None:
    typed = values("--model", "m", "--batch", "1,8", "--parameter", "a=1", "--parameter", "b=2")
    changed = applied(typed, parse_variant("x=instances=2,max-batch=16,b=3,version=2"))
    spec = sweep_spec(changed)
    typed.mistakes.check()
    assert spec.configurations() == (
        ServerConfiguration(model="m", instances=2, max_batch=16, parameters=(("a", "1"), ("b", "3"))),
    )
    assert spec.loads() == sweep_spec(typed).loads()


def test_what_is_wrong_with_a_variant_is_noted_with_everything_else() -> None:
    typed = values("--batch", "0")
    sweep_spec(applied(typed, parse_variant("x=instances=many,precision=int4")))
    assert [said.split(":")[0] for said in typed.mistakes.mistakes] == [
        "--batch 0", "--instances many", "--precision int4",
    ]  # fmt: skip


def test_what_is_not_typed_is_as_the_base_was_measured() -> None:
    asked = sweep_spec(values("--model", "m", "--batch", "2", "--concurrency", "3", "--parameter", "a=1"))
    base = dataclasses.replace(
        synthetic.record(Study(cells=(cell(),))),
        spec=json.loads(json.dumps(asdict(asked))),
        command=("bench", "sweep", "--url", "h:1"),
    )
    same = inherited(values(), base)
    assert sweep_spec(same) == asked
    assert same.text("url") == "h:1"
    other = sweep_spec(inherited(values("--rate", "5/s", "--parameter", "b=2"), base))
    assert (other.rates_per_s, other.concurrencies, other.batches) == ((5.0,), (), (2,))
    assert dict(other.parameters) == {"a": ("1",), "b": ("2",)}
    assert sweep_spec(inherited(values("--quick"), base)).repeats == 1


def test_only_what_both_configurations_have_is_compared() -> None:
    assert not variants.differ({"a": 1, "old": 2}, {"a": 1, "new": 3})
    assert variants.differ({"a": 1}, {"a": 2})


@dataclass
class Bench:
    """Participants on one server. `order`: who measured which repeat; `loaded`: who loaded a model."""

    labs: dict[str, Lab]
    sweeps: list[Sweep]
    order: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, models: Mapping[str, str], reload: Reload = Reload.NEVER) -> Bench:
        triton, labs = FakeTriton(), {}
        for name, model in models.items():
            spec = SweepSpec(
                model=model, batches=(1, 2), instances=(1,), concurrencies=(1,), repeats=3, reload=reload
            )
            labs[name] = Lab.at(path / name, spec)
            labs[name].serving.triton = triton
        bench = cls(labs, [Sweep(lab.runner) for lab in labs.values()])
        for name, lab in labs.items():
            lab.engine.fails = partial(bench._measured, name)
            lab.serving.on_load = partial(bench.loaded.append, name)
        return bench

    def _measured(self, name: str, plan: Plan) -> None:
        self.order.append(f"{name}{plan.repeat}")


def test_rounds_alternate_and_a_model_is_loaded_only_when_another_had_it(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, {"a": "m", "b": "m"})
    measure_interleaved(bench.sweeps)
    assert bench.order == ["a0", "a0", "b0", "b0", "b1", "b1", "a1", "a1", "a2", "a2", "b2", "b2"]
    assert bench.loaded == ["a", "b", "a", "b"]
    assert all(lab.folder.record.finished_at for lab in bench.labs.values())


@pytest.mark.parametrize("models", [{"a": "m", "b": "m"}, {"a": "a", "b": "b"}])
def test_with_reload_repeat_every_round_has_a_start_of_its_own(
    tmp_path: Path, models: Mapping[str, str]
) -> None:
    """B's second round follows its first: without, both shared a load, and two models never had a second."""
    bench = Bench.of(tmp_path, models, Reload.REPEAT)
    measure_interleaved(bench.sweeps)
    assert bench.order == ["a0", "a0", "b0", "b0", "b1", "b1", "a1", "a1", "a2", "a2", "b2", "b2"]
    assert bench.loaded == ["a", "b", "b", "a", "a", "b"]
    assert sum(lab.serving.afresh for lab in bench.labs.values()) == 6


def test_a_comparison_on_a_server_of_ours_reloads_unless_told_otherwise() -> None:
    def reload_of(*words: str) -> Reload:
        asked = values("--model", "delay", "--variant", "a=", "--variant", "b=instances=2", *words)
        return ab_test._spec(asked, variants_of(asked)[0]).reload

    assert reload_of() is Reload.REPEAT
    assert reload_of("--reload", "never") is Reload.NEVER
    assert reload_of("--url", "h:1") is Reload.NEVER
    assert reload_of("--url", "h:1", "--reload", "repeat") is Reload.REPEAT


@pytest.mark.parametrize(("of_base", "of_new"), [("repeat", "repeat"), ("repeat", "never"), (None, None)])
def test_the_luck_of_a_start_is_in_the_interval_where_both_runs_reloaded(
    tmp_path: Path, of_base: str | None, of_new: str | None
) -> None:
    folders = []
    for name, reload in (("a", of_base), ("b", of_new)):
        folder = synthetic.write(tmp_path / name, Study(cells=(cell(),), repeats=3, name=name))
        said = {} if reload is None else {"reload": reload}
        folder.write_record(dataclasses.replace(folder.record, spec={**folder.record.spec, **said}))
        folders.append(RunResults.of(folder))
    found = compare(*folders, GATES)
    assert (found.luck == 0) == (of_base == of_new == "repeat")
    assert ("luck of a server's start is not in the intervals" in render(found, "table")) == (found.luck > 0)


def test_two_models_stay_loaded(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, {"a": "a", "b": "b"})
    measure_interleaved(bench.sweeps)
    assert bench.loaded == ["a", "b"]


def test_what_is_measured_already_is_not_measured_again(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, {"a": "m", "b": "m"})
    measure_interleaved(bench.sweeps)
    done = len(bench.order), len(bench.loaded)
    measure_interleaved(bench.sweeps)
    assert (len(bench.order), len(bench.loaded)) == done


def test_a_variant_that_does_not_load_fails_alone_and_is_tried_once(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, {"a": "m", "b": "m"})
    bench.labs["b"].serving.refuses = 1
    measure_interleaved(bench.sweeps)
    assert set(bench.order) == {"a0", "a1", "a2"}
    assert bench.loaded.count("b") == 1
    assert set(bench.labs["b"].folder.record.failed.values()) == {"no memory left"}


def test_a_server_that_dies_loses_one_trial_and_every_model_is_loaded_again(tmp_path: Path) -> None:
    bench = Bench.of(tmp_path, {"a": "a", "b": "b"})
    bench.labs["b"].dies(lambda _: len(bench.labs["b"].engine.measured) == 1)
    measure_interleaved(bench.sweeps)
    assert sorted(bench.loaded) == ["a", "a", "b", "b"]
    records = [lab.folder.record for lab in bench.labs.values()]
    assert [len(record.crashes) for record in records] == [len(record.failed) for record in records] == [0, 1]
    assert [len(list(lab.folder.trials())) for lab in bench.labs.values()] == [6, 5]


def variant(path: Path, name: str, world: World, value: str) -> RunFolder:
    study = Study(
        cells=tuple(cell(batch=b, parameters=(("delay_ms", value),)) for b in (1, 8)),
        repeats=5, name=name, world=world,
    )  # fmt: skip
    folder = synthetic.write(path / name, study)
    folder.write_record(dataclasses.replace(folder.record, spec={**folder.record.spec, "turns": "x"}))
    return folder


@pytest.mark.parametrize(("slowdown", "code"), [(1.0, EXIT_OK), (1.1, EXIT_MISSED)])
def test_variants_are_matched_by_what_they_share_and_paired(
    tmp_path: Path, slowdown: float, code: int
) -> None:
    old = variant(tmp_path, "old", World(), "50")
    new = variant(tmp_path, "new", World(slowdown=slowdown, seed=2), "55")
    found = compare(RunResults.of(old), RunResults.of(new), GATES)
    assert len(found.cells) == 2
    assert found.paired
    assert exit_code(found) == code


def test_a_regression_says_more_than_something_undecided() -> None:
    assert worst([EXIT_OK, EXIT_INCONCLUSIVE, EXIT_MISSED]) == EXIT_MISSED
    assert worst([EXIT_OK, EXIT_INCONCLUSIVE]) == EXIT_INCONCLUSIVE
    assert worst([EXIT_OK]) == EXIT_OK


@pytest.mark.alone
@pytest.mark.e2e
def test_a_tenth_slower_is_caught_on_a_real_server_and_the_same_again_is_not(tmp_path: Path) -> None:
    words = ["--model", "delay", "--batch", "1", "--concurrency", "1", "--repeats", "3"]
    words += ["--duration", "0.8s", "--warmup", "0.1s", "--fail-if", "p50>+5%"]
    words += ["--variant", "old=", "--variant", "same=delay_ms=50", "--variant", "new=delay_ms=55"]
    command = [sys.executable, "-m", "bench", "sweep", *words, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == EXIT_MISSED, done.stderr + done.stdout
    assert "paired" in done.stdout
    assert "of such comparisons see a change of" in done.stdout
    log = (tmp_path / "run" / "tritonserver.log").read_text()
    assert log.count("successfully loaded 'delay'") == 9  # each variant before each of its repeats
    assert all((tmp_path / "run" / f"compare-{name}.html").exists() for name in ("same", "new"))
    names = ("old", "same", "new")
    old, same, new = (RunResults.of(RunFolder.open(tmp_path / "run" / name)) for name in names)
    gates = [parse_gate("p50>+5%")]
    assert exit_code(compare(old, same, gates)) == EXIT_OK
    assert exit_code(compare(old, new, gates)) == EXIT_MISSED


def sweep(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "sweep", "--batch", "1", "--duration", "500ms", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.e2e
def test_somebody_elses_server_is_measured_in_turns_and_left_as_it_was(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    control = Triton(triton.target)
    calibration.serve(triton, ServerConfiguration(model="delay", parameters=(("delay_ms", "20"),)))
    before = control.config("delay")
    address = ["--url", triton.target.http_url, "--model", "delay"]
    words = ["--concurrency", "1", "--repeats", "3", "--warmup", "100ms", "--fail-if", "p50>+50%"]
    done = sweep(
        *address, *words, "--variant", "old=", "--variant", "new=delay_ms=40", "--out", str(tmp_path / "run")
    )
    assert done.returncode == EXIT_MISSED, done.stderr + done.stdout
    assert control.config("delay") == before
    folders = [RunFolder.open(tmp_path / "run" / name) for name in ("old", "new")]
    medians = [RunResults.of(folder).rows[0].latency_p50_ms or 0.0 for folder in folders]
    assert 20 <= medians[0] < 40 <= medians[1]
    again = sweep(*address, *words, "--against", str(tmp_path / "run/old"), "--variant", "b=delay_ms=45",
                  "--out", str(tmp_path / "again"))  # fmt: skip
    assert again.returncode == EXIT_MISSED, again.stderr + again.stdout
    assert sorted(path.parent.name for path in (tmp_path / "again").glob("*/run.json")) == ["b", "base"]
    assert control.config("delay") == before


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("model", "variant", "says"),
    [
        ("delay", "new=dealy_ms=40", "--parameter dealy_ms=40: delay has no such parameter"),
        ("none", "new=instances=2", "none"),
    ],
)
def test_what_somebody_elses_server_does_not_have_is_a_mistake(
    triton: EmbeddedTriton, tmp_path: Path, model: str, variant: str, says: str
) -> None:
    calibration.serve(triton, ServerConfiguration(model="delay"))
    words = ["--url", triton.target.http_url, "--model", model, "--variant", "old=", "--variant", variant]
    done = sweep(*words, "--out", str(tmp_path / "run"))
    assert done.returncode == EXIT_WRONG_USE, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "run" / "old").exists()
