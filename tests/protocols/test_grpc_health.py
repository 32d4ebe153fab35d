"""Whether gRPC answers: asked of a real Triton, and of what is none."""

from __future__ import annotations

import socket

import pytest

from bench.core.target import Tls, Way
from bench.protocols.grpc import answers_grpc
from bench.server.embedded import EmbeddedTriton


@pytest.mark.e2e
def test_a_live_triton_answers_and_nothing_else_does(triton: EmbeddedTriton) -> None:
    address = triton.target.grpc_address or ""
    assert answers_grpc(address, ())
    assert answers_grpc(address.replace("127.0.0.1", "localhost"), (("X-Key", "v"),))
    assert not answers_grpc(triton.target.http_url.removeprefix("http://"), ()), "HTTP/1.1"
    assert not answers_grpc(address, (), Way(Tls())), "no TLS there"


def test_a_closed_port_and_an_unknown_name_are_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert not answers_grpc(f"127.0.0.1:{port}", ())
    assert not answers_grpc("no-such-host.invalid:80", ())
