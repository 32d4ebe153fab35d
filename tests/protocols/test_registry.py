"""Every protocol has a driver, and one made by hand makes load like those of the suite."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bench.core.cell import Protocol
from bench.core.parsing import choices
from bench.core.samples import Outcome
from bench.core.target import Target
from bench.core.trial import Reference
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.request_loop import Session
from bench.loadgen.locust.work_order import WorkOrder
from bench.protocols.answers import Output
from bench.protocols.connection import Bytes, Reply, SocketConnection
from bench.protocols.payload import NOTHING_SHARED, Call, Shared
from bench.protocols.registry import DRIVERS
from tests.support.http_peer import peer


# The example of docs/extending.md: it sends the first tensor, and an echo server sends it back.
class EchoConnection(SocketConnection):
    def _converse(self, sock: Any, request: Bytes, reply: Reply) -> None:
        sock.send(request)
        answer = bytearray(len(request))
        have = 0
        while have < len(answer):
            sock.wait()
            have += sock.recv_into(memoryview(answer)[have:])
        reply.outcome, reply.body, reply.done_ns = Outcome.OK, memoryview(answer), time.monotonic_ns()


class EchoDriver:
    takes_shared_memory = False
    address_hint = "give the echo server's address with --url"

    def service(self, target: Target) -> Target:
        return target

    def address(self, target: Target) -> str:
        return target.http_url.removeprefix("http://")

    def build(self, call: Call, target: Target, shared: Shared = NOTHING_SHARED) -> bytes:  # noqa: ARG002
        return call.tensors[0].data

    def parse(self, body: memoryview, head_length: int) -> tuple[Output, ...]:  # noqa: ARG002
        return (Output("y", "FP32", (len(body) // 64, 16), 0, len(body)),)

    def connection(self, target: Target, timeout_s: float, max_body_bytes: int = 0) -> EchoConnection:  # noqa: ARG002
        host, _, port = self.address(target).partition(":")
        return EchoConnection(host, int(port), timeout_s)


# End of the example.

ECHO = cast(Protocol, "echo")  # a real one is a member of `core.cell.Protocol`
METADATA = {
    "name": "echo",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 16]}],
}


@pytest.mark.parametrize(("answers", "outcome"), [("right", Outcome.OK), ("zeros", Outcome.WRONG_ANSWER)])
def test_a_hand_made_protocol_makes_load_and_its_answers_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: str, outcome: Outcome
) -> None:
    monkeypatch.setitem(DRIVERS, ECHO, EchoDriver())

    def server(sock: Any) -> None:
        while data := sock.recv(128):
            sock.sendall(data if answers == "right" else bytes(len(data)))

    with peer(server) as address:
        order = WorkOrder(
            targets=(Target(f"http://{address}"),),
            protocol=ECHO,
            model="echo",
            metadata=METADATA,
            max_batch=8,
            batch=2,
            reference=reference(tmp_path / "reference.npz"),
        )
        session, connection = Session(check_every=1), ConnectionFactory(order).connect()
        for _ in range(3):
            session.request(connection, None)
        connection.close()
    assert session.recorder.outcome.tolist() == [outcome] * 3
    assert session.values_checked == 3


def reference(path: Path) -> Reference:
    """What an echo of the seeded payload is."""
    from bench.protocols.payload import for_model

    (tensor,) = for_model(METADATA, 8, 2, seed=0)
    np.savez(path, y=np.frombuffer(tensor.data, "<f4").reshape(2, 16))
    return Reference(str(path), "the request itself", 0.0, 0.0)


def test_every_protocol_has_a_driver() -> None:
    assert set(DRIVERS) == set(Protocol)


def test_both_means_every_protocol() -> None:
    assert choices(Protocol, "both")("both") == tuple(Protocol)


def test_each_protocol_goes_to_its_own_address() -> None:
    target = Target("http://h:8000", "h:8001")
    assert {name: driver.address(target) for name, driver in DRIVERS.items()} == {
        "http": "http://h:8000",
        "grpc": "h:8001",
    }
    assert DRIVERS[Protocol.GRPC].address(Target("http://h")) == ""


def test_the_service_of_a_protocol_may_be_another_one() -> None:
    grpc = Target("", "pods:8001")
    target = Target("http://h:8000", over_grpc=grpc)
    assert DRIVERS[Protocol.GRPC].service(target) is grpc
    assert DRIVERS[Protocol.HTTP].service(target) is target


@pytest.mark.parametrize(
    ("modules", "not_needed"),
    [
        ("bench.protocols.registry, bench.protocols.shared_memory", {"gevent", "grpc", "locust"}),
        ("bench.loadgen.engine", {"gevent", "locust"}),
    ],
)
def test_gevent_is_imported_when_a_connection_opens_and_not_before(
    modules: str, not_needed: set[str]
) -> None:
    code = f"import sys, {modules}; print({not_needed!r} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
