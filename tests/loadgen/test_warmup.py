"""The rule of the warm-up: the time has passed and, in a closed loop, two answers a user have come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.checks.window import LEAST_ANSWERS
from bench.core.cell import Load, Protocol
from bench.loadgen.warmup import ANSWERS, LONGEST_WAIT_S, PHASES, longer_s, opening, phase_s, planned_s

SECONDS, COUNT = st.floats(0, 1e4), st.integers(0, 10**6)


def closed(users: int) -> Load:
    return Load(protocol=Protocol.HTTP, batch=1, concurrency=users)


OPEN = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=10.0)


@given(users=st.integers(1, 1000), warmup_s=SECONDS, elapsed_s=SECONDS, ended=COUNT)
def test_a_closed_loops_window_opens_after_the_time_and_two_answers_a_user(
    users: int, warmup_s: float, elapsed_s: float, ended: int
) -> None:
    opens = opening(closed(users), warmup_s)
    assert opens.is_reached(elapsed_s, ended) == (elapsed_s >= warmup_s and ended >= 2 * users)


@given(warmup_s=SECONDS, elapsed_s=SECONDS)
def test_an_open_loops_window_opens_after_the_time_alone(warmup_s: float, elapsed_s: float) -> None:
    assert opening(OPEN, warmup_s).is_reached(elapsed_s, 0) == (elapsed_s >= warmup_s)


@pytest.mark.parametrize(("elapsed_s", "is_overdue"), [(1.0, False), (LONGEST_WAIT_S, False), (62.0, True)])
def test_answers_that_never_come_are_waited_for_a_minute(elapsed_s: float, is_overdue: bool) -> None:
    assert opening(closed(4), 1.0).is_overdue(elapsed_s) == is_overdue


@given(users=st.integers(1, 64), seed=st.integers(0, 2**31), ended=st.integers(1, 10**6))
def test_a_closed_loops_window_opens_a_seeded_time_later(users: int, seed: int, ended: int) -> None:
    delay_s = phase_s(closed(users), seed, 2.0, ended)
    assert 0 <= delay_s <= PHASES * users * 2.0 / max(ended, users / 2)
    assert delay_s == phase_s(closed(users), seed, 2.0, ended)
    assert phase_s(OPEN, seed, 2.0, ended) == 0


def test_the_phases_of_trials_are_spread() -> None:
    phases = [phase_s(closed(1), seed, 9.0, 9) for seed in range(400)]
    assert min(phases) < 0.05 * PHASES
    assert max(phases) > 0.95 * PHASES
    assert sum(phases) / 400 == pytest.approx(PHASES / 2, abs=0.1)


@given(users=st.integers(1, 64), response_s=st.floats(0.001, 100))
def test_a_window_is_planned_to_hold_some_answers_of_each_user(users: int, response_s: float) -> None:
    elapsed_s = 50 * response_s
    seconds = planned_s(closed(users), 3.0, elapsed_s, 50 * users)
    assert 3.0 <= seconds <= 18.0
    if 3.0 < seconds < 18.0:
        assert seconds == pytest.approx(ANSWERS * response_s, rel=1e-9)
    assert planned_s(OPEN, 3.0, elapsed_s, 50 * users) == 3.0
    assert planned_s(closed(users), 100.0, elapsed_s, 50 * users) >= 100.0


@given(
    users=st.integers(1, 64),
    response_s=st.floats(0.2, 2.5),
    rounds=st.integers(1, 50),
    phase=st.floats(0, 1, exclude_max=True),
)
def test_a_server_as_slow_as_it_was_so_far_never_gives_a_window_that_is_too_short(
    users: int, response_s: float, rounds: int, phase: float
) -> None:
    """Whenever the window opens: with users in step, the mean response so far is most wrong."""
    seconds = planned_s(closed(users), 3.0, (rounds + phase) * response_s, rounds * users)
    assert seconds / response_s >= 4 - 1e-9 > LEAST_ANSWERS


@given(users=st.integers(1, 64), window_s=st.floats(3.0, 18.0), answers=st.integers(0, 500))
def test_only_a_window_without_enough_answers_goes_on(users: int, window_s: float, answers: int) -> None:
    longer = longer_s(closed(users), 3.0, window_s, answers)
    enough = answers >= (LEAST_ANSWERS + 1) * users
    assert longer == (window_s if enough else min(2 * window_s, 18.0))
    assert longer_s(OPEN, 3.0, window_s, 0) == window_s
