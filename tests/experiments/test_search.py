"""The capacity search on simulated servers, in virtual time: never an answer that breaks the SLO."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.capacity_estimate import Evidence
from bench.analysis.slo import Holds, judge
from bench.cli.verbs.search import exit_code, sentence
from bench.core.cell import SharedMemory
from bench.core.slo import Slo, parse_slo
from bench.core.spec import SweepSpec
from bench.experiments.search.algorithm import (
    MOST_PROBES,
    Capacity,
    Length,
    Probe,
    find_capacity,
    table,
)
from bench.experiments.search.runner import name_of, steady
from tests.support import queues
from tests.support.queues import Queue


def of(name: str, server: queues.Server, slo: str, start_per_s: float, drift_s: float = 0.0) -> Queue:
    """`drift_s`: in so many seconds the server becomes 20 % slower."""
    return Queue(name=name, server=server, slo=parse_slo(slo), start_per_s=start_per_s,
                 drift=0.2 if drift_s else 0.0, drift_s=drift_s)  # fmt: skip


MD1 = of("M/D/1", queues.single(queues.constant(0.005)), "p99=40ms", 60)
FULL = of("SLO of 50 x service", queues.single(queues.exponential(0.005)), "p99=250ms", 60)
HEAVY = of("lognormal cv 1.5", queues.single(queues.lognormal(0.005, 1.5)), "p99=75ms", 60)
BATCHING = of("dynamic batching 16", queues.batching(0.010, 0.0005, 16), "p99=60ms", 28)


@pytest.mark.parametrize(("queue", "capacity", "studies"), [
    (MD1, 143.7, 6), (FULL, 181.6, 6), (HEAVY, 77.0, 4), (BATCHING, 827.0, 6),
], ids=lambda value: getattr(value, "name", ""))  # fmt: skip
def test_an_answer_is_within_the_capacity_and_near_it(queue: Queue, capacity: float, studies: int) -> None:
    """A few searches each, the capacities by long simulations; `make coverage` runs 400 of each."""
    answers = [queue.search(seed)[0] for seed in range(studies)]
    settled = [answer.rate_per_s for answer in answers if answer.rate_per_s is not None]
    assert all(0.9 * capacity <= rate <= 1.01 * capacity for rate in settled)
    assert sum(answer.low <= capacity <= answer.high for answer in answers) >= studies - 1
    assert all(len(answer.probes) <= MOST_PROBES for answer in answers)


def test_a_server_that_becomes_slower_is_no_answer() -> None:
    """By 20 % over the study."""
    drifting = of("M/D/1", MD1.server, "p99=40ms", 60, drift_s=1000.0)
    answers = [drifting.search(seed, 60.0)[0] for seed in range(5)]
    assert sum(answer.rate_per_s is None for answer in answers) >= 4
    changes = [answer.change for answer in answers if answer.change is not None]
    assert changes
    assert max(changes) < 0
    assert "not settled, because the server changed" in sentence(
        next(answer for answer in answers if answer.change is not None), drifting.slo
    )


def test_a_search_that_is_not_settled_says_what_would_settle_it() -> None:
    """Pareto service of shape 2.5: late requests are few, and come in crowds."""
    found, _ = of("", queues.single(queues.pareto(0.005, 2.5)), "p99=75ms", 60).search(3, 20.0)
    assert found.rate_per_s is None
    assert (found.longer or 0) > 2
    said = sentence(found, MD1.slo)
    assert said.startswith("INVALID: the search is not settled. The limit under")
    assert f"A --longest-probe {np.ceil(found.longer or 0):g} times as long" in said
    assert exit_code([found]) == 3


def test_a_wrong_majority_does_not_bound_the_answer() -> None:
    """The first probes, of an empty queue, hold far above the capacity."""
    flattered = iter([1.0] * 14)

    def measure(rate: float, length: Length) -> Probe:
        rng = np.random.default_rng(round(rate * 1000))
        slower = next(flattered, 1.25)
        taken = MD1.latencies(rate, length.warmup + length.requests, rng, slower)[length.warmup :]
        return queues.probe_of(rate, np.round(taken * 1e9).astype(np.int64), MD1.slo)

    answer = find_capacity(measure, 60, MD1.slo)
    slow = queues.constant(0.00625)
    capacity = Queue(name="", server=MD1.server, service=slow, slo=MD1.slo, start_per_s=60).capacity()
    assert answer.rate_per_s is None or answer.rate_per_s <= 1.01 * capacity


def test_probes_fill_the_queue_first_and_are_as_long_as_it_remembers() -> None:
    lengths: list[Length] = []

    def measure(rate: float, length: Length) -> Probe:
        lengths.append(length)
        seen = Evidence(rate, 0 if rate < 100 else 60, 1000, 0.01, design=500.0)
        return Probe(rate, Holds.YES if rate < 100 else Holds.NO, "", seen)

    find_capacity(measure, 60, MD1.slo)
    assert lengths[0].warmup > 0
    assert all(length.requests >= 15_000 and length.warmup >= 1500 for length in lengths[3:])


def test_no_probe_is_longer_than_the_limit() -> None:
    """In which case the estimate knows less, and says so."""
    lengths: list[tuple[float, Length]] = []

    def measure(rate: float, length: Length) -> Probe:
        lengths.append((rate, length))
        seen = Evidence(rate, 0 if rate < 100 else 60, 1000, 0.01, design=500.0)
        return Probe(rate, Holds.YES if rate < 100 else Holds.NO, "", seen)

    find_capacity(measure, 60, MD1.slo, longest_s=20.0)
    assert max(length.requests / rate for rate, length in lengths) == pytest.approx(20, abs=0.1)
    assert max(length.warmup / rate for rate, length in lengths) <= 20.1


def test_computed_capacities_are_those_of_the_formula_and_of_the_simulation() -> None:
    """M/M/1: the wait of a request is exponential, with the rate that is left over."""
    assert queues.late_share(queues.exponential(0.005), 120, 0.05) == pytest.approx(np.exp(-4), rel=1e-3)
    for service in (queues.constant(0.005), queues.lognormal(0.005, 1.0), queues.pareto(0.005, 2.5)):
        taken = of("", queues.single(service), "p99=40ms", 60).latencies(
            120, 400_000, np.random.default_rng(1)
        )
        assert queues.late_share(service, 120, 0.02) == pytest.approx((taken > 0.02).mean(), rel=0.1)


def test_a_window_that_was_not_steady_does_not_hold() -> None:
    assert steady(Holds.YES, "p99 is 1 ms", {"saturated"})[0] is Holds.NO
    assert steady(Holds.YES, "p99 is 1 ms", {"unsteady"})[0] is Holds.LIKELY
    assert steady(Holds.YES, "p99 is 1 ms", set())[0] is Holds.YES


def test_an_slo_below_the_service_time_has_no_capacity() -> None:
    found = of("slow", queues.single(queues.constant(0.02)), "p99=10ms", 15).search(1)[0]
    assert found.rate_per_s is None
    assert all(probe.outcome is Holds.NO for probe in found.probes)


def test_a_server_that_fails_above_a_rate_has_its_capacity_there() -> None:
    """No request is late, but from 100/s on some fail: that is a limit, too."""

    def measure(rate: float, length: Length) -> Probe:
        n = length.requests
        evidence = (np.ones(n, dtype=np.int64), 5 * (rate > 100), n + 5, Slo(((99.0, 10),)))
        return Probe(rate, *judge(*evidence, rate))

    found = find_capacity(measure, 10, Slo(((99.0, 10),)))
    assert found.rate_per_s == pytest.approx(97, abs=3)


def test_a_coin_tossing_server_does_not_keep_the_search_forever() -> None:
    rng = np.random.default_rng(1)
    found = find_capacity(
        lambda rate, _: Probe(rate, Holds.YES if rng.random() < 0.5 else Holds.NO, ""), 10, MD1.slo
    )
    assert len(found.probes) <= 45


@pytest.mark.parametrize(
    ("latencies_ms", "errors", "slo", "outcome"),
    [
        ([1] * 662, 0, "p99=2ms", Holds.YES),
        ([1] * 400, 0, "p99=2ms", Holds.LIKELY),
        ([1] * 661 + [3], 0, "p99=2ms", Holds.LIKELY),
        (([1] * 199 + [3]) * 12, 0, "p99=2ms", Holds.YES),
        # As many of as many requests, but all in a row: that is one piece of evidence, not twelve.
        ([1] * 2388 + [3] * 12, 0, "p99=2ms", Holds.LIKELY),
        ([1] * 660 + [3, 3], 0, "p99=2ms", Holds.LIKELY),
        ([1] * 600 + [3] * 62, 0, "p99=2ms", Holds.NO),
        ([1] * 662, 1, "p99=2ms", Holds.NO),
        ([1] * 1999, 1, "p99=2ms,errors=0.1%", Holds.YES),
        ([], 5, "p99=2ms", Holds.NO),
    ],
)
def test_a_probe_holds_only_when_its_samples_prove_it(
    latencies_ms: list[int], errors: int, slo: str, outcome: Holds
) -> None:
    latencies = np.array(latencies_ms, dtype=np.int64) * 1_000_000
    assert judge(latencies, errors, len(latencies) + errors, parse_slo(slo), 9.0)[0] is outcome


def test_answers_for_different_servers_have_different_names() -> None:
    spec = SweepSpec(
        model="m", batches=(1,), concurrencies=(1,), max_batches=(8, 32), queue_delays_us=(-1, 1000),
        parameters=(("precision", ("fp32", "bf16")),), shared_memory=(SharedMemory.NONE, SharedMemory.SYSTEM),
    )  # fmt: skip
    names = [name_of(cell) for cell in spec.cells()]
    assert len(set(names)) == len(names) == 16
    assert names[0] == "m, batch 1, http, max batch 8, no dynamic batching, precision fp32"


def _limited(misses_by: tuple[str, ...] = (), holds_with: tuple[str, ...] = ()) -> Capacity:
    """A search on a service that holds up to 100/s, whose probes carry these INVALID findings."""

    def measure(rate: float, length: Length) -> Probe:
        slo, n = Slo(((99.0, 10),)), length.requests
        evidence = (np.full(n, 5 if rate <= 100 else 50, dtype=np.int64), 0, n, slo)
        invalid = misses_by if rate > 100 else holds_with
        return Probe(rate, *judge(*evidence, rate), invalid)

    return find_capacity(measure, 10, Slo(((99.0, 10),)))


@pytest.mark.parametrize(
    ("capacity", "doubts", "code"),
    [
        (_limited(), (), 0),
        # Overload is what a miss is; a generator at its limit is not the server's.
        (_limited(misses_by=("under-delivered",)), (), 0),
        (_limited(misses_by=("client-bound", "under-delivered")), ("client-bound",), 3),
        # The speed of wrong answers, or of a response cache, is no capacity.
        (_limited(holds_with=("wrong-answers",)), ("wrong-answers",), 3),
        # One probe on which a worker was lost decides nothing.
        (Capacity(9.0, (Probe(9.0, Holds.YES, "", None, ("worker-lost",)),
                        *[Probe(9.0, Holds.YES, "")] * 2)), (), 0),
        (Capacity(None, (Probe(9.0, Holds.NO, ""),)), (), 1),
        # The probes ran out: some rates did hold, so "is missed even at the lowest" would be wrong.
        (Capacity(None, (Probe(9.0, Holds.YES, ""), Probe(12.0, Holds.NO, ""))), (), 3),
    ],
)  # fmt: skip
def test_a_capacity_that_is_not_the_servers_is_no_answer(
    capacity: Capacity, doubts: tuple[str, ...], code: int
) -> None:
    slo = Slo(((99.0, 10),))
    assert (capacity.doubts, exit_code([capacity])) == (doubts, code)
    said = sentence(capacity, slo)
    assert said.startswith("VALID") is (code == 0)
    assert all(doubt in said for doubt in doubts)
    assert ("is missed even at" in said) is (code == 1)
    assert table([("m", capacity)])[0]["doubts"] == list(doubts)
