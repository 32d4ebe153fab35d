"""Another host's monotonic clock, put on ours: how far off it can be, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.samples import Samples
from bench.loadgen.locust.clock_sync import ClockMap, Exchange, Offset, offset_of

DELAY = st.integers(0, 50_000_000)
OFFSET = st.integers(-(10**17), 10**17)  # hosts booted up to three years apart
MOMENT = st.integers(0, 10**17)


def exchange(true_ns: int, sent_ns: int, there_ns: int, back_ns: int) -> Exchange:
    """A question that takes `there_ns` and an answer that takes `back_ns`."""
    return Exchange(sent_ns, sent_ns + there_ns + true_ns, sent_ns + there_ns + back_ns)


@given(true_ns=OFFSET, ways=st.lists(st.tuples(MOMENT, DELAY, DELAY), min_size=1, max_size=20))
def test_the_truth_lies_within_half_a_round_trip_whatever_the_ways_took(
    true_ns: int, ways: list[tuple[int, int, int]]
) -> None:
    found = offset_of(exchange(true_ns, *way) for way in ways)
    assert abs(found.offset_ns - true_ns) <= found.uncertainty_ns
    assert found.round_trip_ns == min(there + back for _, there, back in ways)


@given(true_ns=OFFSET, sent_ns=MOMENT, way_ns=DELAY)
def test_equal_ways_give_the_truth_itself(true_ns: int, sent_ns: int, way_ns: int) -> None:
    assert offset_of([exchange(true_ns, sent_ns, way_ns, way_ns)]).offset_ns == true_ns


def test_without_an_exchange_there_is_no_offset() -> None:
    with pytest.raises(ValueError, match="empty"):
        offset_of([])


@given(offset_ns=OFFSET, moment_ns=MOMENT)
def test_there_and_back_is_the_same_moment(offset_ns: int, moment_ns: int) -> None:
    clock = ClockMap(Offset(0, offset_ns, 1000))
    theirs = np.array([clock.theirs(moment_ns)], dtype=np.int64)
    assert clock.ours(theirs).tolist() == [moment_ns]


@given(
    offset_ns=OFFSET,
    begun_ns=MOMENT,
    span_ns=st.integers(10**9, 10**13),
    drift_ns=st.integers(-(10**6), 10**6),
    share=st.floats(0, 1),
)
def test_a_steady_drift_is_taken_out_to_the_nanosecond(
    offset_ns: int, begun_ns: int, span_ns: int, drift_ns: int, share: float
) -> None:
    """Hours and a millisecond of drift: floats lose nothing that counts."""
    before = Offset(begun_ns, offset_ns, 0)
    after = Offset(begun_ns + span_ns, offset_ns + drift_ns, 0)
    moment_ns = begun_ns + round(share * span_ns)
    shown_ns = moment_ns + offset_ns + round(share * drift_ns)
    (back,) = ClockMap(before, after).ours(np.array([shown_ns], dtype=np.int64)).tolist()
    assert abs(back - moment_ns) <= 2


def test_samples_move_and_outcomes_stay() -> None:
    recorded = Samples.of([(100, 110, 120, 0), (200, 210, 220, 3)])
    moved = ClockMap(Offset(0, 100, 10)).samples(recorded)
    assert moved.intended_ns.tolist() == [0, 100]
    assert moved.sent_ns.tolist() == [10, 110]
    assert moved.done_ns.tolist() == [20, 120]
    assert moved.outcome.tolist() == [0, 3]
    assert moved.response_ns.tolist() == recorded.response_ns.tolist()


def test_what_is_recorded_says_how_well_it_is_known() -> None:
    clock = ClockMap(Offset(0, 500, 100), Offset(1000, 510, 300))
    assert clock.described() == {"offset_ns": 500, "drift_ns": 10, "uncertainty_ns": 150}
