"""Where the error budget is just used up, from noisy probes of a curve that is known here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.capacity_estimate import REACH, CapacityEstimate, Evidence

BUDGET = 0.01


def probe(rate: float, edge: float, slope: float, crowd: float, rng: np.random.Generator) -> Evidence:
    """Late requests come in crowds, of which there is a Poisson number."""
    n = 8000
    odds = BUDGET / (1 - BUDGET) * (rate / edge) ** slope
    crowds = rng.poisson(n * odds / (1 + odds) / crowd)
    late = int(rng.geometric(1 / crowd, crowds).sum()) if crowds else 0
    return Evidence(rate, min(late, n), n, BUDGET, design=2 * crowd - 1)


@pytest.mark.parametrize(
    ("slope", "crowd"), [(2.5, 1.0), (10, 6), (18, 15), (50, 100)], ids=lambda value: f"{value:g}"
)
def test_the_edge_is_found_and_its_interval_is_honest(slope: float, crowd: float) -> None:
    rng = np.random.default_rng(1)
    inside, off = 0, []
    for _ in range(20):
        edge = CapacityEstimate(99)
        for turn in range(12):
            edge.see(probe(edge.quantile((0.2, 0.5, 0.8)[turn % 3]), 100, slope, crowd, rng))
        inside += edge.quantile(0.025) <= 100 <= edge.quantile(0.975)
        off.append(edge.quantile(0.5) / 100 - 1)
    assert inside >= 16
    assert abs(float(np.median(off))) < 0.015


def test_three_disturbed_probes_do_not_outweigh_those_that_agree() -> None:
    """As a neighbour on the machine made them: hundreds late at three quarters of the capacity."""
    rng = np.random.default_rng(2)
    edge = CapacityEstimate(92)
    for rate in (80.0, 88.0, 110.0, 115.0, 125.0):
        edge.see(probe(rate, 100, 10, 6, rng))
    for rate, late in ((77.0, 385), (75.0, 593), (76.0, 2859)):
        edge.see(Evidence(rate, late, 8000, BUDGET))
    for turn in range(12):
        edge.see(probe(edge.quantile((0.2, 0.5, 0.8)[turn % 3]), 100, 10, 6, rng))
    assert edge.quantile(0.5) == pytest.approx(100, rel=0.05)


def test_nothing_seen_is_even_odds() -> None:
    edge = CapacityEstimate(100)
    assert edge.quantile(0.5) == pytest.approx(100, rel=0.01)
    assert np.log(edge.quantile(0.84) / edge.quantile(0.16)) == pytest.approx(0.68 * 2 * REACH, rel=0.02)


@settings(max_examples=25)
@given(late=st.integers(40, 1000))
def test_a_probe_within_its_budget_moves_the_edge_up_and_one_beyond_moves_it_down(late: int) -> None:
    good, bad = CapacityEstimate(100), CapacityEstimate(100)
    good.see(Evidence(100, 0, 1000, BUDGET))
    bad.see(Evidence(100, late, 1000, BUDGET))
    assert good.quantile(0.5) > 100 > bad.quantile(0.5)


def test_what_is_seen_elsewhere_or_not_at_all_changes_nothing() -> None:
    edge = CapacityEstimate(100)
    edge.see(None)
    edge.see(Evidence(300, 900, 1000, BUDGET))
    assert edge.quantile(0.5) == pytest.approx(100, rel=0.01)
