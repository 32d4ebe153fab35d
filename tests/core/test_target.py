"""From one address to three; what is none is refused with what is allowed; which of them a load takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.cell import Load, Protocol, Via
from bench.core.errors import ToolError
from bench.core.target import Target, header, normalise_url, target_of

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
    ("url", "http", "grpc", "metrics"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8001", "http://127.0.0.1:8002/metrics"),
        ("http://host:9000/", "http://host:9000", "host:9001", "http://host:9002/metrics"),
        ("[::1]:8000", "http://[::1]:8000", "[::1]:8001", "http://[::1]:8002/metrics"),
        # no port to count from: nothing is guessed
        ("https://host/vit", "https://host/vit", None, None),
    ],
)
def test_neighbouring_ports_are_tritons_own(
    url: str, http: str, grpc: str | None, metrics: str | None
) -> None:
    target = target_of(url, None, None)
    assert (target.http_url, target.grpc_address, target.metrics_url) == (http, grpc, metrics)


@pytest.mark.parametrize(
    ("grpc_url", "metrics_url", "grpc", "metrics"),
    [
        ("other:7", "other:8", "other:7", "http://other:8/metrics"),
        ("grpc://other:7", "http://other:8/m", "other:7", "http://other:8/m"),
        (None, "other:8/metrics/", "host:9001", "http://other:8/metrics"),
    ],
)
def test_what_is_given_is_taken(grpc_url: str | None, metrics_url: str, grpc: str, metrics: str) -> None:
    target = target_of("host:9000", grpc_url, metrics_url)
    assert (target.grpc_address, target.metrics_url) == (grpc, metrics)


@pytest.mark.parametrize(
    "text", ["", "ftp://host", "http://", "host:port", "host:99999", "a b:80", "http://[::1"]
)
def test_what_is_no_address_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        normalise_url(text)


@pytest.mark.parametrize("grpc_url", ["host", "host:x", "grpc://host"])
def test_a_grpc_address_needs_a_port(grpc_url: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        target_of("host:8000", grpc_url, None)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        url = normalise_url(text)
    except ValueError:
        return
    assert normalise_url(url) == url


def test_a_header_is_a_name_and_a_value() -> None:
    assert header("Authorization: Bearer a:b") == ("Authorization", "Bearer a:b")


@pytest.mark.parametrize("text", ["secret", ":secret", "a: secret\r\nb: c", "a:\0secret"])
def test_a_wrong_header_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:VALUE") as caught:
        header(text)
    assert "secret" not in str(caught.value)


def test_headers_are_never_shown() -> None:
    target = target_of("host:1", None, None, [("Authorization", "secret")])
    assert "secret" not in repr(target)


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
    assert [way.http_url for way in target.routes(asked)] == addresses, says


def test_the_way_is_told_in_words_and_as_an_address() -> None:
    assert BOTH.route_record(load()) == {"way": "service address", "address": "http://m.example"}
    over_grpc = load(protocol=Protocol.GRPC)
    assert BOTH.route_record(over_grpc) == {"way": "gRPC service's address", "address": "g.example:80"}
    assert PODS[0].route_record(load()) == {}, "a server that is no service has one way only"


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
    said = target.missing_route(protocol, vias)
    assert (expected in said) if expected else not said, says


def test_an_engine_of_one_address_refuses_several_and_names_the_way_out() -> None:
    assert SERVICE.only_route(load()) is SERVICE
    with pytest.raises(ToolError, match="--engine locust"):
        SERVICE.only_route(load(via=Via.POD))
