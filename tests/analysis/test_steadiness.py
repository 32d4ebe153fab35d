"""Steady servers are called steady, and others are not, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.analysis.steadiness import backlog, binned, mser5, steadiness
from bench.core.cell import Cell
from bench.core.samples import Samples, Window
from tests.support.simulation import Server, always, cell, drawn, trial

SECOND = 1_000_000_000


def changing(factor: Callable[[float], float], requests: int, seed: int) -> Server:
    """10 ms a request, times `factor` of how far the trial has come (0 to 1)."""
    noise = drawn(lambda random, n: 10 * random.gamma(16, 1 / 16, n), seed)
    return Server(lambda index: round(noise(index) * factor(index / requests)))


def unsteady(make: Callable[[int], Server], of: Cell) -> float:
    """The share of 40 trials that are called unsteady."""
    runs = [trial(make(seed), of, seconds=10, warmup_s=0.1, seed=seed + 1) for seed in range(40)]
    return float(np.mean([steadiness(t.samples, t.window).is_steady is False for t in runs]))


LONE = cell(concurrency=1)
CALM: list[tuple[str, Callable[[int], Server], Cell]] = [
    ("closed loop", lambda seed: changing(lambda _: 1, 1000, seed), LONE),
    ("Poisson, a third busy", lambda _: Server(always(10)), cell(rate_per_s=30)),
    ("Poisson, half busy", lambda _: Server(always(10)), cell(rate_per_s=50)),
]
MOVING: list[tuple[str, Callable[[float], float]]] = [
    ("15 % slower from the middle on", lambda x: 1.0 if x < 0.5 else 1.15),
    ("twice as slow at first, better after a tenth", lambda x: 1 + math.exp(-x / 0.1)),
    ("a third slower at first, better after a third", lambda x: 1 + 0.33 * math.exp(-x / 0.3)),
]


@pytest.mark.parametrize(("name", "make", "of"), CALM, ids=[row[0] for row in CALM])
def test_a_steady_server_is_called_steady(
    name: str,  # noqa: ARG001  # the row's sentence
    make: Callable[[int], Server],
    of: Cell,
) -> None:
    assert unsteady(make, of) <= 0.10


@pytest.mark.parametrize(("name", "factor"), MOVING, ids=[row[0] for row in MOVING])
def test_a_server_that_moves_is_not(name: str, factor: Callable[[float], float]) -> None:  # noqa: ARG001
    assert unsteady(lambda seed: changing(factor, 1000, seed), LONE) >= 0.75


def test_mser_cuts_a_transient() -> None:
    """An exponential decay over 200 of 2,000 points: what is cut covers it, and not half of the series."""
    noise = np.random.default_rng(1).normal(0, 0.1, 2000)
    found = mser5(8 + 4 * np.exp(-np.arange(2000) / 200) + noise)
    assert found is not None
    means, d = found
    assert 0.2 < d / len(means) < 0.45
    assert means[d:].mean() == pytest.approx(8, abs=0.05)


def test_mser_cuts_nothing_off_a_constant_and_needs_twenty_points() -> None:
    found = mser5(np.full(100, 3.0))
    assert found is not None
    assert found[0].tolist() == [3.0] * 20
    assert found[1] == 0
    assert mser5(np.ones(19)) is None


def regular(requests: int, seconds: float) -> tuple[Samples, Window]:
    at = np.linspace(0, seconds * SECOND, requests, endpoint=False).astype(np.int64)
    return Samples(at - 1000, at - 1000, at, np.zeros(requests, np.int64)), Window(0, round(seconds * SECOND))


@pytest.mark.parametrize(
    ("requests", "seconds", "bins"),
    [
        (99, 10, 0),  # too few to tell
        (100, 10, 20),
        (300, 10, 60),
        (5000, 10, 100),
        (5000, 300, 300),  # a bin a second
    ],
)
def test_bins_are_a_second_or_shorter_but_never_nearly_empty(
    requests: int, seconds: float, bins: int
) -> None:
    counts, medians = binned(*regular(requests, seconds))
    assert len(counts) == len(medians) == bins
    assert counts.sum() == (requests if bins else 0)


def test_few_requests_are_not_judged() -> None:
    assert steadiness(*regular(99, 10)).is_steady is None
    assert steadiness(*regular(500, 10)).is_steady is True


@pytest.mark.parametrize(
    ("rate_per_s", "low", "high"), [(50, 0, 0), (90, 0, 0.05), (110, 0.75, 1), (200, 1, 1)]
)
def test_a_queue_grows_only_past_capacity(rate_per_s: float, low: float, high: float) -> None:
    """10 ms a request: capacity is 100/s."""
    runs = [trial(Server(always(10)), cell(rate_per_s=rate_per_s), seconds=10, seed=s) for s in range(1, 31)]
    assert low <= np.mean([backlog(t.samples, t.window).grows for t in runs]) <= high
