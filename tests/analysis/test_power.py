"""What a comparison would see, and how many repeats settle it, against scipy and against simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as oracle

from bench.analysis.distributions import chi_square_nodes, normal_cdf
from bench.analysis.power import (
    Design,
    Spread,
    power,
    repeats_to_see,
    repeats_to_settle,
    smallest_change,
)
from benchmarks.coverage.power import LIMIT, design_of, power_of, seen, settled


def test_the_functions_are_those_of_scipy() -> None:
    x = np.linspace(-6, 6, 101)
    assert normal_cdf(x) == pytest.approx(oracle.norm.cdf(x), abs=2e-7)
    for degrees in (0.7, 2, 8, 300):
        values, weights = chi_square_nodes(degrees)
        assert weights @ values == pytest.approx(1, rel=1e-3)
        assert weights @ values**2 == pytest.approx(1 + 2 / degrees, rel=1e-2)


@pytest.mark.parametrize("repeats", range(3, 13))
@pytest.mark.parametrize("spread", [0.01, 0.2])
def test_of_one_pair_and_gate_it_is_the_noncentral_t_distribution(repeats: int, spread: float) -> None:
    design = Design(repeats=repeats, paired=True, gates=2)
    quantile = oracle.t.ppf(
        1 - 0.035, repeats - 1
    )  # what all cells have in common, of one gate beside errors
    for errors in (1.0, 3.0, 6.0):
        change = errors * spread * math.sqrt(2 / repeats)
        truth = oracle.nct.sf(quantile, repeats - 1, errors)
        assert power(design, 0.0, change, Spread(spread)) == pytest.approx(truth, abs=0.002)


@pytest.mark.parametrize(
    ("repeats", "cells", "paired", "studies"),
    [(3, 1, False, 600), (8, 1, False, 600), (3, 1, True, 600), (5, 60, False, 80), (3, 60, True, 80)],
)
def test_the_power_of_a_plan_is_what_is_measured(
    repeats: int, cells: int, paired: bool, studies: int
) -> None:
    design = design_of(repeats, cells, paired)
    change = smallest_change(design, LIMIT, Spread(0.05))
    assert change is not None
    assert power_of(design, 0.05, change) == pytest.approx(0.8, abs=1e-3)
    noise = 3 * math.sqrt(0.16 / studies)
    assert seen(design, 0.05, change, studies) == pytest.approx(0.8, abs=0.02 + noise)


def test_the_repeats_that_a_change_needs_see_it_and_one_less_does_not() -> None:
    design = Design(repeats=3, paired=True)
    needed = repeats_to_see(design, LIMIT, math.log(1.1), Spread(0.03))
    assert needed is not None
    changes = [smallest_change(replace(design, repeats=n), LIMIT, Spread(0.03)) for n in (needed - 1, needed)]
    assert changes[0] is not None
    assert changes[1] is not None
    assert changes[1] <= math.log(1.1) < changes[0]
    assert repeats_to_see(design, LIMIT, math.log(1.04), Spread(0.03)) is None  # the gate allows it


def test_more_cells_more_noise_and_a_starts_luck_hide_more() -> None:
    def least(spread: float = 0.02, **changes: float) -> float:
        design = replace(Design(repeats=5), **changes)
        return smallest_change(design, LIMIT, Spread(spread)) or math.inf

    assert LIMIT < least() < least(spread=0.05) < least(spread=0.2)
    assert least() < least(cells=4) < least(cells=4, luck=0.03)
    assert least(repeats=12) < least(repeats=5) < least(repeats=3)
    assert smallest_change(Design(repeats=2), LIMIT, Spread(0.01)) is None


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("away", [-1, 2])
def test_a_new_run_with_the_advised_repeats_settles(paired: bool, away: int) -> None:
    """The half width of Welch's interval, read with the wrong degrees of freedom, settles about half."""
    results = settled(design_of(3, 1, paired, luck=0.0), 0.05, away, 40)
    assert len(results) >= 15
    assert np.mean(results) >= 0.75


def test_a_change_that_may_be_a_starts_luck_is_settled_by_no_repeats() -> None:
    estimate, spread = math.log(1.08), Spread(0.005, 8)
    assert repeats_to_settle(Design(repeats=5, luck=0.03), LIMIT, estimate, spread) is None
    assert (repeats_to_settle(Design(repeats=5), LIMIT, estimate, spread) or 0) > 2
