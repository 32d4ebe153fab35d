"""What a process finds out about itself: stopped, or only busy? Clocks are played."""

from __future__ import annotations

import pytest

from bench.core.samples import Window
from bench.loadgen.locust.own_clock import OwnClock, Reading, Stall, stall_between, stalled_s

MS = 1_000_000
EVERY_NS = 50 * MS
BEFORE = Reading(1_000 * MS, 200 * MS, 30 * MS, 5_000 * MS)


def later(
    passed_ms: float, *, computed_ms: float = 1, waited_ms: float | None = 0, slept_ms: float = 0
) -> Reading:
    """The clocks after so much time."""
    return Reading(
        BEFORE.at_ns + round(passed_ms * MS),
        BEFORE.computed_ns + round(computed_ms * MS),
        None if waited_ms is None else 30 * MS + round(waited_ms * MS),
        BEFORE.suspended_ns + round(slept_ms * MS),
    )


@pytest.mark.parametrize(
    ("now", "frozen_ms", "suspended_ms"),
    [
        pytest.param(later(50), 0, 0, id="on time"),
        pytest.param(later(3050), 2999, 0, id="stopped for 3 s"),
        pytest.param(later(3050, computed_ms=900), 2100, 0, id="stopped after it had computed"),
        pytest.param(later(50, slept_ms=4000), 0, 4000, id="the machine slept"),
        pytest.param(later(1050, computed_ms=1000), 0, 0, id="a garbage collection"),
        pytest.param(later(3050, waited_ms=2990), 0, 0, id="no core was free"),
        pytest.param(later(2050, computed_ms=900, waited_ms=1100), 0, 0, id="computed and waited in turns"),
        pytest.param(later(200), 0, 0, id="a hiccup of a shared machine"),
        pytest.param(later(900, waited_ms=None), 0, 0, id="late, and nobody counts the wait"),
        pytest.param(later(3050, waited_ms=None), 2999, 0, id="very late, and nobody counts the wait"),
    ],
)
def test_only_time_that_nothing_explains_is_a_stall(now: Reading, frozen_ms: int, suspended_ms: int) -> None:
    found = stall_between(BEFORE, now, EVERY_NS)
    expected = Stall(BEFORE.at_ns, now.at_ns, frozen_ms * MS, suspended_ms * MS)
    assert found == (expected if frozen_ms or suspended_ms else None)


@pytest.mark.parametrize(
    ("window_ms", "seconds"),
    [((0, 10_000), 3.0), ((0, 2_000), 1.0), ((3_000, 10_000), 1.05), ((5_000, 9_000), 0.0)],
)
def test_of_a_stall_counts_what_lies_in_the_window(window_ms: tuple[int, int], seconds: float) -> None:
    stall = Stall(1_000 * MS, 4_050 * MS, 3_000 * MS, 0)
    window = Window(window_ms[0] * MS, window_ms[1] * MS)
    assert stalled_s([stall], window) == pytest.approx(seconds)


def test_a_suspended_machine_counts_in_full_though_its_clock_stood_still() -> None:
    stall = Stall(1_000 * MS, 1_050 * MS, 0, 60_000 * MS)
    assert stalled_s([stall], Window(0, 5_000 * MS)) == 60.0


def test_a_process_that_is_left_in_peace_finds_nothing() -> None:
    clock = OwnClock()
    clock.look()
    clock.look()
    clock.close()
    assert clock.stalls == []
