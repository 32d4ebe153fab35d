"""The command under a cell measures that cell again: read back, it is the same cell, measured so."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.aggregate import absent
from bench.cli.spec import OFFLINE_CONCURRENCY, sweep_spec
from bench.core import command_line
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory
from bench.core.command_line import LOAD_MAKERS, TARGET
from bench.core.options import BY_FLAG
from bench.core.run_folder import RunRecord
from bench.core.spec import Scenario, SweepSpec
from bench.core.vit_variants import AXES
from bench.report.repeat_command import repeat_command
from tests.support import synthetic
from tests.support.command import values_of
from tests.support.synthetic import Study

names = st.text(st.sampled_from("abcXYZ_-09."), min_size=1, max_size=8).filter(lambda text: text not in AXES)
values = st.text(st.sampled_from("abcXYZ_-09./ 'é"), min_size=1, max_size=8).filter(lambda t: t == t.strip())
axes = st.dictionaries(names, st.lists(values, min_size=1, max_size=3, unique=True).map(tuple), max_size=3)
counts = st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True).map(tuple)
optional = st.one_of(st.just((None,)), counts)
rates = st.decimals("0.001", "99999", places=3).map(float)


def some(kind: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(list(kind)), min_size=1, unique=True).map(tuple)


@st.composite
def specs(draw: st.DrawFn) -> SweepSpec:
    engines = draw(some([Engine.LOCUST, Engine.PERF_ANALYZER]))
    is_auto = draw(st.booleans())
    delays = draw(st.one_of(optional, st.just((-1, 0, 250))))
    preferred = st.just(()) if -1 in delays else st.one_of(st.just(()), counts.map(sorted).map(tuple))
    spec = SweepSpec(
        model=draw(names),
        batches=draw(counts),
        instances=draw(optional),
        max_batches=draw(optional),
        queue_delays_us=delays,
        preferred_batches=draw(preferred),
        parameters=tuple(draw(axes).items()),
        concurrencies=draw(counts),
        rates_per_s=tuple(draw(st.lists(rates, max_size=2, unique_by=lambda rate: f"{rate:g}"))),
        arrival=draw(st.sampled_from(Arrival)),
        protocols=draw(some(Protocol)),
        engines=engines,
        shared_memory=draw(some([SharedMemory.NONE, SharedMemory.SYSTEM])),
        duration_s=5.0 if is_auto else draw(rates),
        auto_duration=is_auto,
        warmup_s=draw(rates),
        repeats=draw(st.integers(1, 20)),
        seed=draw(st.integers(0, 2**31 - 1)),
        image_height=draw(st.integers(1, 8192)),
        check_fraction=draw(st.integers(0, 1000)) / 1000,
        timeout_s=draw(rates),
        processes=draw(st.integers(0, 128)),
    )
    scenario = draw(st.sampled_from([None, *Scenario]))
    match scenario:
        case None:
            return spec
        case Scenario.SINGLE_STREAM:
            fixed = {"batches": (1,), "concurrencies": (1,), "rates_per_s": ()}
        case Scenario.MULTI_STREAM:
            fixed = {"concurrencies": (1,), "rates_per_s": ()}
        case Scenario.SERVER:
            fixed = {"concurrencies": (), "rates_per_s": (5.0,)}
        case Scenario.OFFLINE:
            fixed = {"concurrencies": (OFFLINE_CONCURRENCY,), "rates_per_s": ()}
    return dataclasses.replace(spec, scenario=scenario, arrival=Arrival.POISSON, **fixed)


def read_back(words: list[str]) -> SweepSpec:
    """As `bench sweep` would."""
    values = values_of("sweep", *words)
    spec = sweep_spec(values)
    values.mistakes.check()
    return spec


def record(spec: SweepSpec, *command: str) -> RunRecord:
    base = synthetic.record(Study(cells=(synthetic.cell(),)))
    asked = json.loads(json.dumps(asdict(spec)))
    return dataclasses.replace(base, spec=asked, seed=spec.seed, command=("bench", "sweep", *command))


@given(specs())
def test_flags_read_back_are_the_spec_they_were_made_of(spec: SweepSpec) -> None:
    assert read_back(command_line.words(command_line.flags_of(spec))) == spec
    assert command_line.spec_of(record(spec)) == spec


@given(specs(), st.data())
def test_a_cells_command_read_back_asks_for_that_cell_and_nothing_else(
    spec: SweepSpec, data: st.DataObject
) -> None:
    of = data.draw(st.sampled_from(spec.cells()))
    ran = record(spec)
    command = shlex.split(repeat_command(absent(of, ran), ran))
    assert command[:2] == ["bench", "sweep"]
    again = read_back(command[2:])
    assert again.cells() == (of,)
    measured = ("duration_s", "auto_duration", "warmup_s", "repeats", "seed", "timeout_s", "check_fraction")
    assert [getattr(again, name) for name in measured] == [getattr(spec, name) for name in measured]
    assert (again.image_height, again.image_width) == (spec.image_height, spec.image_width)


def test_where_it_was_measured_goes_along_and_headers_do_not() -> None:
    of = synthetic.cell()
    said = ["--url", "h:8000", "--vit=tiny", "--header", "***", "--slo", "p99=1s", "--name", "x"]
    ran = record(SweepSpec(model="m", batches=(1,)), *said)
    command = repeat_command(absent(of, ran), ran)
    assert command.endswith("--url h:8000 --vit=tiny --slo p99=1s")
    assert command_line.target_flags(ran) == {"url": "h:8000", "vit": "tiny", "slo": "p99=1s"}


def test_a_service_made_for_the_run_is_made_again() -> None:
    said = ["--deploy", "--triton-image", "r/vit:1", "--gpu=1", "--set", "cpu=8", "--keep"]
    ran = record(SweepSpec(model="m", batches=(1,)), *said)
    command = repeat_command(absent(synthetic.cell(), ran), ran)
    assert command.endswith("--deploy --triton-image r/vit:1 --gpu=1 --set cpu=8")
    assert command_line.target_flags(ran)["deploy"] is True


@pytest.mark.parametrize("flag", BY_FLAG)
def test_a_command_of_an_older_run_is_understood_with_any_of_its_flags(flag: str) -> None:
    """What says what was measured, and who made the load, goes along; nothing else does."""
    option = BY_FLAG[flag]
    typed = [flag] if option.is_switch else [flag, "1"]
    spec, of = SweepSpec(model="m", batches=(1,)), synthetic.cell()
    without, ran = record(spec), record(spec, *typed, "--gone-by-now", "x")
    plain = shlex.split(repeat_command(absent(of, without), without))
    goes_along = option.scope in (*TARGET, *LOAD_MAKERS) and not option.is_secret
    assert shlex.split(repeat_command(absent(of, ran), ran)) == [*plain, *(typed if goes_along else [])]


def test_a_record_without_a_spec_of_its_own_still_repeats_its_cells() -> None:
    ran = dataclasses.replace(
        synthetic.record(Study(cells=(synthetic.cell(),))), spec={"model": "m", "batches": 3}
    )
    assert "--batch 8" in repeat_command(absent(synthetic.cell(), ran), ran)


def test_who_made_the_load_makes_it_again_but_not_for_a_run_against_this_one() -> None:
    said = ["--workers", "4", "--locust-master=10.0.0.5", "--in-cluster", "--load-image", "i:1"]
    ran = record(SweepSpec(model="m", batches=(1,)), *said)
    assert repeat_command(absent(synthetic.cell(), ran), ran).endswith(shlex.join(said))
    assert command_line.target_flags(ran) == {}


def test_a_model_without_a_batch_axis_is_not_asked_for_a_maximum_of_none() -> None:
    of = synthetic.cell(batch=1)
    ran = record(SweepSpec(model="m", batches=(1,)))
    served = {of.server.key: {"max_batch_size": 0}}
    ran = dataclasses.replace(ran, served=served)
    command = shlex.split(repeat_command(absent(of, ran), ran))
    assert "--max-batch" not in command
    read_back(command[2:])
