"""`machine-drift` at its stated rate of false alarms, and with drift."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.checks.cell import p_of_drift


def studies(rounds: int, sd: float, drift: float) -> float:
    """Share of 600 studies that are named. `drift`: change of the logarithm over all rounds."""
    random, times = np.random.default_rng(7), np.arange(2 * rounds) % rounds / rounds
    named = 0
    for logs in random.normal(0, sd, (600, 2 * rounds)) + drift * times:
        named += p_of_drift(dict(enumerate(np.exp(logs))), rounds) < 0.05
    return named / 600


@pytest.mark.parametrize("rounds", [3, 5, 10])
@pytest.mark.parametrize("sd", [0.01, 0.03, 0.1])
def test_a_steady_machine_is_named_in_a_twentieth_at_most(rounds: int, sd: float) -> None:
    assert 0.02 < studies(rounds, sd, 0.0) < 0.07


def test_a_drift_beyond_the_spread_is_named() -> None:
    assert studies(5, 0.02, 0.15) > 0.9
