"""What theory says of the queues that the suite is held against."""

from __future__ import annotations

import math

import pytest

from benchmarks.truth import md1_wait_s


@pytest.mark.parametrize(
    ("rate_per_s", "wait_ms"), [(50, 5.0), (80, 20.0), (0, 0.0), (100, math.inf), (200, math.inf)]
)
def test_the_mean_wait_of_poisson_arrivals_at_a_constant_service(rate_per_s: float, wait_ms: float) -> None:
    """Service takes 10 ms."""
    assert md1_wait_s(rate_per_s, 0.010) * 1000 == pytest.approx(wait_ms)
