"""Several Tritons as one: loaded, verified and counted on every pod; users spread over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.cell import Cell, Load, Protocol, ServerConfiguration, Via
from bench.core.errors import ModelLoadFailed
from bench.core.target import Target
from bench.core.trial import Counters, Plan, Served
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.engine import LocustEngine, orders_of
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton, start
from bench.server.fleet import control_of
from bench.server.serving import Serving

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MODEL = "null_small"


def load(**changes: Any) -> Load:
    return Load(**{"protocol": Protocol.HTTP, "batch": 1, "concurrency": 4, **changes})


def test_all_workers_users_together_take_turns_over_the_pods() -> None:
    """3 workers, 8 users, 2 pods: 4 users each."""
    plan = Plan(
        cell=Cell(server=ServerConfiguration(model="m"), load=load(concurrency=8, via=Via.POD)),
        repeat=0, seed=1, warmup_s=0, duration_s=1,
    )  # fmt: skip
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [4]}], "outputs": []}
    pods = tuple(Target(f"http://10.0.0.{i}:8000", f"10.0.0.{i}:8001", name=str(i)) for i in (1, 2))
    service = Target("http://m.example", "m.example:80", pods=pods)
    orders = orders_of(plan, service, Served(metadata, {}), 3, Path())
    seen = [
        ConnectionFactory(order)._target(user).http_url for order in orders for user in range(order.users)
    ]
    assert sorted(seen) == [pods[0].http_url] * 4 + [pods[1].http_url] * 4
    assert all(type(order).from_json(order.to_json()) == order for order in orders)


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
