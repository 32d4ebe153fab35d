"""Axes multiply into cells; rounds measure each cell once, in an order that a seed decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.cell import Cell, Engine, Load, Protocol, ServerConfiguration, SharedMemory
from bench.core.spec import SweepSpec, columns, describe

SPEC = SweepSpec(
    model="m",
    batches=(1, 8),
    instances=(1, 2),
    concurrencies=(1, 4),
    protocols=(Protocol.HTTP, Protocol.GRPC),
    engines=(Engine.LOCUST, Engine.PERF_ANALYZER),
    repeats=3,
)


def unique(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(values, min_size=1, max_size=2, unique=True).map(tuple)


specs = st.builds(
    SweepSpec,
    model=st.sampled_from(["m", "python_vit"]),
    batches=unique(st.integers(1, 64)),
    instances=unique(st.integers(1, 8)),
    max_batches=unique(st.integers(1, 64)),
    parameters=st.just(()) | st.just((("precision", ("fp32", "bf16")),)),
    concurrencies=unique(st.integers(1, 64)),
    rates_per_s=unique(st.integers(1, 100)),
    protocols=st.sampled_from([(Protocol.HTTP,), tuple(Protocol)]),
    engines=st.sampled_from([(Engine.LOCUST,), tuple(Engine)]),
    shared_memory=st.sampled_from([(SharedMemory.NONE,), (SharedMemory.NONE, SharedMemory.SYSTEM)]),
    repeats=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)


@given(specs)
@settings(max_examples=40, deadline=None)
def test_cells_are_the_product_of_the_axes_each_with_a_key_of_its_own(spec: SweepSpec) -> None:
    cells = spec.cells()
    levels = len(spec.concurrencies) + len(spec.rates_per_s)
    servers = len(spec.instances) * len(spec.max_batches) * (2 if spec.parameters else 1)
    loads = len(spec.batches) * levels * len(spec.protocols) * len(spec.shared_memory)
    assert len(cells) == servers * loads * len(spec.engines)
    assert len({cell.key for cell in cells}) == len(cells)
    assert len(spec.configurations()) == servers == len({server.key for server in spec.configurations()})


@given(specs)
@settings(max_examples=40, deadline=None)
def test_a_round_measures_every_cell_of_a_configuration_once(spec: SweepSpec) -> None:
    for server in spec.configurations():
        cells = {cell for cell in spec.cells() if cell.server == server}
        rounds = list(spec.rounds(server))
        assert [trials[0].repeat for trials in rounds] == list(range(spec.repeats))
        for trials in rounds:
            measured = [trial.cell for trial in trials if not trial.is_reference]
            assert set(measured) == cells
            assert len(measured) == len(cells)


@given(specs)
@settings(max_examples=40, deadline=None)
def test_the_order_follows_from_the_seed_alone(spec: SweepSpec) -> None:
    server = spec.configurations()[0]
    assert list(spec.rounds(server)) == list(spec.rounds(server))


def test_cells_are_interleaved_and_rounds_differ() -> None:
    spec = replace(SPEC, concurrencies=tuple(range(1, 20)))
    server = spec.configurations()[0]
    orders = [tuple(trial.cell for trial in trials) for trials in spec.rounds(server)]
    assert len(set(orders)) == len(orders)
    assert list(replace(spec, seed=2).rounds(server)) != list(spec.rounds(server))


def test_the_same_load_meets_the_same_arrivals_whatever_serves_or_sends_it() -> None:
    seeds: dict[tuple[str, int], set[int]] = {}
    for server in SPEC.configurations():
        for trials in SPEC.rounds(server):
            for trial in trials:
                seeds.setdefault((trial.cell.load.key, trial.repeat), set()).add(SPEC.seed_of(trial))
    assert all(len(found) == 1 for found in seeds.values())
    assert len({next(iter(found)) for found in seeds.values()}) == len(seeds)  # another load, another tape


def test_a_load_is_either_closed_or_open() -> None:
    with pytest.raises(ValueError, match="either"):
        Load(protocol=Protocol.HTTP, batch=1)
    with pytest.raises(ValueError, match="either"):
        Load(protocol=Protocol.HTTP, batch=1, concurrency=1, rate_per_s=1.0)


def test_the_estimate_counts_trials_and_loads() -> None:
    spec = replace(SPEC, duration_s=5, warmup_s=1)
    trials = len(spec.trials())
    assert trials == sum(len(trials) for server in spec.configurations() for trials in spec.rounds(server))
    assert spec.estimate_s(10) == pytest.approx(trials * spec.trial_s() + 2 * 10)
    assert spec.trial_s() > 6


def test_a_reference_cell_is_measured_again_in_each_round_as_a_further_repeat_of_it() -> None:
    for server in SPEC.configurations():
        rounds = list(SPEC.rounds(server))
        references = [trial for trials in rounds for trial in trials if trial.is_reference]
        assert len(references) == len(rounds)
        assert len({trial.cell for trial in references}) == 1
    assert len({(trial.cell.key, trial.repeat) for trial in SPEC.trials()}) == len(SPEC.trials())


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, repeats=1),  # quick: every trial counts
        replace(
            SPEC, batches=(1,), concurrencies=(1,), engines=(Engine.LOCUST,)
        ),  # two cells watch each other
    ],
)
def test_where_it_would_cost_more_than_it_tells_there_is_no_reference(spec: SweepSpec) -> None:
    assert not any(trial.is_reference for trial in spec.trials())


@pytest.mark.parametrize(
    ("server", "load", "engine", "said"),
    [
        ({"instances": 1}, {"batch": 8, "concurrency": 4}, Engine.LOCUST, "8, 1 instance, http, 4 users"),
        ({}, {"batch": 1, "rate_per_s": 2.5}, Engine.LOCUST, "1, as served, http, 2.5/s poisson"),
        ({"instances": 2}, {"batch": 1, "concurrency": 1}, Engine.LOCUST, "1, 2 instances, http, 1 user"),
        (
            {"instances": 1, "parameters": (("precision", "bf16"),)},
            {"batch": 1, "concurrency": 2},
            Engine.PERF_ANALYZER,
            "1, 1 instance, http, 2 users, precision bf16, perf_analyzer",
        ),
    ],
)  # fmt: skip
def test_a_cell_is_described_in_one_line(
    server: dict[str, object], load: dict[str, object], engine: Engine, said: str
) -> None:
    cell = Cell(
        server=ServerConfiguration(model="m", **server),  # type: ignore[arg-type]  # fields of the row
        load=Load(protocol=Protocol.HTTP, **load),  # type: ignore[arg-type]  # fields of the row
        engine=engine,
    )
    assert describe(cell) == f"batch {said}"
    assert "precision" not in columns(cell) or columns(cell)["precision"] == "bf16"


def test_fresh_trials_are_made_unasked_where_they_take_a_tenth_of_the_time_at_most() -> None:
    spec = SweepSpec(model="m", batches=tuple(range(1, 13)), concurrencies=(1,), repeats=3)
    few = replace(spec, batches=(1, 8))
    assert spec.confirms(None)
    assert not spec.confirms(False)
    assert not few.confirms(None)
    assert few.confirms(True)
    assert not replace(spec, repeats=2).confirms(True)
    assert not replace(spec, batches=(1,)).confirms(True)
    taken = {(trial.cell, trial.repeat) for trial in spec.trials()}
    assert not taken & {(trial.cell, trial.repeat) for trial in spec.fresh(spec.cells()[0])}
