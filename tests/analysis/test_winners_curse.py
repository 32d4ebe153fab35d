"""What is stated of the best cell: its fresh trials, or its own corrected for having been picked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.cell_row import CellRow, Confirmed
from bench.analysis.recommendation import Basis, overlap, recommend, stated
from bench.analysis.winners_curse import with_if_best
from benchmarks.coverage.best import Drawn, Study, row_of


def drawn(study: Study, count: int = 60) -> list[Drawn]:
    random = np.random.default_rng(4)
    return [study.drawn(random) for _ in range(count)]


def rows_of(*values: tuple[float, ...]) -> list[CellRow]:
    return with_if_best([row_of(str(n), np.array(some)) for n, some in enumerate(values)])


@pytest.mark.parametrize("sd", [0.05, 0.1])
def test_the_best_of_sixty_equal_cells_is_stated_as_it_is(sd: float) -> None:
    """Its own interval covers 74 % of these at an sd of 10 %, and its value is 14 % too high."""
    studies = drawn(Study("equal", "normal", 60, 3, sd))
    assert np.mean([one.covers for one in studies]) >= 0.9
    assert abs(np.mean([one.value for one in studies]) - 1) < 0.4 * sd
    assert np.mean([one.plain_value for one in studies]) - 1 > sd


@pytest.mark.parametrize("truth", ["a spread of 10 %", "one 5 % better", "three groups"])
def test_the_best_of_cells_that_differ_is_covered_too(truth: str) -> None:
    studies = drawn(Study(truth, "normal", 60, 3, 0.05))
    assert np.mean([one.covers for one in studies]) >= 0.88  # of sixty studies, where 90 % is claimed


def test_a_cell_that_stands_alone_is_stated_as_it_was_measured() -> None:
    rows = rows_of((100, 101, 102), (100, 99, 101), (199, 200, 203))
    best = recommend(rows, None).best
    assert best is rows[2]
    assert stated(best).basis is Basis.MEASURED
    assert stated(best).value == best.throughput_img_per_s
    assert overlap(best, rows[0]) is False


def test_a_correction_lowers_the_value_and_the_lower_end_alone() -> None:
    rows = rows_of(*[(96 + n, 100 + n, 101 + n) for n in (0, 1, 1, 0, 2, 1, 3)])
    best = recommend(rows, None).best
    assert best is not None
    said = stated(best)
    assert said.basis is Basis.CORRECTED
    assert best.if_best is not None
    assert best.if_best.rivals == 7
    assert said.low is not None
    assert said.low < said.value < (best.throughput_img_per_s or 0) < (said.high or 0)


def test_fresh_trials_are_what_is_stated_where_they_are_valid_and_enough() -> None:
    (best, _) = rows_of((100, 101, 102), (99, 100, 101))
    fresh = Confirmed(value=95, low=94, high=96, repeats=3, verdict="VALID", findings="")
    assert stated(replace(best, confirmed=fresh)).basis is Basis.CONFIRMED
    assert stated(replace(best, confirmed=fresh)).value == 95
    for bad in (replace(fresh, verdict="INVALID"), replace(fresh, low=None, high=None)):
        assert stated(replace(best, confirmed=bad)).basis is Basis.CORRECTED


def test_what_has_no_interval_is_not_corrected() -> None:
    rows = rows_of((100, 101), (99, 103))
    assert [row.if_best for row in rows] == [None, None]
    invalid = replace(row_of("a", np.array([100.0, 101.0, 102.0])), verdict="INVALID")
    assert with_if_best([invalid])[0].if_best is None
    assert with_if_best([]) == []
