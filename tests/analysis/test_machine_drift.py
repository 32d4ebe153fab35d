"""`machine-drift` at its stated rate of false alarms, and with drift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.analysis.checks.cell import p_of_drift
from bench.analysis.results import RunResults
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell


def studies(rounds: int, sd: float, drift: float) -> float:
    """Share of 600 studies that are named. `drift`: change of the logarithm over all rounds."""
    random, times = np.random.default_rng(7), np.arange(2 * rounds) % rounds / rounds
    named = 0
    for logs in random.normal(0, sd, (600, 2 * rounds)) + drift * times:
        named += p_of_drift(dict(enumerate(np.exp(logs))), rounds) < 0.05
    return named / 600


def named_among(logs: NDArray[np.float64], **more: bool) -> bool:
    """Whether any of the reference cells, a row each, is named."""
    peers = [dict(enumerate(np.exp(row))) for row in logs]
    return any(p_of_drift(peer, logs.shape[1] // 2, peers, **more) < 0.05 / len(peers) for peer in peers)


@pytest.mark.parametrize("rounds", [3, 5, 10])
@pytest.mark.parametrize("sd", [0.01, 0.03, 0.1])
def test_a_steady_machine_is_named_in_a_twentieth_at_most(rounds: int, sd: float) -> None:
    assert 0.02 < studies(rounds, sd, 0.0) < 0.07


def test_a_drift_beyond_the_spread_is_named() -> None:
    assert studies(5, 0.02, 0.15) > 0.9


@pytest.mark.parametrize("rounds", [3, 8])
def test_skewed_noise_of_many_reference_cells_is_no_drift(rounds: int) -> None:
    """By its own few repeats alone, some cell of fifteen is named in 8 to 10 % of these."""
    random = np.random.default_rng(8)
    noise = np.log1p(0.05 * (random.lognormal(0, 1, (150, 15, 2 * rounds)) - 1.65) / 2.16)
    assert np.mean([named_among(logs) for logs in noise]) < 0.05


def test_a_cell_that_drifts_among_others_is_named() -> None:
    random, times = np.random.default_rng(9), np.arange(10) % 5 / 4
    noise = random.normal(0, 0.02, (60, 4, 10))
    noise[:, 0] += 0.15 * times
    assert np.mean([named_among(logs) for logs in noise]) > 0.9


def test_the_luck_of_a_load_in_each_round_is_no_drift_and_a_trend_is() -> None:
    random, rounds = np.random.default_rng(10), np.arange(10) % 5
    lucky = random.normal(0, 0.005, (300, 1, 10)) + random.normal(0, 0.03, (300, 1, 5))[:, :, rounds]
    assert np.mean([named_among(logs) for logs in lucky]) > 0.5
    assert np.mean([named_among(logs, is_reloaded=True) for logs in lucky]) < 0.08
    slower = lucky + 0.4 * rounds / 4
    assert np.mean([named_among(logs, is_reloaded=True) for logs in slower]) > 0.8


def test_in_an_open_loop_the_median_latency_is_watched(tmp_path: Path) -> None:
    """Its throughput is the rate that is asked for, however slow the server is."""
    cells = [cell(batch=batch, rate_per_s=20.0) for batch in (1, 2, 4, 8)]
    folder = synthetic.write(tmp_path / "run", Study(cells=cells))
    for repeat in range(6):
        world = World(slowdown=1 + 0.3 * (repeat % 3), repeat_sigma=0.005)
        folder.write_trial(synthetic.trial(cells[0], repeat, world))
    first, *others = RunResults.of(folder).rows
    assert "machine-drift" in first.findings
    assert any("median latency" in remark.seen for remark in first.remarks)
    assert not any("machine-drift" in row.findings for row in others)
