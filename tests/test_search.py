"""The capacity search on simulated servers, in virtual time: never an answer that breaks the SLO."""

from __future__ import annotations

import numpy as np
import pytest

from bench.arrivals import poisson
from bench.search import Capacity, Effort, Probe, find_capacity, samples_wanted
from bench.slo import Holding, judge
from bench.units import Slo, parse_slo


def response_ns(rate_per_s: float, service_ns: int, seconds: float, seed: int) -> np.ndarray:
    """Sorted response times of one FIFO server with a fixed service time: work starts when it is due, or
    when all work before it is done."""
    due_ns = poisson(rate_per_s, seconds, seed)
    ahead_ns = service_ns * np.arange(len(due_ns))
    start_ns = np.maximum.accumulate(due_ns - ahead_ns) + ahead_ns
    return np.sort(start_ns + service_ns - due_ns)


def truth(slo: Slo, service_ns: int) -> float:
    """The capacity of the simulated server, by bisection on long simulations (a million requests each)."""
    ((percent, bound),) = slo.latencies
    low, high = 0.3e9 / service_ns, 1e9 / service_ns
    for _ in range(12):
        middle = (low + high) / 2
        value = np.percentile(response_ns(middle, service_ns, 1_000_000 / middle, 99), percent)
        low, high = (middle, high) if value <= bound else (low, middle)
    return high


def search(slo: Slo, service_ns: int, seed: int) -> Capacity:
    count = iter(range(10_000))

    def measure(rate: float, effort: Effort) -> Probe:
        seconds = samples_wanted(slo, effort) / rate
        latencies = response_ns(rate, service_ns, seconds, seed * 1000 + next(count))
        outcome, why = judge(latencies, 0, len(latencies), slo)
        return Probe(rate, outcome, why)

    return find_capacity(measure, 0.1e9 / service_ns)


@pytest.mark.parametrize(("asked", "service_ms"), [("p99=200ms", 20), ("p99=40ms", 5)])
def test_twenty_searches_stay_within_the_slo_and_near_the_capacity(asked: str, service_ms: int) -> None:
    slo, service_ns = parse_slo(asked), service_ms * 1_000_000
    capacity = truth(slo, service_ns)
    found = [search(slo, service_ns, seed).rate_per_s or 0 for seed in range(20)]
    assert max(found) <= capacity * 1.01  # the truth is known to a percent
    assert sum(rate >= 0.95 * capacity for rate in found) >= 16
    assert np.median(found) >= 0.96 * capacity


def test_an_slo_below_the_service_time_has_no_capacity() -> None:
    found = search(parse_slo("p99=10ms"), 20_000_000, 1)
    assert found.rate_per_s is None
    assert all(probe.outcome is Holding.MISSES for probe in found.probes)


def test_a_search_ends_at_the_highest_rate_it_may_ask_for() -> None:
    found = find_capacity(lambda rate, _: Probe(rate, Holding.HOLDS, ""), 10, most_per_s=100)
    assert (found.rate_per_s, found.high) == (100, None)


def test_a_coin_tossing_server_does_not_keep_the_search_forever() -> None:
    rng = np.random.default_rng(1)
    found = find_capacity(
        lambda rate, _: Probe(rate, Holding.HOLDS if rng.random() < 0.5 else Holding.MISSES, ""), 10
    )
    assert len(found.probes) <= 45


@pytest.mark.parametrize(
    ("latencies_ms", "errors", "slo", "outcome"),
    [
        ([1] * 662, 0, "p99=2ms", Holding.HOLDS),
        ([1] * 400, 0, "p99=2ms", Holding.UNDECIDED),
        ([1] * 661 + [3], 0, "p99=2ms", Holding.HOLDS),
        ([1] * 660 + [3, 3], 0, "p99=2ms", Holding.UNDECIDED),
        ([1] * 600 + [3] * 62, 0, "p99=2ms", Holding.MISSES),
        ([1] * 662, 1, "p99=2ms", Holding.MISSES),
        ([1] * 1999, 1, "p99=2ms,errors=0.1%", Holding.HOLDS),
        ([], 5, "p99=2ms", Holding.MISSES),
    ],
)
def test_a_probe_holds_only_when_its_samples_prove_it(
    latencies_ms: list[int], errors: int, slo: str, outcome: Holding
) -> None:
    latencies = np.array(latencies_ms, dtype=np.int64) * 1_000_000
    assert judge(latencies, errors, len(latencies) + errors, parse_slo(slo))[0] is outcome
