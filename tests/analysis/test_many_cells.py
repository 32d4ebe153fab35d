"""Many cells at once: nothing is named where nothing changed, and a tenth in one cell is found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import special, stats

from bench.analysis.distributions import digamma, student_t_tail, trigamma, trigamma_inverse
from bench.analysis.many_cells import LUCK_OF_A_START, Measured, evidence, holm, moderated
from bench.analysis.stats import paired_ratio, ratio


def measured(base: Sequence[float], new: Sequence[float]) -> Measured:
    return Measured(*({i: math.log(v) for i, v in enumerate(values)} for values in (base, new)))


def test_of_a_single_cell_the_interval_is_welchs_or_that_of_pairs() -> None:
    base, new = [10.0, 11.0, 10.4, 9.8, 10.1], [11.0, 11.5, 10.9, 11.4, 11.2]
    for paired, known in ((False, ratio(base, new)), (True, paired_ratio(base, new))):
        (found,) = evidence([measured(base, new)], higher_is_worse=True, paired=paired, luck=0.0)
        assert known is not None
        assert found.interval.low == pytest.approx(known.low, rel=2e-3)
        assert found.interval.high == pytest.approx(known.high, rel=2e-3)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("luck", [0.0, 0.03])
def test_sixty_equal_cells_name_none_and_a_tenth_in_one_is_found(paired: bool, luck: float) -> None:
    """The smallest p of 120 stays above Holm's first bound in nearly all studies, whatever a start's luck."""
    random, false, caught = np.random.default_rng(3), 0, 0
    for _ in range(60):
        tables = random.normal(0, 0.02, (2, 60, 5)) + random.normal(0, luck, (2, 60, 1))
        for slowdown in (0.0, math.log(1.1)):
            tables[1, 0] += slowdown
            cells = [Measured(dict(enumerate(a)), dict(enumerate(b))) for a, b in zip(*tables, strict=True)]
            found = evidence(cells, higher_is_worse=True, paired=paired, luck=LUCK_OF_A_START)
            sure = holm([one.p_single or 0.0 for one in found] + [1.0] * 60, 0.005)
            false, caught = false + (any(sure) and not slowdown), caught + (sure[0] and slowdown > 0)
    assert false <= 2
    assert caught >= 58 or luck


@pytest.mark.parametrize("rounds", [3, 4, 5])
def test_a_drift_that_is_linear_in_time_cancels_for_any_number_of_rounds(rounds: int) -> None:
    """A B, B A, A B: the machine slows by the same factor in every slot, the ratio stays."""
    base, new = {}, {}
    for repeat in range(rounds):
        slots = (2 * repeat, 2 * repeat + 1)
        base[repeat], new[repeat] = (0.05 * slot for slot in (slots if repeat % 2 == 0 else slots[::-1]))
    (found,) = evidence(
        [Measured(base, new)], higher_is_worse=True, paired=True, luck=0.0, is_reversed=lambda n: n % 2 == 1
    )
    assert found.interval.value == pytest.approx(1.0)


def test_a_repeat_that_is_off_by_powers_of_ten_leaves_its_cell_without_an_upper_bound() -> None:
    random = np.random.default_rng(1)
    logs = random.normal(0, 0.02, (2, 6, 3))
    logs[1, 0] += (0.0, 0.0, 400.0)
    cells = [Measured(dict(enumerate(base)), dict(enumerate(new))) for base, new in zip(*logs, strict=True)]
    found = evidence(cells, higher_is_worse=True, paired=True, luck=0.0)
    assert found[0].interval.high == math.inf
    assert (found[0].p_single or 0) > 0.01
    assert found[1].interval.high == pytest.approx(1.0, abs=0.2)


def test_estimates_of_equal_variances_move_to_their_middle_and_unlike_ones_stay() -> None:
    random = np.random.default_rng(1)
    equal = random.chisquare(4, 200) / 4
    near, degrees = moderated(equal, np.full(200, 4.0))
    assert np.std(near) < np.std(equal) / 2
    assert degrees.max() > 40
    odd = equal.copy()
    odd[0] = 400.0
    kept, known = moderated(odd, np.full(200, 4.0))
    assert (kept[0], known[0]) == (400.0, 4.0)
    few, _ = moderated(equal[:5], np.full(5, 4.0))
    assert few == pytest.approx(equal[:5])


def test_holm_rejects_in_order_and_stops() -> None:
    assert holm([0.01, 0.02, 0.2, 0.9], 0.05) == [True, False, False, False]
    assert holm([0.01, 0.016, 0.02, 0.9], 0.05) == [True, True, True, False]
    assert holm([], 0.05) == []


def test_the_functions_are_those_of_scipy() -> None:
    x = np.array([0.05, 0.5, 1.0, 4.0, 100.0])
    assert digamma(x) == pytest.approx(special.digamma(x), rel=1e-8)
    assert trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-8)
    assert trigamma_inverse(float(special.polygamma(1, 2.5))) == pytest.approx(2.5)
    assert student_t_tail(30.0, 8) == pytest.approx(stats.t.sf(30.0, 8), rel=1e-6)
    assert student_t_tail(-1.0, 8) == pytest.approx(stats.t.sf(-1.0, 8))
