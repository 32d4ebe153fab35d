"""One user's way to the server: a connection, a request built once, and what a right answer is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol as Interface
from urllib.parse import urlsplit

from bench.core.cell import Protocol, SharedMemory
from bench.core.target import Target
from bench.loadgen.locust.work_order import WorkOrder
from bench.protocols import payload
from bench.protocols.answers import AnswerCheck, Expected
from bench.protocols.gevent_socket import Reply
from bench.protocols.grpc import GrpcConnection
from bench.protocols.http1 import HttpConnection
from bench.protocols.shared_memory import SharedSegment, Slot
from bench.protocols.value_check import _NO_REGIONS, ValueCheck


class Connection(Interface):
    def connect(self) -> str: ...
    def exchange(self, request: bytes) -> Reply: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class UserConnection:
    """One user's connection with its request and checks. `slot`: where shared-memory outputs lie."""

    connection: Connection
    request: bytes
    check: AnswerCheck
    values: ValueCheck | None
    slot: Slot | None = None

    def exchange(self) -> Reply:
        if self.slot is not None:
            self.slot.blank()
        return self.connection.exchange(self.request)

    def wrong(self, reply: Reply) -> str:
        """What is wrong with the answer's frame (names, datatypes, shapes, byte counts), or ""."""
        regions = self.slot.outputs if self.slot else None
        return self.check.check(reply.body, reply.head_length, regions)

    def wrong_values(self, reply: Reply) -> str:
        regions = self.slot.outputs if self.slot else _NO_REGIONS
        return self.values.wrong(reply, regions) if self.values else ""

    def answer_bytes(self, reply: Reply) -> int:
        return len(reply.body)

    def close(self) -> None:
        self.connection.close()


class ConnectionFactory:
    """Builds the request of an order once (in shared memory: once a user), and a lane for each user."""

    def __init__(self, order: WorkOrder) -> None:
        self._order = order
        self._tensors = payload.for_model(
            order.metadata,
            order.max_batch,
            order.batch,
            seed=order.payload_seed,
            image_height=order.image_height,
            image_width=order.image_width,
        )
        expected = Expected.of_model(order.metadata, order.max_batch, order.batch)
        self._check = AnswerCheck(order.protocol, expected)
        reference = order.reference
        self._values = (
            ValueCheck(order.protocol, reference, order.batch, order.max_batch) if reference else None
        )
        self._segment = self._share(expected) if order.shared_memory is SharedMemory.SYSTEM else None
        self._users = itertools.count()
        self._request = b"" if self._segment else self._build(payload.Shared())

    @property
    def has_reference(self) -> bool:
        return self._values is not None

    @property
    def request_bytes(self) -> int:
        return len(self._request)

    def connect(self, _protocol: Protocol) -> UserConnection:
        """The next user's lane, connected; a connection that fails tries again at its first request."""
        user = next(self._users)
        slot = self._segment.slot(user % self._order.users) if self._segment else None
        request = self._build(slot.shared) if slot else self._request
        connection = self._connection(*self._address(user))
        connection.connect()
        return UserConnection(connection, request, self._check, self._values, slot)

    def close(self) -> None:
        """Release what the requests hold on the server and in shared memory."""
        if self._segment is not None:
            self._segment.close()

    def _share(self, expected: Expected) -> SharedSegment:
        target = Target(self._order.http_url, headers=self._order.headers)
        return SharedSegment(target, self._tensors, expected, self._order.users)

    def _address(self, user: int) -> tuple[str, str]:
        """HTTP and gRPC of one user's server; all workers' users together take turns."""
        order = self._order
        addresses = ((order.http_url, order.grpc_address), *order.spread_over)
        return addresses[(order.worker + user * order.workers) % len(addresses)]

    def _connection(self, http_url: str, grpc_address: str) -> Connection:
        order = self._order
        if order.protocol is Protocol.HTTP:
            return HttpConnection(http_url, timeout_s=order.timeout_s)
        if urlsplit(http_url).scheme == "https":
            from bench.protocols.grpcio_client import (  # heavy, and only TLS needs it
                GrpcioConnection,
                prepare_gevent,
            )

            prepare_gevent(order.users)
            channel: Connection = GrpcioConnection(
                grpc_address, timeout_s=order.timeout_s, metadata=order.headers, secure=True
            )
            return channel
        return GrpcConnection(grpc_address, timeout_s=order.timeout_s, metadata=order.headers)

    def _build(self, shared: payload.Shared) -> bytes:
        order = self._order
        outputs = [str(output["name"]) for output in order.metadata["outputs"]]
        if order.protocol is Protocol.GRPC:
            return payload.grpc_message(
                self._tensors, outputs, model=order.model, version=order.model_version, shared=shared
            )
        parts = urlsplit(order.http_url)
        return payload.http_request(
            self._tensors,
            outputs,
            host=parts.netloc,
            path_prefix=parts.path,
            model=order.model,
            version=order.model_version,
            headers=order.headers,
            shared=shared,
        )
