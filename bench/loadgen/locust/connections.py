"""One user's way to the server: a connection, a request built once, and what a right answer is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from typing import Protocol as Interface
from urllib.parse import urlsplit

import numpy as np

from bench.core.cell import Arrival, Protocol, SharedMemory
from bench.core.target import Target
from bench.core.trial import Reference
from bench.protocols import payload
from bench.protocols.answer_parser import as_array, parse
from bench.protocols.answers import AnswerCheck, Bounds, Expected
from bench.protocols.gevent_socket import Reply
from bench.protocols.grpc import GrpcConnection
from bench.protocols.http1 import HttpConnection
from bench.protocols.shared_memory import SharedSegment, Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a load-generating process must know of a trial; travels as one line of JSON."""

    http_url: str
    grpc_address: str
    spread_over: tuple[tuple[str, str], ...] = ()  # further such pairs; users take turns over all
    model: str
    metadata: Mapping[str, Any]
    max_batch: int
    protocol: Protocol
    batch: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    model_version: str = ""
    reference: Reference | None = None
    shared_memory: SharedMemory = SharedMemory.NONE
    image_height: int = 224
    image_width: int = 224
    payload_seed: int = 0
    timeout_s: float = 60.0
    check_every: int = 0
    rate_per_s: float | None = None
    arrival: Arrival = Arrival.POISSON
    tape_s: float = 0.0
    seed: int = 0
    users: int = 1
    worker: int = 0
    workers: int = 1
    samples: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        reference = data["reference"]
        return cls(
            **{
                **data,
                "headers": tuple((name, value) for name, value in data["headers"]),
                "spread_over": tuple((http, grpc) for http, grpc in data["spread_over"]),
                "reference": Reference(**reference) if reference else None,
                "protocol": Protocol(data["protocol"]),
                "shared_memory": SharedMemory(data["shared_memory"]),
                "arrival": Arrival(data["arrival"]),
            }
        )


class Connection(Interface):
    def connect(self) -> str: ...
    def exchange(self, request: bytes) -> Reply: ...
    def close(self) -> None: ...


Regions = Mapping[str, memoryview]
_NO_REGIONS: Regions = {}


class ValueCheck:
    """Compares one item of an answer's batch with its reference, another one each time."""

    def __init__(self, protocol: Protocol, reference: Reference, batch: int, max_batch: int) -> None:
        self._protocol = protocol
        self._has_batch_axis = max_batch > 0
        self._turn = 0
        with np.load(reference.path) as archive:
            self._items = {
                name: [
                    Bounds(item, reference.relative, reference.absolute, reference.distance)
                    for item in archive[name][:batch]
                ]
                for name in archive.files
            }

    def wrong(self, reply: Reply, regions: Regions) -> str:
        self._turn += 1
        for output in parse(self._protocol, reply.body, reply.head_length):
            items = self._items.get(output.name)
            if not items:
                continue
            index = self._turn % len(items)
            data = regions.get(output.name, reply.body[output.start : output.end])
            values = as_array(output, data)
            wrong = items[index].wrong(output.name, values[index] if self._has_batch_axis else values)
            if wrong:
                return f"item {index}: {wrong}"
        return ""


@dataclass(slots=True)
class Lane:
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


class LaneMaker:
    """Builds the request of an order once (in shared memory: once a user), and a lane for each user."""

    def __init__(self, order: Order) -> None:
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

    def connect(self, _protocol: Protocol) -> Lane:
        """The next user's lane, connected; a connection that fails tries again at its first request."""
        user = next(self._users)
        slot = self._segment.slot(user % self._order.users) if self._segment else None
        request = self._build(slot.shared) if slot else self._request
        connection = self._connection(*self._address(user))
        connection.connect()
        return Lane(connection, request, self._check, self._values, slot)

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
