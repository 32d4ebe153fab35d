"""A pod's ports on this host: every byte arrives, both ends end together, refusals say why."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests

from bench.cluster.api import Cluster
from bench.cluster.credentials import Connection
from bench.cluster.port_forward import PortForward, dial_pod, reachable
from bench.core.errors import ClusterError
from bench.server.embedded import EmbeddedTriton
from tests.support.websocket_peer import ForwardServer


def cluster(server: str, token: str = "") -> Cluster:
    from kubernetes import client

    api = client.ApiClient(configuration=client.Configuration(host=server))
    proof = {"authorization": f"Bearer {token}"} if token else {}
    connection = Connection(server, "lab", False, api.rest_client.pool_manager, lambda: proof, api)
    return Cluster("lab", False, connection)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers each connection with what it got, until its end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(peer: socket.socket) -> None:
        with peer:
            while data := peer.recv(1 << 16):
                peer.sendall(data)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(forward: PortForward, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", forward.local[port]), timeout=10)


def ask(forward: PortForward, port: int, size: int) -> bytes:
    """The digest of what comes back for `size` bytes, sent and read at once."""
    data = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    with connect(forward, port) as sock:
        threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
        back = bytearray()
        while len(back) < size and (part := sock.recv(1 << 16)):
            back += part
    assert bytes(back) == data
    return hashlib.sha256(back).digest()


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 5_000_000])
def test_every_byte_arrives_both_ways(echo: int, size: int) -> None:
    with ForwardServer() as server, PortForward(dial_pod(cluster(server.url), "vit"), [echo]) as forward:
        ask(forward, echo, size)


def test_connections_are_independent_of_each_other(echo: int) -> None:
    with ForwardServer() as server, PortForward(dial_pod(cluster(server.url), "vit"), [echo]) as forward:
        idle = connect(forward, echo)
        ask(forward, echo, 1000)
        idle.sendall(b"still here")
        assert idle.recv(100) == b"still here"
        idle.close()
        path, headers = server.requests[0]
    assert path == f"/api/v1/namespaces/lab/pods/vit/portforward?ports={echo}"
    assert headers["sec-websocket-protocol"] == "v4.channel.k8s.io"


def test_the_token_goes_to_the_api_server_and_nowhere_else(echo: int) -> None:
    with ForwardServer() as server:
        at = cluster(server.url, token="s3cret")
        with PortForward(dial_pod(at, "vit"), [echo]) as forward:
            ask(forward, echo, 10)
        assert server.requests[0][1]["authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(at)


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "log in again"), (403, "pods/portforward"), (404, "the pod is gone"), (500, "status 500")],
)
def test_a_refusal_says_why_and_ends_the_connection(status: int, says: str) -> None:
    with ForwardServer(status) as server:
        dial = dial_pod(cluster(server.url), "vit")
        with pytest.raises(ClusterError, match=says) as refused:
            dial(8000)
        assert refused.value.status == status
        with PortForward(dial, [8000]) as forward:
            assert _ends(connect(forward, 8000))
            assert says in forward.error


def test_a_port_nobody_listens_on_ends_the_connection_with_the_pods_own_words() -> None:
    with (
        ForwardServer(error="error forwarding port 8001: connection refused") as server,
        PortForward(dial_pod(cluster(server.url), "vit"), [8001]) as forward,
    ):
        assert _ends(connect(forward, 8001))
        assert "connection refused" in forward.error


def test_closing_ends_open_connections_and_listens_no_more(echo: int) -> None:
    with ForwardServer() as server:
        forward = PortForward(dial_pod(cluster(server.url), "vit"), [echo])
        port = forward.local[echo]
        sock = connect(forward, echo)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        forward.close()
        assert _ends(sock)
        assert not reachable("127.0.0.1", port)


def test_an_address_that_answers_is_reachable(echo: int) -> None:
    assert reachable("127.0.0.1", echo)
    assert not reachable("127.0.0.1", 1)


@pytest.mark.e2e
def test_a_real_triton_answers_through_it(triton: EmbeddedTriton) -> None:
    http, metrics = (int(url.split(":")[2].split("/")[0]) for url in _urls(triton))
    with (
        ForwardServer() as server,
        PortForward(dial_pod(cluster(server.url), "vit"), [http, metrics]) as forward,
    ):
        answer = requests.get(f"http://127.0.0.1:{forward.local[http]}/v2/health/live", timeout=10)
        assert answer.ok
        text = requests.get(f"http://127.0.0.1:{forward.local[metrics]}/metrics", timeout=10).text
        assert "nv_" in text


def _urls(triton: EmbeddedTriton) -> tuple[str, str]:
    target: Any = replace(triton.target)
    return target.http_url, target.metrics_url


def _ends(sock: socket.socket) -> bool:
    """Whether the other side has ended it."""
    with sock:
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True
