"""The rule of the warm-up: the time has passed and, in a closed loop, every user had an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.cell import Load, Protocol
from bench.loadgen.warmup import LONGEST_WAIT_S, closing, opening

SECONDS, COUNT = st.floats(0, 1e4), st.integers(0, 10**6)


def closed(users: int) -> Load:
    return Load(protocol=Protocol.HTTP, batch=1, concurrency=users)


OPEN = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=10.0)


@given(users=st.integers(1, 1000), warmup_s=SECONDS, elapsed_s=SECONDS, ended=COUNT)
def test_a_closed_loops_window_opens_after_the_time_and_an_answer_for_each_user(
    users: int, warmup_s: float, elapsed_s: float, ended: int
) -> None:
    opens = opening(closed(users), warmup_s)
    assert opens.is_reached(elapsed_s, ended) == (elapsed_s >= warmup_s and ended >= users)


@given(warmup_s=SECONDS, elapsed_s=SECONDS)
def test_an_open_loops_window_opens_after_the_time_alone(warmup_s: float, elapsed_s: float) -> None:
    assert opening(OPEN, warmup_s).is_reached(elapsed_s, 0) == (elapsed_s >= warmup_s)


@given(users=st.integers(1, 1000), opened_s=SECONDS, before=COUNT, inside=COUNT)
def test_a_closed_loops_window_closes_with_an_answer_for_each_user_in_it(
    users: int, opened_s: float, before: int, inside: int
) -> None:
    closes = closing(closed(users), 5.0, opened_s, before)
    assert closes.is_reached(opened_s + 5.0, before + inside) == (inside >= users)
    assert not closes.is_reached(opened_s + 4.0, before + inside)


def test_an_open_loops_window_closes_after_the_time_alone() -> None:
    assert closing(OPEN, 5.0, 1.0, 100).is_reached(6.0, 0)


@pytest.mark.parametrize(("elapsed_s", "is_overdue"), [(1.0, False), (LONGEST_WAIT_S, False), (62.0, True)])
def test_answers_that_never_come_are_waited_for_a_minute(elapsed_s: float, is_overdue: bool) -> None:
    assert opening(closed(4), 1.0).is_overdue(elapsed_s) == is_overdue
