"""Unary gRPC through grpcio: what `bench.protocols.grpc` is compared with."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import grpc

from bench.core.samples import Outcome
from bench.protocols.connection import Reply
from bench.protocols.http2 import INFER

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else all users of a process share one socket
    ("grpc.enable_retries", 0),  # a retried failure would be counted as a slow success
    ("grpc.enable_http_proxy", 0),  # a proxy from the environment would answer for itself
]
# grpcio gives the status UNAVAILABLE for a failed connection too. These words of its message tell such a
# failure from a server that gave the status itself.
_TRANSPORT = (
    "failed to connect",
    "socket closed",
    "connection re",
    "recvmsg",
    "goaway",
    "dns resolution",
    "tls",
)


class GrpcioConnection:
    """A `connection.Connection`. `certificates`: PEM file of authorities. Raises OSError: unknown name."""

    def __init__(
        self,
        address: str,
        *,
        method: str = INFER,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...] = (),
        secure: bool = False,
        certificates: Path | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._metadata = tuple((name.lower(), value) for name, value in metadata)
        self._channel = _channel(address, secure, certificates)
        # No serializers: bytes in, bytes out.
        self._call = self._channel.unary_unary(method)
        self._reply = Reply()

    def connect(self) -> str:
        """Connect now. Returns why not, or ""."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=self._timeout_s)
        except grpc.FutureTimeoutError:
            return f"not connected within {self._timeout_s:g} s"
        return ""

    def exchange(self, message: bytes) -> Reply:
        """One call; the reply's body is the response message. A failure is told, never raised."""
        reply = self._reply
        reply.error, reply.outcome = "", Outcome.OK
        reply.sent_ns = time.monotonic_ns()
        try:
            answer = self._call(message, timeout=self._timeout_s, metadata=self._metadata)
            reply.done_ns = time.monotonic_ns()
            reply.body = memoryview(answer)
        except grpc.RpcError as error:
            reply.done_ns = time.monotonic_ns()
            reply.body = memoryview(b"")
            reply.outcome, reply.error = _told(error)
        return reply

    def close(self) -> None:
        self._channel.close()


def _channel(address: str, secure: bool, certificates: Path | None) -> Any:
    """Raises OSError for a name that this host does not know."""
    if secure:
        roots = certificates.read_bytes() if certificates else None
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
    # grpcio has a resolver of its own; names are resolved here as they are for the load.
    host, _, port = address.rpartition(":")
    family, *_, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    numeric = f"ipv6:[{where[0]}]:{port}" if family == socket.AF_INET6 else f"ipv4:{where[0]}:{port}"
    return grpc.insecure_channel(numeric, [*_OPTIONS, ("grpc.default_authority", address)])


def _told(error: Any) -> tuple[int, str]:
    code, details = error.code(), error.details() or ""
    told = f"{details} ({code.name})" if details else code.name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.TIMEOUT, told
    if code is grpc.StatusCode.UNAVAILABLE and any(known in details.lower() for known in _TRANSPORT):
        return Outcome.CONNECTION, told
    return Outcome.SERVER_ERROR, told
