"""What the serving benchmark makes of trials; its measuring is run by hand."""

from __future__ import annotations

import dataclasses

import pytest

from bench.core.samples import Outcome, Samples, Window
from benchmarks.serving import ALL, BARE, ONE, PLAIN, Measured, _goals, images_per_s
from tests.support import synthetic

S = 1_000_000_000


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([(0, 2), (2, 4), (4, 6)], 2.0),  # 1 to 5 of the clock: a half, a whole, a half
        ([(1, 5)], 1.0),
        ([(0, 1), (5, 6)], 0.0),  # outside
        ([], 0.0),
    ],
)
def test_a_request_counts_by_its_part_in_the_window(rows: list[tuple[int, int]], rate: float) -> None:
    trial = synthetic.trial(synthetic.cell(batch=4))
    samples = Samples.of((a * S, a * S, b * S, Outcome.OK) for a, b in rows)
    trial = dataclasses.replace(trial, samples=samples, window=Window(1 * S, 5 * S))
    assert images_per_s(trial, 4) == pytest.approx(rate)


def test_goals_are_of_neighbours_and_of_our_better_way() -> None:
    entry = Measured("tiny", 8)
    for slow in (1.0, 0.5, 0.8):  # the machine drifts; the ratio does not
        entry.add(ONE, 50 * slow, 100 * slow)
        entry.add(ALL, 90 * slow, 100 * slow)
        entry.add(PLAIN, 40 * slow, 100 * slow)
    assert entry.best() == ALL
    ratio = entry.over(ALL, BARE)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.9)
    assert [goal.met for goal in _goals([entry])] == ["yes", "yes"]
