"""What is measured on a real server whose truth is known is that truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bench.analysis.checks import findings_of
from bench.analysis.stats import arithmetic, nearest_rank
from bench.analysis.summary import summarize, throughput_req_per_s
from bench.core.cell import Arrival, Load, Protocol, ServerConfiguration
from bench.core.trial import Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.server.embedded import EmbeddedTriton
from benchmarks.truth import tape_wait_ms, waited_ms
from tests.support.calibration import closed, measure, parameters, undisturbed

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def engine() -> Iterator[LocustEngine]:
    with LocustEngine() as engine:
        yield engine


def delay(instances: int = 1, /, **values: object) -> ServerConfiguration:
    return ServerConfiguration(model="delay", instances=instances, parameters=parameters(**values))


def percentile_ms(trial: Trial, percent: float) -> float:
    return nearest_rank(summarize(trial).latencies_ns, percent) / 1e6


def period_ms(trial: Trial) -> float:
    """Mean time from one answer to the next, which no edge of the window cuts."""
    done_ns = np.sort(trial.samples.done_in(trial.window).done_ns)
    return float(np.diff(done_ns).mean()) / 1e6


@pytest.mark.alone
@pytest.mark.parametrize("protocol", list(Protocol))
def test_throughput_is_within_2_percent_and_the_median_within_2_ms(
    engine: LocustEngine, triton: EmbeddedTriton, protocol: Protocol
) -> None:
    server, load = delay(1, delay_ms=100), closed(1, protocol)
    truth = pytest.approx(100, rel=0.02)
    trial = undisturbed(
        lambda: measure(engine, triton, server, load, duration_s=1.5),
        lambda trial: period_ms(trial) == truth,
    )
    assert period_ms(trial) == truth
    assert percentile_ms(trial, 50) == pytest.approx(100, abs=2)


@pytest.mark.alone
def test_two_slow_requests_in_a_hundred_are_in_p99_and_not_in_p95(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    server = delay(2, delay_ms=4, slow_fraction=0.02, slow_factor=10)
    trial = undisturbed(
        lambda: measure(engine, triton, server, closed(2), duration_s=2.0),
        lambda trial: percentile_ms(trial, 95) < 20,
    )
    assert percentile_ms(trial, 99) >= 40
    assert percentile_ms(trial, 95) < 20


@pytest.mark.alone
def test_the_mean_wait_is_that_of_a_queue_with_a_constant_service_time(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    """Against the very arrivals of the tape: a few seconds are too short for the formula of endless time.

    `python -m benchmarks truth` holds it within 10 % over minutes, at utilisation 0.5 and 0.8.
    """
    server = delay(1, delay_ms=8)
    load = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=0.5 * 118)  # of the 125 that 8 ms allow

    def off_percent(trial: Trial) -> float:
        return abs(waited_ms(trial) / tape_wait_ms(trial) - 1) * 100

    trial = undisturbed(
        lambda: measure(engine, triton, server, load, duration_s=3.0),
        lambda trial: off_percent(trial) <= 25,
    )
    assert off_percent(trial) <= 25


def test_a_stall_is_in_the_open_loops_p99_and_not_in_the_closed_loops(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    """The server stops once for 0.8 s. What was due meanwhile waited, though one user never sent it."""
    stall = {"delay_ms": 3, "stall_after_s": 0.7, "stall_s": 0.8}
    paced = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=120, arrival=Arrival.CONSTANT)
    opened = measure(engine, triton, delay(1, **stall), paced, duration_s=2.2)
    assert opened.planned == len(opened.samples)
    assert percentile_ms(opened, 99) > 600
    again = delay(1, **stall, slow_factor=9)  # another configuration, so the model starts anew
    looped = measure(engine, triton, again, closed(1), duration_s=2.2)
    assert looped.samples.response_ns.max() > 0.75e9  # it did meet the stall, once
    assert percentile_ms(looped, 99) < 400


def test_throughput_of_a_slow_model_is_the_truth_and_its_interval_contains_it(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    """A window of 0.5 s counts whole requests of 150 ms 10 % too low, in every repeat alike.

    The truth is the mean time from one answer to the next over all that was recorded: on a machine that is
    busy with other things it is more than 150 ms. `python -m benchmarks truth` holds real seconds against it.
    """
    trials = [
        measure(engine, triton, delay(1, delay_ms=150), closed(1), duration_s=0.5, seed=seed)
        for seed in range(3)
    ]
    edges = float(np.mean([summarize(trial).edges_img_per_s for trial in trials]))
    interval = arithmetic([throughput_req_per_s(trial) for trial in trials], edges)
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    truth_per_s = (
        1 / float(np.concatenate([np.diff(np.sort(t.samples.done_ns)) for t in trials]).mean()) * 1e9
    )
    assert interval.value == pytest.approx(truth_per_s, rel=0.03)
    assert interval.low <= truth_per_s * 1.01
    assert interval.high >= truth_per_s * 0.99
    assert "window-too-short" not in {finding.code for trial in trials for finding in findings_of(trial)}
