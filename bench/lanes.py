"""One user's way to the server: a connection, a request built once, and what a right answer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from typing import Protocol as Interface
from urllib.parse import urlsplit

import numpy as np

from bench import payload
from bench.answer_frames import as_array, parse
from bench.answers import AnswerCheck, Bounds, Expected
from bench.cell import Arrival, Protocol, SharedMemory
from bench.http1 import HttpConnection
from bench.http2 import GrpcConnection
from bench.trial import Reference
from bench.wire import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that a load-generating process must know of a trial; travels as one line of JSON."""

    http_url: str
    grpc_address: str
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


class ValueCheck:
    """Compares one item of an answer's batch with its reference, another one each time."""

    def __init__(self, protocol: Protocol, reference: Reference, batch: int) -> None:
        self._protocol = protocol
        self._turn = 0
        with np.load(reference.path) as archive:
            self._items = {
                name: [Bounds(item, reference.relative, reference.absolute) for item in archive[name][:batch]]
                for name in archive.files
            }

    def wrong(self, reply: Reply) -> str:
        self._turn += 1
        for output in parse(self._protocol, reply.body, reply.head_length):
            items = self._items.get(output.name)
            if not items:
                continue
            index = self._turn % len(items)
            values = as_array(output, reply.body[output.start : output.end])
            wrong = items[index].wrong(output.name, values[index])
            if wrong:
                return f"item {index}: {wrong}"
        return ""


class Lane:
    """A connection with its request and checks; see `bench.session.Lane`."""

    def __init__(
        self, connection: Connection, request: bytes, check: AnswerCheck, values: ValueCheck | None
    ) -> None:
        self._connection, self._request, self._check, self._values = connection, request, check, values
        connection.connect()  # a failure shows at the first request, which tries again

    def exchange(self) -> Reply:
        return self._connection.exchange(self._request)

    def wrong(self, reply: Reply) -> str:
        return self._check.check(reply.body, reply.head_length)

    def wrong_values(self, reply: Reply) -> str:
        return self._values.wrong(reply) if self._values else ""

    def answer_bytes(self, reply: Reply) -> int:
        return len(reply.body)

    def close(self) -> None:
        self._connection.close()


class LaneMaker:
    """Builds the request of an order once, and a lane for each user."""

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
        self._request = self._build()
        self._check = AnswerCheck(
            order.protocol, Expected.of_model(order.metadata, order.max_batch, order.batch)
        )
        reference = order.reference
        self._values = ValueCheck(order.protocol, reference, order.batch) if reference else None

    @property
    def has_reference(self) -> bool:
        return self._values is not None

    @property
    def request_bytes(self) -> int:
        return len(self._request)

    def connect(self, _protocol: Protocol) -> Lane:
        return Lane(self._connection(), self._request, self._check, self._values)

    def _connection(self) -> Connection:
        order = self._order
        if order.protocol is Protocol.HTTP:
            return HttpConnection(order.http_url, timeout_s=order.timeout_s)
        if urlsplit(order.http_url).scheme == "https":
            from bench.grpc_channel import GrpcioConnection  # heavy, and only TLS needs it

            channel: Connection = GrpcioConnection(
                order.grpc_address, timeout_s=order.timeout_s, metadata=order.headers, secure=True
            )
            return channel
        return GrpcConnection(order.grpc_address, timeout_s=order.timeout_s, metadata=order.headers)

    def close(self) -> None:
        """Release what the request holds on the server."""

    def _build(self) -> bytes:
        order = self._order
        outputs = [str(output["name"]) for output in order.metadata["outputs"]]
        if order.protocol is Protocol.GRPC:
            return payload.grpc_message(
                self._tensors, outputs, model=order.model, version=order.model_version
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
        )
