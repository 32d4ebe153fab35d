"""HTTP/1.1 as Triton's users need it: prepared bytes out, the answer into one reused buffer.

A head that is byte for byte the last good one is not parsed again.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.core.samples import Outcome
from bench.protocols.gevent_socket import (
    BrokenAnswer,
    DeadlinePassed,
    PlainSocket,
    Reply,
    TlsSocket,
    connect,
    reason,
)

_ONE_ERROR_BYTES = 500


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. `length` None: the body is chunked, or ends with the connection."""

    status: int
    length: int | None
    chunked: bool
    keep_alive: bool
    inference_header_length: int


_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")


def parse_head(data: bytes) -> Head:
    """`data` up to and without the empty line. Raises BrokenAnswer. Source: RFC 9112, sections 4-6, 9.3."""
    first, *lines = data.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise BrokenAnswer(f"no HTTP/1.1 answer: {first[:40]!r}")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BrokenAnswer(f"a broken header line: {line[:40]!r}")
        fields.setdefault(field[1].lower(), []).append(field[2])
    code = int(status[2])
    encodings = _tokens(fields, b"transfer-encoding")
    if encodings not in ([], [b"chunked"]):
        raise BrokenAnswer(f"an unknown transfer encoding: {encodings!r}")
    if encodings and b"content-length" in fields:
        raise BrokenAnswer("both a content length and a transfer encoding")
    length = 0 if code < 200 or code in (204, 304) else _number(fields, b"content-length")
    connection = _tokens(fields, b"connection")
    return Head(
        status=code,
        length=length,
        chunked=bool(encodings) and length is None,
        keep_alive=b"close" not in connection and (status[1] == b"1" or b"keep-alive" in connection),
        inference_header_length=_number(fields, b"inference-header-content-length") or 0,
    )


def _tokens(fields: dict[bytes, list[bytes]], name: bytes) -> list[bytes]:
    return [token.strip().lower() for token in b",".join(fields.get(name, [])).split(b",") if token.strip()]


def _number(fields: dict[bytes, list[bytes]], name: bytes) -> int | None:
    values = fields.get(name, [])
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 15:
        raise BrokenAnswer(f"a broken {name.decode()}")
    return int(values[0])


def error_message(status: int, body: bytes) -> str:
    """Triton's own message where the answer has one."""
    try:
        told = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        told = body[:_ONE_ERROR_BYTES].decode("utf-8", "replace").strip()
    return f"{told} (HTTP {status})" if told else f"HTTP {status}"


MAX_HEAD_BYTES = 64 << 10
MAX_BODY_BYTES = 1 << 30
_FIRST_BUFFER_BYTES = 64 << 10
_LINE_BYTES = 4 << 10
# Below this a second wait is unlikely; above the upper figure, copying while more arrives is faster.
_LOW_WATER_FROM, _LOW_WATER_MOST = 64 << 10, 256 << 10
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}")
_NO_HEAD = Head(0, None, False, False, 0)


class HttpConnection:
    """One user's keep-alive connection; connects again by itself after any failure.

    An exchange that has to connect counts the connecting, since its user waits for it; `connect`
    beforehand keeps that out of the first one.
    """

    def __init__(self, url: str, *, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls_context() if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._wire: PlainSocket | TlsSocket | None = None
        self._reply = Reply()
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._have = 0  # bytes of the buffer that are this exchange's
        self._known = b""  # the last good head, with its empty line, and what it said
        self._known_head = _NO_HEAD

    def connect(self) -> str:
        """Connect now. Returns why not, or ""."""
        try:
            self._connected()
        except (OSError, DeadlinePassed) as error:
            return reason(error) or "timed out"
        return ""

    def exchange(self, request: bytes | memoryview) -> Reply:
        """Send the request, receive its answer. A failure is told by the reply, never raised."""
        reply = self._reply
        reply.error = ""
        reply.sent_ns = time.monotonic_ns()
        try:
            wire = self._wire
            if wire is None or wire.stale:
                wire = self._connected()
            wire.begin(reply.sent_ns)
            self._converse(wire, request, reply)
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

    def _connected(self) -> PlainSocket | TlsSocket:
        self.close()
        self._wire = connect(self._host, self._port, self._timeout_s, self._tls)
        return self._wire

    def _fail(self, outcome: Outcome, error: str) -> None:
        self._reply.done_ns = time.monotonic_ns()
        self._reply.outcome = outcome
        self._reply.error = error
        self._reply.body = memoryview(b"")
        self._reply.head_length = 0
        self.close()

    def _converse(self, wire: PlainSocket | TlsSocket, request: bytes | memoryview, reply: Reply) -> None:
        whole = self._send(wire, request)
        start, head = self._receive_head(wire)
        if head.length is not None:
            end = start + head.length
            self._fill_to(wire, end)
        elif head.chunked:
            end = self._receive_chunks(wire, start)
        else:
            end = self._receive_to_end(wire)
        reply.done_ns = time.monotonic_ns()
        reply.body = self._view[start:end]
        reply.head_length = head.inference_header_length
        reply.outcome = Outcome.OK
        if not 200 <= head.status < 300:
            reply.outcome = Outcome.SERVER_ERROR
            reply.error = error_message(head.status, bytes(reply.body[: 64 << 10]))
        if not (whole and head.keep_alive) or (head.length is not None and self._have > end):
            self.close()

    def _send(self, wire: PlainSocket | TlsSocket, request: bytes | memoryview) -> bool:
        """False: the answer came, or the connection broke, before all was sent; what there is can be read."""
        sent = 0
        total = len(request)
        self._have = 0
        rest = request
        while True:
            try:
                sent += wire.send(rest)  # type: ignore[arg-type]  # bytes are as good as a view of them
                if sent == total:
                    return True
            except BlockingIOError:
                if wire.wait_for_room() and not self._only_informed(wire):
                    return False
            except (BrokenPipeError, ConnectionResetError):
                return False
            rest = memoryview(request)[sent:]

    def _only_informed(self, wire: PlainSocket | TlsSocket) -> bool:
        """While sending: whether all that came is 1xx, which leaves the answer to come."""
        self._receive(wire)
        while self._have:
            end = self._buffer.find(b"\r\n\r\n", 0, self._have)
            if end < 0 or parse_head(bytes(self._view[:end])).status >= 200:
                return False
            self._drop(end + 4)
        return True

    def _receive_head(self, wire: PlainSocket | TlsSocket) -> tuple[int, Head]:
        """Where the body starts, and what the head says; informational answers are skipped."""
        searched = 0
        if not self._have:
            wire.wait()
            self._receive(wire)
        if self._known and self._buffer.startswith(self._known) and self._have >= len(self._known):
            return len(self._known), self._known_head
        while True:
            end = self._buffer.find(b"\r\n\r\n", searched, self._have)
            if end >= 0:
                head = parse_head(bytes(self._view[:end]))
                if head.status >= 200:
                    return self._learn(end + 4, head)
                self._drop(end + 4)
                searched = 0
            elif self._have > MAX_HEAD_BYTES:
                raise BrokenAnswer(f"a head of over {MAX_HEAD_BYTES >> 10} KiB")
            else:
                searched = max(0, self._have - 3)
                self._receive_more(wire)

    def _learn(self, start: int, head: Head) -> tuple[int, Head]:
        if head.status == 200 and head.length is not None and head.keep_alive:
            if head.length > self._max_body_bytes:
                raise BrokenAnswer(f"an answer of over {self._max_body_bytes} bytes")
            self._known, self._known_head = bytes(self._view[:start]), head
        return start, head

    def _fill_to(self, wire: PlainSocket | TlsSocket, end: int) -> None:
        """Receive until the buffer holds `end` bytes."""
        if self._have >= end:
            return
        if end > self._max_body_bytes + MAX_HEAD_BYTES:
            raise BrokenAnswer(f"an answer of over {self._max_body_bytes} bytes")
        if end > len(self._buffer):
            self._grow(end, self._have)
        lowered = False
        while self._have < end:
            missing = end - self._have
            if missing >= _LOW_WATER_FROM:
                wire.low_water(min(missing, _LOW_WATER_MOST))
                lowered = True
            elif lowered:
                wire.low_water(missing)
            self._receive_more(wire)
        if lowered:
            wire.low_water(1)

    def _receive_chunks(self, wire: PlainSocket | TlsSocket, start: int) -> int:
        """Decode in place; returns the end of the body. Source: RFC 9112, section 7.1."""
        read = end = start
        while True:
            line, read = self._line(wire, read)
            size = line.split(b";", 1)[0].strip()
            if not _CHUNK_SIZE.fullmatch(size):
                raise BrokenAnswer(f"a broken chunk: {size[:20]!r}")
            length = int(size, 16)
            if length == 0:
                break
            self._fill_to(wire, read + length + 2)
            if not self._buffer.startswith(b"\r\n", read + length):
                raise BrokenAnswer("a chunk longer than it says")
            self._view[end : end + length] = self._view[read : read + length]
            end, read = end + length, read + length + 2
        while line:
            line, read = self._line(wire, read)
        if self._have > read:
            raise BrokenAnswer("bytes after the answer")
        return end

    def _line(self, wire: PlainSocket | TlsSocket, start: int) -> tuple[bytes, int]:
        while (end := self._buffer.find(b"\r\n", start, self._have)) < 0:
            if self._have - start > _LINE_BYTES:
                raise BrokenAnswer("a chunk header without an end")
            self._receive_more(wire)
        return bytes(self._view[start:end]), end + 2

    def _receive_to_end(self, wire: PlainSocket | TlsSocket) -> int:
        """A body without a length ends with its connection."""
        while True:
            wire.wait()
            if self._receive(wire, may_end=True) == 0:
                return self._have

    def _receive_more(self, wire: PlainSocket | TlsSocket) -> None:
        have = self._have
        while self._have == have:
            wire.wait()
            self._receive(wire)

    def _receive(self, wire: PlainSocket | TlsSocket, may_end: bool = False) -> int:
        """How many bytes came; 0: the end, an error unless it `may_end`; -1: none are there."""
        if self._have == len(self._buffer):
            if self._have > self._max_body_bytes + MAX_HEAD_BYTES:
                raise BrokenAnswer(f"an answer of over {self._max_body_bytes} bytes")
            self._grow(2 * self._have, self._have)
        try:
            count = wire.recv_into(self._view[self._have :])
        except BlockingIOError:
            return -1
        if not count and not may_end:
            when = "within an answer" if self._have else "without an answer"
            raise BrokenAnswer(f"the server closed the connection {when}")
        self._have += count
        return count

    def _drop(self, count: int) -> None:
        """Forget the first bytes received."""
        left = self._have - count
        self._view[:left] = bytes(self._view[count : self._have])
        self._have = left

    def _grow(self, byte_count: int, keep: int) -> None:
        buffer = bytearray(byte_count)
        if keep:
            buffer[:keep] = self._view[:keep]
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._have = keep


def _tls_context() -> Any:
    import gevent.ssl

    # Not its create_default_context: without monkey patching that makes a context that blocks the loop.
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context
