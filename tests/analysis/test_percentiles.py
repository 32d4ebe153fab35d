"""Percentiles of dependent requests: laws, and intervals and proofs against servers whose tail is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.percentiles import PooledLatencies, design_effect
from bench.analysis.stats import estimate_under, nearest_rank
from benchmarks.coverage import percentiles as coverage


def independent(n: int = 2000, repeats: int = 3, seed: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.asarray(random.lognormal(15, 0.5, n), dtype=np.int64) for _ in range(repeats)]


def test_independent_requests_count_one_each() -> None:
    effects = [design_effect(independent(seed=seed)) for seed in range(40)]
    assert np.mean(effects) < 1.7
    assert min(effects) >= 1


@pytest.mark.parametrize("size", [5, 20, 50])
def test_requests_that_come_as_one_count_as_one(size: int) -> None:
    effects = [
        design_effect([np.repeat(one, size) for one in independent(4000, seed=seed)]) for seed in range(20)
    ]
    assert np.median(effects) == pytest.approx(1.4 * size, rel=0.3)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), factor=st.integers(2, 1000))
def test_dependence_is_of_the_order_not_of_the_unit(seed: int, factor: int) -> None:
    repeats = independent(500, seed=seed)
    assert design_effect([one * factor for one in repeats]) == pytest.approx(design_effect(repeats))
    assert design_effect(repeats[::-1]) == pytest.approx(design_effect(repeats))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), percent=st.sampled_from([50.0, 90.0, 99.0]))
def test_a_proof_asks_for_more_than_mlperfs_and_an_interval_holds_its_figure(
    seed: int, percent: float
) -> None:
    repeats = independent(seed=seed)
    pooled = PooledLatencies.of(repeats)
    interval, proved = pooled.interval_ns(percent), pooled.proved_ns(percent)
    assert interval is not None
    low, high = interval
    assert low <= nearest_rank(pooled.ordered, percent)
    if high is not None:
        assert high >= nearest_rank(pooled.ordered, percent)
    if proved is not None:
        assert proved >= (estimate_under(pooled.ordered, percent) or 0)


def test_what_differs_from_repeat_to_repeat_widens_the_interval() -> None:
    alike = independent(5000)
    lucky = [
        np.asarray(one * speed, dtype=np.int64) for one, speed in zip(alike, (1.0, 1.2, 1.5), strict=True)
    ]
    widths = []
    for repeats in (alike, lucky):
        low, high = PooledLatencies.of(repeats).interval_ns(99.0) or (1.0, None)
        widths.append(np.inf if high is None else high / low)
    assert widths[1] > 2 * widths[0]


def test_two_repeats_and_few_requests_prove_nothing() -> None:
    assert PooledLatencies.of(independent(repeats=2)).proved_ns(99.0) is None
    assert PooledLatencies.of(independent(repeats=2)).interval_ns(99.0) is None
    assert PooledLatencies.of(independent(200)).proved_ns(99.0) is None
    empty = PooledLatencies.of([np.array([], dtype=np.int64)] * 3)
    assert empty.proved_ns(99.0) is None
    assert empty.effect == 1


def test_clusters_that_no_bound_can_be_proved_from_say_how_many_requests_would_do() -> None:
    alone = PooledLatencies.of(independent(1000))
    clustered = PooledLatencies.of([np.repeat(one[:100], 20) for one in independent(1000)])
    assert alone.proved_ns(99.0) is not None
    assert clustered.proved_ns(99.0) is None
    low, high = clustered.interval_ns(99.0) or (0.0, 0.0)
    assert low > 0
    assert high is None
    assert clustered.needed(99.0) > 10 * alone.needed(99.0)


@pytest.mark.parametrize("name", ["M/G/1, lognormal cv 1, 70 % load", "M/G/1, Pareto 2.2, 60 % load"])
def test_a_queue_of_one_server_is_covered_and_nothing_false_is_proved(name: str) -> None:
    """A short form of the rows of benchmarks/coverage/percentiles.py."""
    server, random = coverage.SERVERS[name], np.random.default_rng(4)
    truths_ns = coverage.true_ns(server, parts=150)
    studies = [coverage.study(server, truths_ns, random, 3, 5)[99.0] for _ in range(80)]
    assert sum(one.covers for one in studies) >= 0.9 * len(studies)
    assert sum(one.proves_below for one in studies) <= 1


def test_independent_requests_still_prove() -> None:
    server, random = coverage.SERVERS["independent requests"], np.random.default_rng(4)
    truths_ns = coverage.true_ns(server, parts=100)
    studies = [coverage.study(server, truths_ns, random, 5, 5)[99.0] for _ in range(40)]
    assert sum(one.proves_above for one in studies) >= 0.9 * len(studies)
