"""Laws that hold in virtual time: what the figures say of a server whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.stats import Change, change_of, geometric, nearest_rank, paired_ratio
from bench.analysis.summary import summarize
from bench.core.samples import Outcome, Window
from tests.support.simulation import MILLISECOND, SECOND, Server, always, cell, closed_loop, drawn, trial

STALL = Window(15 * SECOND, 15 * SECOND + 1500 * MILLISECOND)
STALLING = Server(always(2.0), stall=STALL)


def test_an_open_loop_shows_a_stall() -> None:
    """400/s for 30 s; nothing is answered for 1.5 s: every request due in it waits."""
    one = trial(STALLING, cell(rate_per_s=400))
    summary = summarize(one)
    assert nearest_rank(summary.latencies_ns, 99) > SECOND
    assert nearest_rank(summary.latencies_ns, 50) < 20 * MILLISECOND


def test_a_paced_closed_loop_does_not() -> None:
    """Eight users at 50/s each: while the server stalls they wait, and 600 requests are never sent."""
    samples = closed_loop(STALLING, 8, 32 * SECOND, pacing_ns=20 * MILLISECOND)
    assert nearest_rank(np.sort(samples.response_ns), 99) < 20 * MILLISECOND
    assert 550 < 32 * 400 - len(samples) < 650


def test_planned_is_sent_plus_unfinished_to_the_request() -> None:
    """An overload: 400/s asked, 200/s served, ten seconds to drain: some are never sent."""
    one = trial(Server(always(5.0)), cell(rate_per_s=400), seconds=20)
    sent = int((one.samples.outcome == Outcome.OK).sum())
    unfinished = int((one.samples.outcome == Outcome.UNFINISHED).sum())
    assert unfinished > 0
    assert one.planned == sent + unfinished
    unanswered = one.samples.where(one.samples.outcome == Outcome.UNFINISHED)
    assert (unanswered.response_ns >= one.plan.drain_s * SECOND).all()


@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_the_mean_wait_under_poisson_is_that_of_m_d_1(utilisation: float) -> None:
    """Pollaczek and Khinchine, constant service s: W = rho s / (2 (1 - rho))."""
    service_ms = 10.0
    of = cell(rate_per_s=utilisation * 1000 / service_ms)
    means = [
        summarize(trial(Server(always(service_ms)), of, seconds=300, seed=s)).latencies_ns.mean()
        for s in range(1, 6)
    ]
    wait_ms = np.mean(means) / MILLISECOND - service_ms
    assert wait_ms == pytest.approx(utilisation * service_ms / (2 * (1 - utilisation)), rel=0.10)


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_k_servers_serve_k_times_as_many(servers: int) -> None:
    summary = summarize(trial(Server(always(10.0), servers), cell(concurrency=2 * servers, batch=8)))
    assert summary.throughput_req_per_s == pytest.approx(100 * servers, rel=0.02)
    assert summary.throughput_img_per_s == pytest.approx(800 * servers, rel=0.02)
    assert nearest_rank(summary.latencies_ns, 50) == pytest.approx(20 * MILLISECOND, abs=2 * MILLISECOND)


def test_two_slow_requests_in_a_hundred_are_in_p99_and_not_in_p95() -> None:
    server = Server(drawn(lambda random, n: np.where(random.random(n) < 0.02, 100.0, 10.0), seed=1))
    latencies = summarize(trial(server, cell(concurrency=1), seconds=60)).latencies_ns
    assert nearest_rank(latencies, 95) == 10 * MILLISECOND
    assert nearest_rank(latencies, 99) == 100 * MILLISECOND


def _throughput(seed: int, service_ms: float, spread: float, seconds: float = 2.0) -> float:
    """A repeat whose speed is its own (a machine's luck) on top of every request's."""
    speed = float(np.exp(np.random.default_rng([seed, 7]).normal(0, spread)))
    server = Server(drawn(lambda random, n: service_ms * speed * random.gamma(16, 1 / 16, n), seed))
    return summarize(trial(server, cell(concurrency=2), seconds=seconds, warmup_s=0.2)).throughput_req_per_s


def test_intervals_over_repeats_cover_the_truth() -> None:
    """At least 90 of 100 studies of five repeats."""
    covered = 0
    for study in range(100):
        found = geometric([_throughput(1000 * study + r, 10.0, 0.03) for r in range(5)])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 100.0 <= found.high
    assert covered >= 90


def test_the_same_against_the_same_is_no_regression_and_a_tenth_slower_is() -> None:
    """Ten studies of five interleaved repeats of 10 s at a gate of 5 %, in each of the two."""
    for study in range(10):
        seeds = [5000 * (study + 1) + r for r in range(5)]
        base = [_throughput(seed, 10.0, 0.005, seconds=10) for seed in seeds]
        same = [_throughput(seed + 2500, 10.0, 0.005, seconds=10) for seed in seeds]
        slower = [_throughput(seed + 2500, 11.1, 0.005, seconds=10) for seed in seeds]
        assert change_of(paired_ratio(base, same), 0.95, higher_is_worse=False) is Change.NO_CHANGE
        assert change_of(paired_ratio(base, slower), 0.95, higher_is_worse=False) is Change.REGRESSION


def test_an_a_a_study_has_overlapping_intervals() -> None:
    """The same cell twice, five repeats each: at least 19 of 20 studies."""
    overlapping = 0
    for study in range(20):
        one, other = (
            geometric([_throughput(90_000 + 100 * study + 10 * side + r, 10.0, 0.02) for r in range(5)])
            for side in (0, 1)
        )
        assert one is not None
        assert other is not None
        overlapping += one.overlaps(other)
    assert overlapping >= 19
