"""The tape: specified bit by bit, Poisson by its distribution, and split without loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from bench.core.cell import Arrival
from bench.loadgen.arrivals import _uniform, constant, poisson, share, tape_ns


def test_the_generator_is_std_mt19937() -> None:
    """The C++ standard gives the 10,000th draw of a default-seeded mt19937 (seed 5489): 4123659995."""
    words = np.random.RandomState(5489).randint(0, 2**32, size=10_000, dtype=np.uint32)
    assert words[-1] == 4123659995


def test_a_uniform_is_made_of_two_draws_low_word_first() -> None:
    low, high = np.random.RandomState(7).randint(0, 2**32, size=2, dtype=np.uint32).tolist()
    assert _uniform(1, 7)[0] == (low + high * 2.0**32) / 2.0**64


def test_the_tape_of_a_seed_never_changes() -> None:
    """Golden: a change here would make old runs unrepeatable."""
    assert poisson(100, 1, seed=1).tolist()[:5] == GOLDEN


GOLDEN = [58727248, 85692026, 87063111, 156554254, 159247293]


def test_gaps_are_exponential_and_counts_are_poisson() -> None:
    tape = poisson(1000, 60, seed=3)
    gaps = np.diff(tape) / 1e9
    assert oracle.kstest(gaps, "expon", args=(0, 1e-3)).pvalue > 0.01
    counts = np.bincount((tape // 1_000_000_000).astype(int), minlength=60)
    assert 0.6 < counts.var() / counts.mean() < 1.6  # Poisson: variance = mean


@given(
    rate=st.floats(0.1, 500), duration=st.floats(0.01, 20), seed=st.integers(0, 2**31 - 1),
    workers=st.integers(1, 7), arrival=st.sampled_from(Arrival),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_arrival_belongs_to_exactly_one_worker(
    rate: float, duration: float, seed: int, workers: int, arrival: Arrival
) -> None:
    tape = tape_ns(arrival, rate, duration, seed)
    assert (np.diff(tape) >= 0).all()
    assert ((tape >= 0) & (tape <= duration * 1e9)).all()
    parts = [share(tape, worker, workers) for worker in range(workers)]
    assert sorted(np.concatenate(parts).tolist()) == tape.tolist()


@given(rate=st.floats(0.1, 500), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_a_longer_tape_begins_with_the_shorter_one(rate: float, seed: int) -> None:
    short, long = poisson(rate, 2, seed), poisson(rate, 7, seed)
    np.testing.assert_array_equal(long[: len(short)], short)


@pytest.mark.parametrize(("rate", "duration", "count"), [(10, 1, 10), (3, 1, 3), (0.5, 1, 1), (50, 0.2, 10)])
def test_constant_arrivals_are_rate_times_duration(rate: float, duration: float, count: int) -> None:
    assert len(constant(rate, duration)) == count
