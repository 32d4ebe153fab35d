"""Fits find the law that made the data, say how far off they are, and go no further than the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from bench.analysis.capacity_models import (
    fit_batches,
    fit_usl,
    little,
    measured_knee,
    roofline_per_s,
)
from bench.core.samples import Samples, Window
from tests.support.simulation import Server, always, cell, trial

MS = 1_000_000


@given(
    fixed_us=st.floats(0, 1e4), item_us=st.floats(1, 1e4),
    batches=st.sets(st.sampled_from([1, 2, 4, 8, 16, 32]), min_size=2),
)  # fmt: skip
def test_a_line_over_batch_is_found(fixed_us: float, item_us: float, batches: set[int]) -> None:
    counted = {b: (1000, round(1000 * (fixed_us + item_us * b) * 1e3)) for b in batches}
    model = fit_batches(counted)
    assert model is not None
    assert model.fixed_s * 1e6 == pytest.approx(fixed_us, abs=0.05)
    assert model.per_item_s * 1e6 == pytest.approx(item_us, rel=1e-3, abs=0.05)
    assert model.worst < 1e-3


# FasterTransformer's table, ViT-B/16 in fp16 on an A100: ms of an execution by batch.
A100 = {1: 1.53, 8: 3.03, 32: 10.04}


def test_a_published_table_fits_within_a_tenth() -> None:
    model = fit_batches({b: (100, round(100 * ms * MS)) for b, ms in A100.items()})
    assert model is not None
    assert model.worst < 0.10
    assert model.ceiling_per_s == pytest.approx(3900, rel=0.10)
    assert 32 / model.execution_s(32) == pytest.approx(3187, rel=0.10)


def test_time_that_falls_with_batch_gives_no_negative_cost() -> None:
    model = fit_batches({1: (10, 100 * MS), 8: (10, 50 * MS)})
    assert model is not None
    assert model.fixed_s >= 0
    assert model.per_item_s >= 0
    assert model.worst > 0.2  # and the residuals say that it is no fit


def test_one_batch_size_is_no_line() -> None:
    assert fit_batches({8: (100, 100 * MS), 16: (0, 0)}) is None


def usl(n: float, single: float, sigma: float, kappa: float) -> float:
    return single * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


POINTS = (1, 2, 4, 8, 16, 32)


@given(single=st.floats(0.1, 1e4), sigma=st.floats(0, 0.5), kappa=st.floats(0, 0.01))
def test_a_usl_is_found(single: float, sigma: float, kappa: float) -> None:
    found = fit_usl({n: usl(n, single, sigma, kappa) for n in POINTS})
    assert found is not None
    assert found.single_per_s == pytest.approx(single, rel=1e-6)
    assert found.contention == pytest.approx(sigma, abs=1e-6)
    assert found.coherence == pytest.approx(kappa, abs=1e-7)
    assert found.worst < 1e-6


@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_with_noise_it_fits_as_well_as_scipy_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    n = np.array(POINTS, dtype=float)
    x = np.array([usl(at, 100, 0.1, 0.002) for at in n]) * random.lognormal(0, 0.03, len(n))
    found = fit_usl(dict(zip(n.tolist(), x.tolist(), strict=True)))
    assert found is not None
    oracle, _ = optimize.curve_fit(usl, n, x, p0=(100, 0.1, 0.002), sigma=x, bounds=(0, np.inf))
    theirs = np.abs(x / [usl(at, *oracle) for at in n.tolist()] - 1)
    assert found.worst <= theirs.max() + 0.02


def test_a_curve_is_not_read_far_beyond_its_data() -> None:
    found = fit_usl({n: usl(n, 100, 0.1, 0.0001) for n in POINTS})
    assert found is not None
    assert found.per_s(48) == pytest.approx(usl(48, 100, 0.1, 0.0001))
    with pytest.raises(ValueError, match=r"beyond 1\.5 times the largest point, 32"):
        found.per_s(49)
    assert found.peak is None  # at 95: nobody has been there
    near = fit_usl({n: usl(n, 100, 0.1, 0.001) for n in POINTS})
    assert near is not None
    assert near.peak == pytest.approx(30)


def test_five_points_are_no_usl() -> None:
    assert fit_usl({n: float(n) for n in POINTS[:5]}) is None


def test_the_knee_is_where_the_servers_are_busy() -> None:
    """Two servers at 10 ms: throughput is min(N, 2) * 100/s."""
    measured = {
        float(n): trial(Server(always(10.0), 2), cell(concurrency=n), seconds=5).samples for n in (1, 2, 4)
    }
    assert measured_knee({n: len(samples) / 7 for n, samples in measured.items()}) == 2


@given(users=st.integers(1, 16), servers=st.integers(1, 4), service_ms=st.floats(1, 50))
@settings(max_examples=25, deadline=None)
def test_littles_law_holds_up_to_the_windows_ends(users: int, servers: int, service_ms: float) -> None:
    one = trial(Server(always(service_ms), servers), cell(concurrency=users), seconds=5)
    law = little(one.samples, one.window)
    assert law.in_flight == pytest.approx(users, rel=1e-3)
    assert abs(law.off) <= law.edges + 1e-9


def test_littles_law_without_requests() -> None:
    law = little(Samples.of([]), Window(0, 10))
    assert (law.in_flight, law.rate_per_s, law.off) == (0, 0, 0)


def test_the_roofline_is_the_lower_of_arithmetic_and_memory() -> None:
    """ViT-B/16 in bf16 on an H200: 35.1 GFLOP an image, 173 MB of weights, 990 TFLOP/s, 4.8 TB/s."""
    common = {"flop_per_item": 35.1e9, "bytes_per_item": 1.2e6, "weight_bytes": 173e6}
    device = {"peak_flop_per_s": 990e12, "peak_bytes_per_s": 4.8e12}
    assert roofline_per_s(batch=32, **common, **device) == pytest.approx(28_200, rel=0.01)
    alone = roofline_per_s(batch=1, **common, **device)
    assert alone == pytest.approx(4.8e12 / 174.2e6, rel=1e-6)
    assert alone < 28_200
