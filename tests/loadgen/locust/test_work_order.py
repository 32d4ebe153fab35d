"""A work order arrives as it was sent, whatever is in it."""

from __future__ import annotations

import json

import pytest

from bench.core.cell import Arrival, Protocol, SharedMemory
from bench.core.target import Target
from bench.core.trial import Reference
from bench.loadgen.locust.work_order import WorkOrder

PLAIN = WorkOrder(
    targets=(Target("http://h:1"),),
    protocol=Protocol.HTTP,
    model="m",
    metadata={"inputs": [{"name": "x", "shape": [-1, 3]}]},
    max_batch=0,
    batch=1,
)
FULL = WorkOrder(
    targets=(
        Target("https://a:1", "a:2", headers=(("Authorization", "s3cret"),)),
        Target("", "b:2", name="b"),
    ),
    protocol=Protocol.GRPC,
    model="m",
    metadata={"inputs": []},
    max_batch=64,
    batch=8,
    model_version="2",
    shared_memory=SharedMemory.SYSTEM,
    reference=Reference("right.npz", "computed here", 1e-3, 1e-4, 0.02),
    rate_per_s=12.5,
    arrival=Arrival.CONSTANT,
    tape_s=3.0,
    seed=7,
    users=4,
    worker=1,
    workers=3,
    samples="samples-1.npz",
)


@pytest.mark.parametrize("order", [PLAIN, FULL])
def test_an_order_is_the_same_after_its_way_as_json(order: WorkOrder) -> None:
    arrived = WorkOrder.from_json(json.loads(json.dumps(order.to_json())))
    assert arrived == order
    assert type(arrived.protocol) is Protocol
    assert hash(arrived.targets) == hash(order.targets)


def test_an_order_never_shows_the_values_of_headers() -> None:
    assert "s3cret" not in repr(FULL)
