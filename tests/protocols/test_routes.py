"""Which address of a target a load's requests take, over each protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.core.cell import Load, Protocol, Via
from bench.core.errors import ToolError
from bench.core.target import Target
from bench.protocols.routes import missing_route, only_route, route_record, routes

PODS = (
    Target("http://10.0.0.1:8000", "10.0.0.1:8001", name="a"),
    Target("http://10.0.0.2:8000", "10.0.0.2:8001", name="b"),
)
SERVICE = Target("http://m.example", "m.example:80", pods=PODS)
GRPC = Target("http://g.example", "g.example:80", pods=PODS[1:], way="gRPC service's address")
BOTH = Target("http://m.example", pods=PODS[:1], way="service address", over_grpc=GRPC)


def load(**changes: Any) -> Load:
    return Load(**{"protocol": Protocol.HTTP, "batch": 1, "concurrency": 4, **changes})


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
    assert [way.http_url for way in routes(target, asked)] == addresses, says


def test_the_way_is_told_in_words_and_as_an_address() -> None:
    assert route_record(BOTH, load()) == {"way": "service address", "address": "http://m.example"}
    over_grpc = load(protocol=Protocol.GRPC)
    assert route_record(BOTH, over_grpc) == {"way": "gRPC service's address", "address": "g.example:80"}
    assert route_record(PODS[0], load()) == {}, "a server that is no service has one way only"


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
    said = missing_route(target, protocol, vias)
    assert (expected in said) if expected else not said, says


def test_an_engine_of_one_address_refuses_several_and_names_the_way_out() -> None:
    assert only_route(SERVICE, load()) is SERVICE
    with pytest.raises(ToolError, match="--engine locust"):
        only_route(SERVICE, load(via=Via.POD))
