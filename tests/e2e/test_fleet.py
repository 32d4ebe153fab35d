"""Several Tritons as one: loaded, verified and counted on every pod; users spread over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.checks.pods import shares
from bench.analysis.summary import TrialSummary
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration, Via
from bench.core.errors import ModelLoadFailed, ToolError, Unreachable
from bench.core.target import Target
from bench.core.trial import Counters, Plan, Served, Trial, total
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.engine import LocustEngine, orders_of
from bench.server.control import Snapshot, Triton
from bench.server.embedded import EmbeddedTriton, start
from bench.server.fleet import Fleet, FleetSnapshot, control_of, no_way, only_way, way_of, ways
from bench.server.serving import Serving

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MODEL = "null_small"
PODS = (
    Target("http://10.0.0.1:8000", "10.0.0.1:8001", name="a"),
    Target("http://10.0.0.2:8000", "10.0.0.2:8001", name="b"),
)
SERVICE = Target("http://m.example", "m.example:80", pods=PODS)
GRPC = Target("http://g.example", "g.example:80", pods=PODS[1:], way="gRPC service's address")
BOTH = Target("http://m.example", pods=PODS[:1], way="service address", over_grpc=GRPC)
numbers = st.integers(0, 10**12)


def load(**changes: Any) -> Load:
    return Load(**{"protocol": Protocol.HTTP, "batch": 1, "concurrency": 4, **changes})


def stats(inferences: int, executions: int, infer_ns: int) -> dict[str, Any]:
    return {
        "inference_count": inferences,
        "execution_count": executions,
        "inference_stats": {"success": {"count": executions, "ns": 2 * infer_ns}},
        "batch_stats": [{"batch_size": 1, "compute_infer": {"count": executions, "ns": infer_ns}}],
    }


@pytest.mark.parametrize(
    ("says", "target", "asked", "addresses"),
    [
        ("a plain server has one way", PODS[0], load(via=Via.POD), [PODS[0].http_url]),
        ("a service is asked at its own address", SERVICE, load(), [SERVICE.http_url]),
        ("through the platform too", SERVICE, load(via=Via.PLATFORM), [SERVICE.http_url]),
        ("straight to every pod", SERVICE, load(via=Via.POD), [pod.http_url for pod in PODS]),
        ("its gRPC address is its own", SERVICE, load(protocol=Protocol.GRPC), [SERVICE.http_url]),
        (
            "gRPC goes straight where the platform has one port only",
            replace(SERVICE, grpc_address=None),
            load(protocol=Protocol.GRPC),
            [pod.http_url for pod in PODS],
        ),
        ("gRPC has a service of its own", BOTH, load(protocol=Protocol.GRPC), [GRPC.http_url]),
        ("HTTP does not go there", BOTH, load(), [SERVICE.http_url]),
        ("to its own pods", BOTH, load(protocol=Protocol.GRPC, via=Via.POD), [PODS[1].http_url]),
        ("HTTP to all others", BOTH, load(via=Via.POD), [PODS[0].http_url]),
        (
            "a gRPC service that does not answer from here",
            replace(BOTH, over_grpc=replace(GRPC, grpc_address=None)),
            load(protocol=Protocol.GRPC),
            [PODS[1].http_url],
        ),
        ("HTTP at a service that takes gRPC only", replace(BOTH, http_url=""), load(), [PODS[0].http_url]),
    ],
)
def test_where_requests_go(says: str, target: Target, asked: Load, addresses: list[str]) -> None:
    assert [way.http_url for way in ways(target, asked)] == addresses, says


def test_the_way_is_told_in_words_and_as_an_address() -> None:
    assert way_of(BOTH, load()) == {"way": "service address", "address": "http://m.example"}
    over_grpc = load(protocol=Protocol.GRPC)
    assert way_of(BOTH, over_grpc) == {"way": "gRPC service's address", "address": "g.example:80"}
    assert way_of(PODS[0], load()) == {}, "a server that is no service has one way only"


@pytest.mark.parametrize(
    ("says", "target", "protocol", "vias", "expected"),
    [
        ("each has an address", BOTH, Protocol.GRPC, (Via.PLATFORM,), ""),
        ("it may go to the pods", replace(SERVICE, grpc_address=None), Protocol.GRPC, (None,), ""),
        (
            "unless that is forbidden",
            replace(SERVICE, grpc_address=None),
            Protocol.GRPC,
            (Via.PLATFORM,),
            "A,B",
        ),
        ("HTTP just so", replace(BOTH, http_url=""), Protocol.HTTP, (Via.POD, Via.PLATFORM), "A,B"),
        ("a server without a port to count from", Target("http://a"), Protocol.GRPC, (None,), "--grpc-url"),
    ],
)
def test_a_protocol_without_a_way_is_a_mistake(
    says: str, target: Target, protocol: Protocol, vias: tuple[Via | None, ...], expected: str
) -> None:
    said = no_way(target, protocol, vias)
    assert (expected in said) if expected else not said, says


def test_control_is_of_the_pods_of_both_services_and_of_each_once() -> None:
    for target, names in ((BOTH, ["a", "b"]), (replace(BOTH, pods=PODS), ["a", "b"])):
        fleet = Fleet(target)
        assert [pod.target.name for pod in fleet._pods] == names
        fleet.close()


def test_an_engine_of_one_address_refuses_several_and_names_the_way_out() -> None:
    assert only_way(SERVICE, load()) is SERVICE
    with pytest.raises(ToolError, match="--engine locust"):
        only_way(SERVICE, load(via=Via.POD))


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


@pytest.mark.parametrize(
    ("says", "counts", "code"),
    [
        ("an even share is a note", {"a": 50, "b": 50}, "pods"),
        ("half of an even share still is", {"a": 75, "b": 25}, "pods"),
        ("a pod that was passed over is a warning", {"a": 90, "b": 10}, "pods-uneven"),
        ("an idle one too", {"a": 9, "b": 9, "c": 0}, "pods-uneven"),
        ("one pod shares with nobody", {"a": 9}, None),
        ("a plain server has no pods", {}, None),
    ],
)
def test_how_the_load_was_shared(says: str, counts: dict[str, int], code: str | None) -> None:
    pods = {name: replace(total([]), inference_count=count) for name, count in counts.items()}
    trial = cast(Trial, SimpleNamespace(counters=replace(total(pods.values()), pods=pods)))
    found = list(shares(trial, cast(TrialSummary, SimpleNamespace(requests=10))))
    assert [finding.code for finding in found] == ([code] if code else []), says


def test_all_workers_users_together_take_turns_over_the_pods() -> None:
    """3 workers, 8 users, 2 pods: 4 users each."""
    plan = Plan(
        cell=Cell(server=ServerConfiguration(model="m"), load=load(concurrency=8, via=Via.POD)),
        repeat=0, seed=1, warmup_s=0, duration_s=1,
    )  # fmt: skip
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [4]}], "outputs": []}
    orders = orders_of(plan, SERVICE, Served(metadata, {}), 3, Path())
    seen = [
        ConnectionFactory(order)._target(user).http_url for order in orders for user in range(order.users)
    ]
    assert sorted(seen) == [PODS[0].http_url] * 4 + [PODS[1].http_url] * 4
    assert all(type(order).from_json(order.to_json()) == order for order in orders)


def test_a_pod_that_is_gone_is_named() -> None:
    fleet = Fleet(Target("http://127.0.0.1:1", pods=(Target("http://127.0.0.1:1", name="vit-0"),)))
    try:
        assert not fleet.live()
        with pytest.raises(Unreachable, match="Pod vit-0: Nothing answers"):
            fleet.statistics("m")
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Two real servers as the pods of one service, whose own address is the first's."""
    folder = tmp_path_factory.mktemp("fleet")
    with start(REPOSITORY, log=folder / "a.log") as a, start(REPOSITORY, log=folder / "b.log") as b:
        yield _service(a, b)


def _service(*servers: EmbeddedTriton) -> Target:
    pods = tuple(replace(s.target, name=name) for s, name in zip(servers, "ab", strict=True))
    return replace(pods[0], name="", pods=pods)


@pytest.mark.e2e
def test_every_pod_is_loaded_verified_and_taken_back(two: Target) -> None:
    fleet = control_of(two)
    pods = [Triton(pod) for pod in two.pods]
    serving = Serving(fleet, MODEL)
    try:
        before = len(serving.base()["instance_group"])
        serving.configure(ServerConfiguration(model=MODEL, instances=2))
        assert [_instances(pod) for pod in pods] == [2, 2]
        pods[1].unload(MODEL)
        pods[1].load(MODEL)
        with pytest.raises(ModelLoadFailed, match=r"Pods a and b serve .* differently \(instance_group"):
            fleet.config(MODEL)
        serving.restore()
        assert [_instances(pod) for pod in pods] == [1, 1]
        assert before == 1
    finally:
        for pod in pods:
            pod.close()
        fleet.close()


@pytest.mark.e2e
def test_a_load_straight_to_the_pods_is_shared_and_counted_on_each(two: Target, tmp_path: Path) -> None:
    fleet = control_of(two)
    try:
        served = Serving(fleet, MODEL).configure(ServerConfiguration(model=MODEL))
    finally:
        fleet.close()
    with LocustEngine() as engine:
        for protocol in Protocol:
            server = ServerConfiguration(model=MODEL)
            cell = Cell(server=server, load=load(protocol=protocol, concurrency=2, via=Via.POD))
            plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.2, duration_s=0.5)
            trial = engine.measure(plan, two, served)
            counters = trial.counters
            assert counters is not None
            shares = {name: pod.inference_count for name, pod in counters.pods.items()}
            assert sum(shares.values()) == counters.inference_count > 0
            assert min(shares.values()) > 0, shares
            assert _kept(tmp_path / protocol, trial.counters) == counters


def _instances(pod: Triton) -> int:
    return sum(int(group["count"]) for group in pod.config(MODEL)["instance_group"])


def _kept(_path: Path, counters: Counters | None) -> Counters | None:
    """As a run folder writes and reads it."""
    from bench.core.run_folder import _converter

    data = _converter.unstructure(counters, Counters | None)
    kept: Counters | None = _converter.structure(data, Counters | None)
    return kept
