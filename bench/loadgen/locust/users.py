"""Locust users for Triton, one class for each protocol.

A user owns one connection. What it sends, checks and records is its process's `Session`, found at
`environment.triton`. Inside `bench` a user's one task is the whole trial, so Locust's loop and
events cost nothing a request; under plain `locust -f` a task is one request and fires its event.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from locust import User, task
from locust.exception import StopUser

from bench.core.cell import Protocol
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.request_loop import Session


@dataclass(frozen=True, slots=True)
class Traffic:
    """What `environment.triton` holds: how a user of each protocol connects, and the session it works for."""

    connections: Mapping[Protocol, ConnectionFactory]
    session: Session
    name: str  # of the request in Locust's tables
    whole_trial: bool  # a task is all requests of a trial, without Locust's events


class RequestFailed(Exception):
    """A failed request, as Locust's tables want it."""


class TritonUser(User):  # type: ignore[misc]  # Locust has no types
    """A user that owns one connection."""

    abstract = True
    protocol: ClassVar[Protocol]

    def on_start(self) -> None:
        self.traffic: Traffic = self.environment.triton
        self.connection = self.traffic.connections[self.protocol].connect()

    def on_stop(self) -> None:
        self.connection.close()

    @task  # type: ignore[untyped-decorator]  # Locust has no types
    def infer(self) -> None:
        """One request, or all of a trial."""
        if self.traffic.whole_trial:
            self.traffic.session.run(self.connection)
            raise StopUser
        self._one_request()

    def _one_request(self) -> None:
        started = time.time()
        reply = self.traffic.session.request(self.connection, None)
        self.environment.events.request.fire(
            request_type=self.protocol.upper(),
            name=self.traffic.name,
            start_time=started,
            response_time=(reply.done_ns - reply.sent_ns) / 1e6,
            response_length=len(reply.body),
            exception=RequestFailed(reply.error) if reply.outcome else None,
            context={},
        )


@cache
def user_class(protocol: Protocol) -> type[TritonUser]:
    """The Locust user of a protocol; its name, as `locust --list` shows it, is TritonHttpUser or the like."""
    name = f"Triton{protocol.capitalize()}User"
    return type(name, (TritonUser,), {"protocol": protocol, "__module__": __name__})


TritonHttpUser = user_class(Protocol.HTTP)
TritonGrpcUser = user_class(Protocol.GRPC)
