"""One user's way to the server: a connection, a request that was built once, and what a right answer is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from bench.core.cell import SharedMemory
from bench.core.errors import WrongUse
from bench.core.target import Target
from bench.loadgen.locust.work_order import WorkOrder
from bench.protocols import payload
from bench.protocols.answers import AnswerCheck, Expected, most_bytes
from bench.protocols.connection import Connection, Reply
from bench.protocols.registry import DRIVERS
from bench.protocols.shared_memory import SharedSegment, Slot
from bench.protocols.value_check import NO_REGIONS, ValueCheck


@dataclass(slots=True)
class UserConnection:
    """One user's connection with its request and its checks. `slot`: where outputs in shared memory lie."""

    connection: Connection
    request: bytes
    check: AnswerCheck
    values: ValueCheck | None
    slot: Slot | None = None

    def exchange(self) -> Reply:
        """Send the request, and receive its answer or its failure."""
        if self.slot is not None:
            self.slot.blank()
        return self.connection.exchange(self.request)

    def wrong(self, reply: Reply) -> str:
        """Say what is wrong with the answer's frame (names, datatypes, shapes, byte counts), or ""."""
        regions = self.slot.outputs if self.slot else None
        return self.check.check(reply.body, reply.head_length, regions)

    def wrong_values(self, reply: Reply) -> str:
        """Say what is wrong with the values of an answer whose frame is right, or ""."""
        regions = self.slot.outputs if self.slot else NO_REGIONS
        return self.values.wrong(reply, regions) if self.values else ""

    def close(self) -> None:
        self.connection.close()


class ConnectionFactory:
    """Builds an order's request once (in shared memory: once a user), and a connection for each user.

    Raises WrongUse where the model cannot take the request, or the protocol no shared memory.
    """

    def __init__(self, order: WorkOrder) -> None:
        self._order = order
        self._driver = DRIVERS[order.protocol]
        tensors = payload.for_model(
            order.metadata,
            order.max_batch,
            order.batch,
            seed=order.payload_seed,
            image_height=order.image_height,
            image_width=order.image_width,
        )
        outputs = tuple(str(output["name"]) for output in order.metadata["outputs"])
        self._call = payload.Call(order.model, tensors, outputs, order.model_version)
        expected = Expected.of_model(order.metadata, order.max_batch, order.batch)
        self._max_body_bytes = most_bytes(expected, order.max_answer_bytes)
        parse, reference = self._driver.parse, order.reference
        self._check = AnswerCheck(parse, expected)
        self._values = ValueCheck(parse, reference, order.batch, order.max_batch) if reference else None
        self._segment = self._share(expected) if order.shared_memory is SharedMemory.SYSTEM else None
        self._users = itertools.count()
        self._request = b"" if self._segment else self._driver.build(self._call, order.targets[0])

    @property
    def has_reference(self) -> bool:
        return self._values is not None

    @property
    def request_bytes(self) -> int:
        return len(self._request)

    def connect(self) -> UserConnection:
        """The next user's connection, open. One that fails tries again at its first request."""
        order = self._order
        user = next(self._users)
        target = self._target(user)
        slot = self._segment.slot(user % order.users) if self._segment else None
        request = self._driver.build(self._call, target, slot.shared) if slot else self._request
        connection = self._driver.connection(target, order.timeout_s, self._max_body_bytes)
        connection.connect()
        return UserConnection(connection, request, self._check, self._values, slot)

    def close(self) -> None:
        """Release what the requests hold on the server and in shared memory."""
        if self._segment is not None:
            self._segment.close()

    def _share(self, expected: Expected) -> SharedSegment:
        if not self._driver.takes_shared_memory:
            raise WrongUse(
                [f"--shared-memory system: not with --protocol {self._order.protocol}; leave it out."]
            )
        return SharedSegment(self._order.targets[0], self._call.tensors, expected, self._order.users)

    def _target(self, user: int) -> Target:
        """The server of one user; the users of all workers together take turns."""
        order = self._order
        return order.targets[(order.worker + user * order.workers) % len(order.targets)]
