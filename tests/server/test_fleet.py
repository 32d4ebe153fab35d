"""Several Tritons as one: counted on every pod, and each named where it fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import Unreachable
from bench.core.target import Target
from bench.core.trial import total
from bench.server.control import Snapshot
from bench.server.fleet import Fleet, FleetSnapshot

numbers = st.integers(0, 10**12)


def stats(inferences: int, executions: int, infer_ns: int) -> dict[str, Any]:
    return {
        "inference_count": inferences,
        "execution_count": executions,
        "inference_stats": {"success": {"count": executions, "ns": 2 * infer_ns}},
        "batch_stats": [{"batch_size": 1, "compute_infer": {"count": executions, "ns": infer_ns}}],
    }


def test_control_is_of_the_pods_of_both_services_and_of_each_once() -> None:
    a, b = (Target(f"http://10.0.0.{i}:8000", name=name) for i, name in enumerate("ab"))
    for pods in ((a,), (a, b)):
        fleet = Fleet(Target("http://m.example", pods=pods, over_grpc=Target("http://g.example", pods=(b,))))
        assert [pod.target.name for pod in fleet._pods] == ["a", "b"]
        fleet.close()


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5))
def test_counters_of_a_fleet_are_the_sum_of_its_pods(counts: list[tuple[int, int, int]]) -> None:
    before = FleetSnapshot(0, {}, {str(i): Snapshot(0, stats(5, 5, 5)) for i in range(len(counts))})
    after = {str(i): Snapshot(1, stats(5 + a, 5 + b, 5 + c)) for i, (a, b, c) in enumerate(counts)}
    counted = FleetSnapshot(1, {}, after) - before
    assert counted.inference_count == sum(a for a, _, _ in counts)
    assert counted.execution_count == counted.success_count == sum(b for _, b, _ in counts)
    assert counted.success_ns == 2 * sum(c for _, _, c in counts)
    assert [pod.inference_count for pod in counted.pods.values()] == [a for a, _, _ in counts]
    assert sum(n for n, _ in counted.batches.values()) == sum(b for _, b, _ in counts)


def test_a_pod_that_came_in_between_has_counted_all_it_has() -> None:
    before = FleetSnapshot(0, {}, {"a": Snapshot(0, stats(1, 1, 1))})
    after = FleetSnapshot(1, {}, {"a": Snapshot(1, stats(3, 3, 3)), "b": Snapshot(1, stats(7, 7, 7))})
    assert (after - before).inference_count == 9


def test_nothing_counted_is_zero_of_everything() -> None:
    assert total([]).inference_count == 0


def test_a_pod_that_is_gone_is_named() -> None:
    fleet = Fleet(Target("http://127.0.0.1:1", pods=(Target("http://127.0.0.1:1", name="vit-0"),)))
    try:
        assert not fleet.live()
        with pytest.raises(Unreachable, match="Pod vit-0: Nothing answers"):
            fleet.statistics("m")
    finally:
        fleet.close()
