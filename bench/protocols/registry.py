"""The protocols that requests can take to a server, each behind one interface.

To add a protocol: write a module with a class like `Driver`, give it a member of `core.cell.Protocol`, and a
line in `DRIVERS`. The rest (flags, Locust users, addresses of a service, `bench infer`) follows from these.
"""

from __future__ import annotations

from typing import Protocol as Interface

from bench.core.cell import Protocol
from bench.core.target import Target
from bench.protocols.answers import Output
from bench.protocols.connection import MAX_BODY_BYTES, Connection
from bench.protocols.grpc import GrpcDriver
from bench.protocols.http1 import HttpDriver
from bench.protocols.payload import NOTHING_SHARED, Call, Shared


class Driver(Interface):
    """How one protocol reaches a server, puts a request into bytes, and takes an answer apart."""

    takes_shared_memory: bool
    address_hint: str  # the next step for somebody whose target has no address for this protocol

    def service(self, target: Target) -> Target:
        """The service that takes this protocol, where the platform has a service for each of several."""

    def address(self, target: Target) -> str:
        """The address of the target that takes this protocol; "" where it has none."""

    def build(self, call: Call, target: Target, shared: Shared = NOTHING_SHARED) -> bytes:
        """The bytes of a request, which a connection sends over and over."""

    def parse(self, body: memoryview, head_length: int) -> tuple[Output, ...]:
        """The outputs in the body of a `Reply`, and where their bytes lie. Raises MalformedAnswer."""

    def connection(
        self, target: Target, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES
    ) -> Connection:
        """A connection that is not open yet. An answer of over `max_body_bytes` fails its request."""


DRIVERS: dict[Protocol, Driver] = {Protocol.HTTP: HttpDriver(), Protocol.GRPC: GrpcDriver()}
