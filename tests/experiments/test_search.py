"""The capacity search on simulated servers, in virtual time: never an answer that breaks the SLO."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis.slo import Holds, assess_slo, evidence_of
from bench.cli.verbs.search import exit_code, sentence
from bench.core.cell import SharedMemory
from bench.core.slo import Slo, parse_slo
from bench.core.spec import SweepSpec
from bench.experiments.search.algorithm import Capacity, Effort, Probe, find_capacity, samples_wanted, table
from bench.experiments.search.runner import name_of
from bench.loadgen.arrivals import poisson


def response_ns(rate_per_s: float, service_ns: int, seconds: float, seed: int) -> np.ndarray:
    """Sorted response times of one FIFO server with a fixed service time: work starts when it is due, or
    when all work before it is done."""
    due_ns = poisson(rate_per_s, seconds, seed)
    ahead_ns = service_ns * np.arange(len(due_ns))
    start_ns = np.maximum.accumulate(due_ns - ahead_ns) + ahead_ns
    return np.sort(start_ns + service_ns - due_ns)


def truth(slo: Slo, service_ns: int) -> float:
    """The capacity of the simulated server to about 2 %, by bisection on long simulations."""
    ((percent, bound),) = slo.latencies
    low, high = 0.05e9 / service_ns, 1e9 / service_ns
    for _ in range(10):
        middle = (low + high) / 2
        value = np.percentile(response_ns(middle, service_ns, 200_000 / middle, 99), percent)
        low, high = (middle, high) if value <= bound else (low, middle)
    return high


def search(slo: Slo, service_ns: int, seed: int) -> Capacity:
    count = iter(range(10_000))

    def measure(rate: float, effort: Effort) -> Probe:
        seconds = samples_wanted(slo, effort) / rate
        latencies = response_ns(rate, service_ns, seconds, seed * 1000 + next(count))
        evidence = (latencies, 0, len(latencies), slo)
        return Probe(rate, *assess_slo(*evidence), evidence_of(*evidence, rate))

    return find_capacity(measure, 0.1e9 / service_ns)


@pytest.mark.parametrize(("asked", "service_ms"), [("p99=200ms", 20), ("p99=40ms", 5), ("p99=12ms", 4)])
def test_searches_stay_within_the_slo_and_near_the_capacity(asked: str, service_ms: int) -> None:
    """A few searches each; `benchmarks/studies.py` searches on a real server whose capacity is known."""
    slo, service_ns = parse_slo(asked), service_ms * 1_000_000
    capacity = truth(slo, service_ns)
    answers = [search(slo, service_ns, seed) for seed in range(6)]
    rates = [answer.rate_per_s or 0 for answer in answers]
    assert max(rates) <= capacity * 1.02
    assert min(rates) >= 0.93 * capacity
    assert sum(answer.low <= capacity * 1.02 and capacity * 0.98 <= answer.high for answer in answers) >= 5
    assert np.median([answer.estimate_per_s for answer in answers]) == pytest.approx(capacity, rel=0.03)


def test_an_slo_below_the_service_time_has_no_capacity() -> None:
    found = search(parse_slo("p99=10ms"), 20_000_000, 1)
    assert found.rate_per_s is None
    assert all(probe.outcome is Holds.NO for probe in found.probes)


def test_a_server_that_fails_above_a_rate_has_its_capacity_there() -> None:
    """No request is late, but from 100/s on some fail: that is a limit, too."""

    def measure(rate: float, effort: Effort) -> Probe:
        n = samples_wanted(Slo(((99.0, 10),)), effort)
        evidence = (np.ones(n, dtype=np.int64), 5 * (rate > 100), n + 5, Slo(((99.0, 10),)))
        return Probe(rate, *assess_slo(*evidence), evidence_of(*evidence, rate))

    found = find_capacity(measure, 10)
    assert found.rate_per_s == pytest.approx(97, abs=3)


def test_a_coin_tossing_server_does_not_keep_the_search_forever() -> None:
    rng = np.random.default_rng(1)
    found = find_capacity(lambda rate, _: Probe(rate, Holds.YES if rng.random() < 0.5 else Holds.NO, ""), 10)
    assert len(found.probes) <= 45


@pytest.mark.parametrize(
    ("latencies_ms", "errors", "slo", "outcome"),
    [
        ([1] * 662, 0, "p99=2ms", Holds.YES),
        ([1] * 400, 0, "p99=2ms", Holds.LIKELY),
        ([1] * 661 + [3], 0, "p99=2ms", Holds.YES),
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
    assert assess_slo(latencies, errors, len(latencies) + errors, parse_slo(slo))[0] is outcome


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

    def measure(rate: float, effort: Effort) -> Probe:
        slo = Slo(((99.0, 10),))
        n = samples_wanted(slo, effort)
        evidence = (np.full(n, 5 if rate <= 100 else 50, dtype=np.int64), 0, n, slo)
        invalid = misses_by if rate > 100 else holds_with
        return Probe(rate, *assess_slo(*evidence), evidence_of(*evidence, rate), invalid)

    return find_capacity(measure, 10)


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
