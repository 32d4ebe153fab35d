"""The alarm never rings early, and costs no turn when the time is past."""

from __future__ import annotations

import time

import gevent
import pytest

from bench.loadgen.pacing import Alarm


@pytest.mark.parametrize("ahead_ns", [-1_000_000, 0, 10_000, 200_000, 3_000_000])
def test_an_alarm_never_rings_before_a_time_that_is_worth_waiting_for(ahead_ns: int) -> None:
    alarm = Alarm()
    due_ns = time.monotonic_ns() + ahead_ns
    alarm.wait_until(due_ns)
    assert time.monotonic_ns() >= due_ns - 30_000
    alarm.close()


def test_other_greenlets_run_while_an_alarm_waits() -> None:
    ran = []
    gevent.spawn(lambda: ran.append(1))
    alarm = Alarm()
    alarm.wait_until(time.monotonic_ns() + 5_000_000)
    alarm.close()
    assert ran


def test_a_closed_alarm_can_be_closed_again() -> None:
    alarm = Alarm()
    alarm.close()
    alarm.close()
