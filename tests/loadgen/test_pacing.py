"""An alarm is set to the nanosecond, never rings early, and costs no turn when the time is past."""

from __future__ import annotations

import ctypes
import sys
import time

import gevent
import pytest

from bench.loadgen import pacing
from bench.loadgen.pacing import Alarm

HOUR_NS = 3_600_000_000_000


def remaining_ns(alarm: Alarm) -> int:
    """How long the kernel will wait from now until it wakes the alarm; 0: it is not set."""
    spec = pacing._Itimerspec()
    assert pacing._libc is not None
    pacing._libc.timerfd_gettime(alarm._file, ctypes.byref(spec))
    return int(spec.value.seconds * 1_000_000_000 + spec.value.nanoseconds)


@pytest.mark.skipif(sys.platform != "linux", reason="a timerfd is Linux's")
@pytest.mark.parametrize("ahead_ns", [HOUR_NS, HOUR_NS + 1, 2 * HOUR_NS + 999_999_999])
def test_the_kernel_is_asked_to_wake_the_alarm_at_exactly_the_time_it_is_due(ahead_ns: int) -> None:
    """Asked of the kernel itself, so that it does not matter how long this test is kept waiting."""
    alarm = Alarm()
    due_ns = time.monotonic_ns() + ahead_ns
    waiting = gevent.spawn(alarm.wait_until, due_ns)
    gevent.sleep(0)
    before_ns = time.monotonic_ns()
    left_ns = remaining_ns(alarm)
    after_ns = time.monotonic_ns()
    waiting.kill()
    alarm.close()
    assert before_ns <= due_ns - left_ns <= after_ns


@pytest.mark.parametrize("ahead_ns", [3_000_000, 20_000_000])
def test_an_alarm_never_rings_early(ahead_ns: int) -> None:
    alarm = Alarm()
    due_ns = time.monotonic_ns() + ahead_ns
    alarm.wait_until(due_ns)
    assert time.monotonic_ns() >= due_ns
    alarm.close()


def test_an_alarm_rings_before_a_plain_sleep_that_is_a_hundred_times_as_long() -> None:
    """Three tries: a machine that stops for half a second is not the alarm's fault."""
    alarm = Alarm()
    assert any(rings_before(alarm, 0.005, 0.5) for _ in range(3))
    alarm.close()


def rings_before(alarm: Alarm, alarm_s: float, sleep_s: float) -> bool:
    slept = gevent.spawn(gevent.sleep, sleep_s)
    gevent.sleep(0)
    alarm.wait_until(time.monotonic_ns() + int(alarm_s * 1e9))
    is_first = not slept.ready()
    slept.kill()
    return is_first


@pytest.mark.parametrize(("ahead_ns", "others_run"), [(-1_000_000, False), (0, False), (5_000_000, True)])
def test_others_run_while_an_alarm_waits_and_only_then(ahead_ns: int, others_run: bool) -> None:
    other = gevent.spawn(lambda: None)
    alarm = Alarm()
    alarm.wait_until(time.monotonic_ns() + ahead_ns)
    assert other.ready() == others_run
    alarm.close()
    other.join()


def test_a_closed_alarm_can_be_closed_again() -> None:
    alarm = Alarm()
    alarm.close()
    alarm.close()
