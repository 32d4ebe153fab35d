"""The known capacity that `bench search` is held against: of a queue whose services are known here."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np
import pytest

from bench.core.samples import Samples
from bench.loadgen.arrivals import poisson
from benchmarks.studies import capacity, services_of

SERVICE_NS = 4_000_000


@pytest.mark.parametrize("servers", [1, 4])
def test_services_are_read_back_from_a_queue_of_requests(servers: int) -> None:
    due_ns = poisson(170 * servers, 20.0, 1)
    taken_ns = np.random.default_rng(1).integers(2_000_000, 6_000_000, len(due_ns))
    done_ns, free_ns = [], [0] * servers
    for due, taken in zip(due_ns.tolist(), taken_ns.tolist(), strict=True):
        done_ns.append(max(heappop(free_ns), due) + taken)
        heappush(free_ns, done_ns[-1])
    done = np.array(done_ns, dtype=np.int64)
    samples = Samples(due_ns, due_ns, done, np.zeros_like(done))
    assert np.array_equal(services_of(samples, servers), taken_ns[servers:])


@pytest.fixture(scope="module")
def of_one() -> float:
    """What one server with that constant service holds within 32 ms, requests a second."""
    return capacity(np.full(100, SERVICE_NS), 1, 32.0)


def test_the_capacity_of_a_queue_with_a_constant_service_is_the_known_one(of_one: float) -> None:
    """M/D/1 at 0.72 of its most: p99 is ten services, by the simulation of `tests/support/simulation.py`."""
    assert of_one == pytest.approx(179.7, rel=0.01)


def test_four_servers_hold_more_than_four_times_what_one_does(of_one: float) -> None:
    of_four = capacity(np.full(100, SERVICE_NS), 4, 32.0)
    assert 4.3 * of_one < of_four < 4 * 1e9 / SERVICE_NS
