"""A cell's own page: bounded in size, and its columns count what the samples hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench.analysis import cell_details
from bench.analysis.aggregate import MeasuredTrial
from bench.analysis.cell_details import CellDetail, SeriesBudget
from bench.analysis.results import RunResults
from bench.analysis.stats import nearest_rank
from bench.core.samples import Outcome, Samples
from bench.core.trial import Trial
from bench.report import page
from tests.support import synthetic
from tests.support.synthetic import World, cell


def detail_of(*trials: Trial) -> CellDetail:
    return cell_details.detail([MeasuredTrial.of(trial, None) for trial in trials], SeriesBudget(True, 1))


def test_bins_lose_no_request() -> None:
    trial = synthetic.trial(cell(batch=1, concurrency=4))
    series = cell_details.time_series(trial, bins=30)
    width = series["t"][1] - series["t"][0]
    done = sum(value * width for value in series["lines"]["done_per_s"])
    assert done == pytest.approx(len(trial.samples.good()), rel=0.03)
    assert len(series["t"]) == 30
    assert {len(line) for line in series["lines"].values()} == {30}


def test_in_flight_is_the_concurrency_of_a_closed_loop() -> None:
    series = cell_details.time_series(synthetic.trial(cell(batch=1, concurrency=7)))
    middle = series["lines"]["in_flight"][5:-5]
    assert set(middle) == {7.0}


def test_the_window_lies_between_warm_up_and_drain() -> None:
    trial = synthetic.trial(cell(batch=1))
    start, end = cell_details.time_series(trial)["window"]
    assert start == pytest.approx(1.0, abs=0.01)
    assert end - start == pytest.approx(trial.window.seconds, abs=0.01)


def test_the_ladder_climbs_and_says_how_far_the_samples_carry() -> None:
    samples = np.sort(np.random.default_rng(1).integers(1, 10**9, 1000))
    found = cell_details.ladder(samples, samples)
    assert found["response_ms"] == sorted(found["response_ms"])
    at = found["steps"].index(100)
    assert found["response_ms"][at] == pytest.approx(nearest_rank(samples, 99) / 1e6, rel=1e-3)
    assert found["steps"][found["carried"] - 1] <= 200  # 1,000 samples carry p99, not p99.9
    assert found["carried"] > at


def test_a_million_samples_make_no_longer_lists() -> None:
    sizes = []
    for requests in (1_000, 200_000):
        trial = synthetic.trial(cell(), world=World(requests=requests))
        sizes.append(len(str(detail_of(trial).series)))
    assert sizes[1] < 1.3 * sizes[0]


def test_a_trial_without_requests_has_an_empty_course() -> None:
    trial = dataclasses.replace(synthetic.trial(cell()), samples=Samples.of([]))
    assert cell_details.time_series(trial)["t"] == []


def test_each_finding_once_with_the_repeats_that_have_it() -> None:
    trials = [synthetic.trial(cell(batch=32), repeat) for repeat in range(3)]
    found = {entry["code"]: entry["repeats"] for entry in detail_of(*trials).findings}
    assert found["too-few-samples"] == [0, 1, 2]


def test_a_cell_of_which_nothing_was_ever_answered_has_a_page(tmp_path: Path) -> None:
    """An open loop on a server that hangs: requests wait until the end, and none has a service time."""
    of = cell(rate_per_s=20.0)
    trial = synthetic.trial(of)
    outcome = np.full(len(trial.samples), Outcome.UNFINISHED)
    stuck = dataclasses.replace(trial, samples=dataclasses.replace(trial.samples, outcome=outcome))
    found = detail_of(stuck)
    assert found.ladder["steps"]
    assert set(found.ladder["service_ms"]) == {None}
    folder = synthetic.write(tmp_path / "run", synthetic.Study(cells=(of,), repeats=1))
    folder.write_trial(stuck)
    assert of.key in page.render([RunResults.of(folder)])


def test_a_large_run_draws_one_trial_of_each_cell_and_none_beyond_its_room() -> None:
    small, large = SeriesBudget.of([5] * 12), SeriesBudget.of([5] * 200)
    assert (small.every_trial, small.series) == (True, 60)
    assert (large.every_trial, large.series) == (False, 200)
    for budget in (small, large):
        assert budget.bins(20) * 20 * budget.series <= cell_details.MOST_NUMBERS
    trials = [synthetic.trial(cell(), repeat, World(slowdown=slow)) for repeat, slow in enumerate((2, 1, 3))]
    found = cell_details.detail([MeasuredTrial.of(trial, None) for trial in trials], large)
    assert [series["repeat"] for series in found.series] == [0]
    assert found.repeats == 3
