"""When so many requests of a cell fail that nothing can mend it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis import cell_details
from bench.analysis.failures import Counts, is_hopeless
from bench.core.samples import Outcome
from tests.support import synthetic


@pytest.mark.parametrize(
    ("counts", "left", "allowed", "expected"),
    [
        ([(500, 1000)], 2, 0.01, True),
        ([(31, 1000)], 2, 0.01, True),
        ([(30, 1000)], 2, 0.01, False),  # two repeats without a failure bring it to 1 %
        ([(0, 1000), (31, 1000)], 1, 0.01, True),
        ([(99, 99)], 2, 0.01, False),  # users that time out send few requests: nothing is sure yet
        ([(1000, 1000)], 2, 1.0, False),
        ([(0, 1000)], 2, 0.0, False),
        ([(1, 1000)], 2, 0.0, True),
    ],
)
def test_a_cell_is_given_up_only_when_the_rest_cannot_mend_it(
    counts: Counts, left: int, allowed: float, expected: bool
) -> None:
    assert is_hopeless(counts, left, allowed) is expected


def test_failures_are_shown_over_time_by_kind() -> None:
    trial = synthetic.trial(synthetic.cell(batch=1))
    outcome = trial.samples.outcome.copy()
    outcome[: len(outcome) // 2 : 3] = Outcome.CONNECTION
    outcome[len(outcome) // 2 :: 5] = Outcome.TIMEOUT
    lines = cell_details.time_series(replace(trial, samples=replace(trial.samples, outcome=outcome)))["lines"]
    connection, timeout = (np.array(lines[f"errors_{kind}_per_s"]) for kind in ("connection", "timeout"))
    assert connection + timeout == pytest.approx(np.array(lines["errors_per_s"]), rel=0.01)
    half = len(connection) // 2
    assert connection[: half - 1].min() > 0 == connection[half + 1 :].max()
    assert timeout[half + 1 : -1].min() > 0 == timeout[: half - 1].max()
    assert "errors_server_error_per_s" not in lines
