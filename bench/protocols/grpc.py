"""Unary gRPC over HTTP/2 on one gevent socket: one call in flight, prepared bytes, no threads.

What grpcio does with a pool of threads, this does with two system calls, for a quarter of the CPU.
It speaks no TLS and no compression; `bench.protocols.grpcio_client` is the fallback and the oracle.
"""

from __future__ import annotations

import struct
import time
from urllib.parse import urlsplit

from bench.core.samples import Outcome
from bench.protocols import http2 as h2
from bench.protocols.gevent_socket import BrokenAnswer, DeadlinePassed, PlainSocket, Reply, connect, reason
from bench.protocols.http2 import INFER, FrameReceiver
from bench.protocols.payload import checked_headers

MAX_BODY_BYTES = 1 << 30
# Below this a second wait is unlikely; above the upper figure, copying while more arrives is faster.
_LOW_WATER_FROM, _LOW_WATER_MOST = 64 << 10, 256 << 10
_HELLO = h2.PREFACE + h2.window_update(0, h2.MOST_WINDOW - h2.DEFAULT_WINDOW)

Bytes = bytes | memoryview


class GrpcConnection:
    """One user's connection to `address` (host:port); connects again by itself after any failure.

    An exchange that has to connect counts the connecting, since its user waits for it; `connect`
    beforehand keeps that out of the first one. Raises WrongUse for metadata that cannot be sent.
    """

    def __init__(
        self,
        address: str,
        *,
        method: str = INFER,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        parts = urlsplit(f"//{address}")
        self._host, self._port = parts.hostname or "", parts.port or 8001
        self._request_block = h2.request_block(address, method, checked_headers(metadata))
        self._timeout_s = timeout_s
        self._wire: PlainSocket | None = None
        self._reply = Reply()
        self._inbox = FrameReceiver(max_body_bytes)
        self._cut = False  # a frame was not sent whole: nothing can follow it
        self._low_water = 1

    def connect(self) -> str:
        """Connect now. Returns why not, or ""."""
        try:
            self._connected()
        except DeadlinePassed:
            self.close()
            return f"not connected within {self._timeout_s:g} s"
        except (OSError, BrokenAnswer) as error:
            self.close()
            return reason(error)
        return ""

    def exchange(self, message: Bytes) -> Reply:
        """One call; the reply's body is the response message. A failure is told, never raised."""
        reply = self._reply
        reply.error = ""
        reply.sent_ns = time.monotonic_ns()
        try:
            wire = self._wire
            if wire is None or wire.stale or not self._is_open_for_calls():
                wire = self._connected()
            wire.begin(reply.sent_ns)
            self._converse(wire, message, reply)
        except DeadlinePassed:
            self._fail(Outcome.TIMEOUT, f"no answer within {self._timeout_s:g} s")
        except (OSError, BrokenAnswer) as error:
            self._fail(Outcome.CONNECTION, reason(error))
        except BaseException:  # a kill in the middle of an exchange: the rest must not meet the next one
            self.close()
            raise
        return reply

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _is_open_for_calls(self) -> bool:
        return not self._inbox.going_away and self._inbox.stream + 2 <= h2.MOST_WINDOW

    def _connected(self) -> PlainSocket:
        self.close()
        wire = connect(self._host, self._port, self._timeout_s)
        assert isinstance(wire, PlainSocket)  # without TLS, it is
        self._wire = wire
        self._inbox.reset()
        self._cut, self._low_water = False, 1
        wire.begin(time.monotonic_ns())
        self._send(wire, [_HELLO])
        while not self._inbox.greeted:
            wire.wait()
            self._receive(wire)
        self._send(wire, [])
        wire.on_unasked = self._between_calls
        return wire

    def _fail(self, outcome: Outcome, error: str) -> None:
        self._reply.done_ns = time.monotonic_ns()
        self._reply.outcome, self._reply.error = outcome, error
        self._reply.body = memoryview(b"")
        self.close()

    def _converse(self, wire: PlainSocket, message: Bytes, reply: Reply) -> None:
        inbox = self._inbox
        inbox.open_stream()
        self._send_call(wire, message)
        while not inbox.ended:
            wire.wait()
            self._receive(wire)
        reply.done_ns = time.monotonic_ns()
        reply.outcome, reply.error = self._status()
        reply.body = inbox.message() if reply.outcome == Outcome.OK else memoryview(b"")
        if self._cut:
            self.close()
        elif inbox.pending:
            self._send(wire, [])

    def _status(self) -> tuple[int, str]:
        trailers, http_status = self._inbox.trailers, self._inbox.headers.http_status
        if trailers.grpc_status == 0 and http_status == "200":
            return Outcome.OK, ""
        if trailers.grpc_status is None:
            if http_status in (None, "200"):
                raise BrokenAnswer("an answer without a gRPC status")
            return Outcome.SERVER_ERROR, f"HTTP {http_status}, which no gRPC server answers"
        name = h2.name_of(trailers.grpc_status, h2.STATUS_NAMES)
        told = f"{trailers.grpc_message} ({name})" if trailers.grpc_message else name
        late = trailers.grpc_status == h2.DEADLINE_EXCEEDED
        return Outcome.TIMEOUT if late else Outcome.SERVER_ERROR, told

    def _send_call(self, wire: PlainSocket, message: Bytes) -> None:
        """Headers and data within the server's frame size and windows; less when the answer comes first."""
        inbox = self._inbox
        prefix = struct.pack(">BI", 0, len(message))
        total = 5 + len(message)
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, inbox.stream, self._request_block)
        at = 0
        while at < total and not inbox.ended and not self._cut:
            size = min(total - at, inbox.max_frame, inbox.window, inbox.stream_window)
            if size > 0:
                end = at + size
                flags = h2.END_STREAM if end == total else 0
                head += h2.frame_header(h2.DATA, flags, inbox.stream, size) + prefix[at:end]
                inbox.window -= size
                inbox.stream_window -= size
                self._send(wire, [head, memoryview(message)[max(0, at - 5) : max(0, end - 5)]])
                at = end
            else:  # the windows are closed until the server opens them
                self._send(wire, [head])
                wire.wait()
                self._receive(wire)
            head = b""
        self._cut = self._cut or at < total

    def _send(self, wire: PlainSocket, buffers: list[Bytes]) -> None:
        """Whole frames, after pending acknowledgements; cut when the answer, or an end, comes first."""
        if self._inbox.pending:
            buffers.insert(0, self._inbox.pending)
            self._inbox.pending = b""
        left = sum(map(len, buffers))
        try:
            while left:
                try:
                    sent = wire.sendmsg(buffers)
                    left -= sent
                    if left:
                        buffers = _after(buffers, sent)
                except BlockingIOError:
                    if wire.wait_for_room():
                        self._receive(wire)
                    if self._inbox.ended:
                        self._cut = True
                        return
        except (BrokenPipeError, ConnectionResetError):
            self._cut = True  # why may still be there to read

    def _receive(self, wire: PlainSocket) -> None:
        try:
            count = wire.recv_into(self._inbox.space())
        except BlockingIOError:
            return
        if not count:
            raise BrokenAnswer("the server closed the connection")
        self._inbox.filled(count)
        missing = min(self._inbox.missing(), _LOW_WATER_MOST)
        wanted = missing if missing >= _LOW_WATER_FROM else 1
        if wanted != self._low_water:
            wire.low_water(wanted)
            self._low_water = wanted

    def _between_calls(self) -> None:
        """In the hub: settings, pings and ends must not wait for the next call."""
        wire = self._wire
        if wire is None:
            return
        try:
            self._receive(wire)
            if self._inbox.pending:
                wire.send(self._inbox.pending)  # few bytes into an empty buffer
                self._inbox.pending = b""
        except BlockingIOError:
            return
        except (OSError, BrokenAnswer):
            wire.retire()


def _after(buffers: list[Bytes], sent: int) -> list[Bytes]:
    """What is left of the buffers once so many bytes are sent."""
    left: list[Bytes] = []
    for buffer in buffers:
        skip = min(sent, len(buffer))
        sent -= skip
        if skip < len(buffer):
            left.append(memoryview(buffer)[skip:])
    return left
