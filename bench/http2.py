"""Unary gRPC over HTTP/2 on one gevent socket: one call in flight, prepared bytes, no threads.

What grpcio does with a pool of threads, this does with two system calls. It takes a quarter of the
CPU; it speaks no TLS and no compression (`bench.grpc_channel` is the fallback and the oracle).
"""

from __future__ import annotations

import struct
import time
from urllib.parse import urlsplit

from bench import http2_frames as h2
from bench.http2_frames import Block, Flag, Kind, Setting
from bench.samples import Outcome
from bench.wire import BrokenAnswer, DeadlinePassed, Reply, TlsWire, Wire, connect, reason

INFER = "/inference.GRPCInferenceService/ModelInfer"
MAX_BODY_BYTES = 1 << 30
_FIRST_BUFFER_BYTES = 64 << 10
_MAX_BLOCK_BYTES = 64 << 10
_MOST_KNOWN_BLOCKS = 64
_GRANT_BYTES = 1 << 29  # received before the connection's window is opened again
_LOW_WATER_FROM, _LOW_WATER_MOST = 64 << 10, 256 << 10
_NO_BLOCK = Block(None, None, "")


class GrpcConnection:
    """One user's connection to `address` (host:port); connects again by itself after any failure.

    An exchange that has to connect counts the connecting, since its user waits for it; `connect`
    beforehand keeps that out of the first one.
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
        self._request_block = h2.request_block(address, method, metadata)
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._wire: Wire | None = None
        self._reply = Reply()
        self._known_blocks: dict[bytes, Block] = {}
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._forget_connection()

    def connect(self) -> str:
        """Connect now. Returns why not, or ""."""
        try:
            self._connected()
        except DeadlinePassed:
            return "timed out"
        except (OSError, BrokenAnswer) as error:
            return reason(error)
        return ""

    def exchange(self, message: bytes | memoryview) -> Reply:
        """One call; the reply's body is the response message. A failure is told, never raised."""
        reply = self._reply
        reply.error = ""
        reply.sent_ns = time.monotonic_ns()
        try:
            wire = self._wire
            if wire is None or wire.stale or self._going_away or self._stream + 2 > h2.MOST_WINDOW:
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

    def _forget_connection(self) -> None:
        self._stream = -1
        self._window = h2.DEFAULT_WINDOW  # what may still be sent: on the connection, on the stream
        self._stream_window = self._first_window = h2.DEFAULT_WINDOW
        self._max_frame = h2.DEFAULT_MAX_FRAME
        self._received = 0  # bytes of data since the last grant
        self._going_away = False
        self._greeted = False  # the server's settings have come
        self._read = self._have = 0  # bytes of the buffer parsed, and filled
        self._pending = b""  # acknowledgements to send between frames
        self._begin_stream()

    def _begin_stream(self) -> None:
        self._stream += 2
        self._stream_window = self._first_window
        self._ended = self._cut = False
        self._headers = self._trailers = _NO_BLOCK
        self._partial_block: bytes | None = None
        self._parts: list[tuple[int, int]] = []  # where the message's bytes lie in the buffer
        self._part_bytes = 0
        left = self._have - self._read
        if left:
            self._view[:left] = bytes(self._view[self._read : self._have])
        self._read, self._have = 0, left

    def _connected(self) -> Wire:
        self.close()
        wire = connect(self._host, self._port, self._timeout_s)
        assert isinstance(wire, Wire)
        self._wire = wire
        self._forget_connection()
        wire.begin(time.monotonic_ns())
        self._send(wire, [h2.PREFACE + h2.window_update(0, h2.MOST_WINDOW - h2.DEFAULT_WINDOW)])
        while not self._greeted:
            self._receive_some(wire)
        self._send(wire, [])
        wire.on_unasked = self._between_exchanges
        self._stream = -1
        return wire

    def _fail(self, outcome: Outcome, error: str) -> None:
        self._reply.done_ns = time.monotonic_ns()
        self._reply.outcome = outcome
        self._reply.error = error
        self._reply.body = memoryview(b"")
        self.close()

    def _converse(self, wire: Wire, message: bytes | memoryview, reply: Reply) -> None:
        self._begin_stream()
        self._send_call(wire, message)
        while not self._ended:
            self._receive_some(wire)
        reply.done_ns = time.monotonic_ns()
        reply.outcome, reply.error = self._status()
        reply.body = self._message() if reply.outcome == Outcome.OK else memoryview(b"")
        if self._cut:
            self.close()
        elif self._pending:
            self._send(wire, [])

    def _status(self) -> tuple[int, str]:
        status = self._trailers.grpc_status
        if status == 0 and self._headers.http_status == "200":
            return Outcome.OK, ""
        if self._headers.http_status != "200" and status is None:
            return Outcome.SERVER_ERROR, f"HTTP {self._headers.http_status} from what should be a gRPC server"
        if status is None:
            raise BrokenAnswer("an answer without a gRPC status")
        name = h2.name_of(status, h2.STATUS_NAMES)
        told = f"{self._trailers.grpc_message} ({name})" if self._trailers.grpc_message else name
        return Outcome.TIMEOUT if status == h2.DEADLINE_EXCEEDED else Outcome.SERVER_ERROR, told

    def _message(self) -> memoryview:
        """The response message, its parts moved together in the buffer."""
        if not self._parts:
            raise BrokenAnswer("an answer without a message")
        start, end = self._parts[0]
        view = self._view
        for part_start, part_end in self._parts[1:]:
            length = part_end - part_start
            view[end : end + length] = view[part_start:part_end]
            end += length
        if end - start < 5 or self._buffer[start]:
            raise BrokenAnswer("a broken or compressed gRPC message")
        if int.from_bytes(view[start + 1 : start + 5], "big") != end - start - 5:
            raise BrokenAnswer("a gRPC message of another length than it says")
        return view[start + 5 : end]
