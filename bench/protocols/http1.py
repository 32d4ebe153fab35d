"""HTTP/1.1: a request's bytes, which are built once, a connection, and what is in an answer.

The answer is received into one buffer that is reused. A head that is byte for byte the last good one is not
parsed again. `HttpDriver` is what the rest of the suite sees of this module.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from bench.core.errors import WrongUse
from bench.core.samples import Outcome
from bench.core.target import PLAIN, SYSTEM_TLS, Target, Way
from bench.protocols.answers import MalformedAnswer, Output
from bench.protocols.connection import (
    LOW_WATER_FROM,
    LOW_WATER_MOST,
    MAX_BODY_BYTES,
    BrokenAnswer,
    Bytes,
    Connection,
    Reply,
    SocketConnection,
    checked_headers,
    too_large,
)
from bench.protocols.payload import NOTHING_SHARED, Call, Shared, Tensor, placement

if TYPE_CHECKING:
    from bench.protocols.connection import Socket

# Of an error that is not Triton's JSON, the beginning is kept.
_ONE_ERROR_BYTES = 500


def http_request(
    tensors: Sequence[Tensor],
    outputs: Sequence[str],
    *,
    host: str,
    model: str,
    version: str = "",
    headers: Sequence[tuple[str, str]] = (),
    path_prefix: str = "",
    shared: Shared = NOTHING_SHARED,
) -> bytes:
    """A whole HTTP/1.1 inference request: head, JSON, and the tensors as binary data.

    No `outputs`: all of them. Raises WrongUse for headers that would break or change the request.
    Source: the binary-data and shared-memory extensions of the KServe v2 protocol.
    """
    parts = [tensor.data for tensor in tensors if tensor.name not in shared.inputs]
    described = json.dumps(_http_json(tensors, outputs, shared), separators=(",", ":")).encode()
    path = f"{path_prefix}/v2/models/{quote(model, safe='')}"
    path += f"/versions/{quote(version, safe='')}/infer" if version else "/infer"
    lines = [f"POST {path} HTTP/1.1"]
    lines += [] if any(name.lower() == "host" for name, _ in headers) else [f"Host: {host}"]
    # Without `identity`, a client library's or proxy's default lets Triton compress tensors.
    lines += ["Accept-Encoding: identity", "Connection: keep-alive", "Content-Type: application/octet-stream"]
    lines += [f"Inference-Header-Content-Length: {len(described)}"]
    lines += [f"Content-Length: {len(described) + sum(map(len, parts))}"]
    lines += [f"{name}: {value}" for name, value in checked_headers(headers)]
    head = "\r\n".join([*lines, "", ""])
    _refuse_control(path + host, "the address")
    return b"".join([head.encode("latin-1"), described, *parts])


def control_request(
    method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes | None = None
) -> bytes:
    """A request beside the load, `content` being JSON. Raises WrongUse as `http_request`."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [] if any(name.lower() == "host" for name, _ in headers) else [f"Host: {parts.netloc}"]
    lines += ["Accept-Encoding: identity", "Connection: keep-alive"]
    if content is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in checked_headers(headers)]
    _refuse_control(path + parts.netloc, "the address")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (content or b"")


def _refuse_control(text: str, what: str) -> None:
    if any(c <= " " or c > "~" for c in text):
        raise WrongUse([f"{what} {text!r} holds spaces or characters outside ASCII."])


def _http_json(tensors: Sequence[Tensor], outputs: Sequence[str], shared: Shared) -> dict[str, Any]:
    inputs = []
    for tensor in tensors:
        region = shared.inputs.get(tensor.name)
        place = placement(region) if region else {"binary_data_size": len(tensor.data)}
        inputs.append(
            {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "parameters": place}
        )
    wanted = []
    for name in outputs:
        region = shared.outputs.get(name)
        wanted.append({"name": name, "parameters": placement(region) if region else {"binary_data": True}})
    if not wanted:
        return {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return {"inputs": inputs, "outputs": wanted}


def parse_answer(body: memoryview, head_length: int) -> tuple[Output, ...]:
    """Outputs of an HTTP answer. Raises MalformedAnswer. Source: Triton's binary-data extension."""
    at = head_length or len(body)
    try:
        described = json.loads(bytes(body[:at]))["outputs"]
        outputs = []
        for entry in described:
            if "data" in entry:
                raise MalformedAnswer(f"output {entry['name']!r} came as JSON, not as binary data")
            # No size: the tensor lies in shared memory.
            size = int(entry.get("parameters", {}).get("binary_data_size", 0))
            if size < 0:
                raise MalformedAnswer(f"output {entry['name']!r} has {size} bytes")
            end = at + size
            shape = tuple(int(axis) for axis in entry["shape"])
            outputs.append(Output(str(entry["name"]), str(entry["datatype"]), shape, at, end))
            at = end
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MalformedAnswer(f"the answer's JSON is not what Triton sends ({error})") from None
    if at != len(body):
        raise MalformedAnswer(f"the answer has {len(body)} bytes, and its JSON tells of {at}")
    return tuple(outputs)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. `length` None: the body is chunked, or ends with the connection."""

    status: int
    length: int | None
    chunked: bool
    keep_alive: bool
    inference_header_length: int


_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")


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
        fields.setdefault(field[1].lower(), []).append(field[2].strip(b" \t"))
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
        told = " ".join(body[:_ONE_ERROR_BYTES].decode("utf-8", "replace").split())
    return f"{told} (HTTP {status})" if told else f"HTTP {status}"


MAX_HEAD_BYTES = 64 << 10
# A server that goes on saying that the answer will come is given up.
_MOST_INFORMATIONAL = 100
_FIRST_BUFFER_BYTES = 64 << 10
_LINE_BYTES = 4 << 10
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}")
_NO_HEAD = Head(0, None, False, False, 0)


class HttpConnection(SocketConnection):
    """One user's keep-alive connection to an HTTP/1.1 server."""

    application = "http/1.1"

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_body_bytes: int = MAX_BODY_BYTES,
        way: Way = PLAIN,
        blocking: bool = False,
    ) -> None:
        """The scheme of the URL says whether it is TLS; `way.tls` says how then."""
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        port = parts.port or (443 if is_secure else 80)
        way = replace(way, tls=(way.tls or SYSTEM_TLS) if is_secure else None)
        super().__init__(parts.hostname or "", port, timeout_s, way, blocking=blocking)
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._have = 0  # bytes of the buffer that are this exchange's
        self._known = b""  # the last good head, with its empty line, and what it said
        self._known_head = _NO_HEAD

    def _release(self) -> None:
        self._grow(_FIRST_BUFFER_BYTES, 0)

    def _converse(self, sock: Socket, request: Bytes, reply: Reply) -> None:
        whole = self._send(sock, request)
        start, head = self._receive_head(sock)
        if head.length is not None:
            end = start + head.length
            self._fill_to(sock, end)
        elif head.chunked:
            end = self._receive_chunks(sock, start)
        else:
            end = self._receive_to_end(sock)
        reply.done_ns = time.monotonic_ns()
        reply.body = self._view[start:end]
        reply.head_length, reply.status = head.inference_header_length, head.status
        reply.outcome = Outcome.OK
        if not 200 <= head.status < 300:
            reply.outcome = Outcome.SERVER_ERROR
            reply.error = error_message(head.status, bytes(reply.body[: 64 << 10]))
        if not (whole and head.keep_alive) or (head.length is not None and self._have > end):
            self.close()

    def _send(self, sock: Socket, request: Bytes) -> bool:
        """False: the answer came, or the connection broke, before all was sent; what there is can be read."""
        sent = 0
        total = len(request)
        self._have = 0
        rest = request
        while True:
            try:
                sent += sock.send(rest)
                if sent == total:
                    return True
            except BlockingIOError:
                if sock.wait_for_room() and not self._only_informed(sock):
                    return False
            except (BrokenPipeError, ConnectionResetError):
                return False
            rest = memoryview(request)[sent:]

    def _only_informed(self, sock: Socket) -> bool:
        """While sending: whether all that came is 1xx, which leaves the answer to come."""
        self._receive(sock)
        while self._have:
            end = self._buffer.find(b"\r\n\r\n", 0, self._have)
            if end < 0 or parse_head(bytes(self._view[:end])).status >= 200:
                return False
            self._drop(end + 4)
        return True

    def _receive_head(self, sock: Socket) -> tuple[int, Head]:
        """Where the body starts, and what the head says; informational answers are skipped."""
        searched = informed = 0
        if not self._have:
            sock.wait()
            self._receive(sock)
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
                informed += 1
                if informed > _MOST_INFORMATIONAL:
                    raise BrokenAnswer(f"over {_MOST_INFORMATIONAL} informational answers before the answer")
            elif self._have > MAX_HEAD_BYTES:
                raise BrokenAnswer(f"a head of over {MAX_HEAD_BYTES >> 10} KiB")
            else:
                searched = max(0, self._have - 3)
                self._receive_more(sock)

    def _learn(self, start: int, head: Head) -> tuple[int, Head]:
        if (head.length or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        if head.status == 200 and head.length is not None and head.keep_alive:
            self._known, self._known_head = bytes(self._view[:start]), head
        return start, head

    def _fill_to(self, sock: Socket, end: int) -> None:
        """Receive until the buffer holds `end` bytes."""
        if self._have >= end:
            return
        if end > self._max_body_bytes + MAX_HEAD_BYTES:
            raise too_large(self._max_body_bytes)
        lowered = False
        while self._have < end:
            if self._have == len(
                self._buffer
            ):  # as bytes come: what the answer says of its length may be a lie
                self._grow(min(end, 2 * self._have), self._have)
            missing = min(end, len(self._buffer)) - self._have
            if missing >= LOW_WATER_FROM:
                sock.low_water(min(missing, LOW_WATER_MOST))
                lowered = True
            elif lowered:
                sock.low_water(missing)
            self._receive_more(sock)
        if lowered:
            sock.low_water(1)

    def _receive_chunks(self, sock: Socket, start: int) -> int:
        """Decode in place; returns the end of the body. Source: RFC 9112, section 7.1."""
        read = end = start
        while True:
            line, read = self._line(sock, read)
            size = line.split(b";", 1)[0].strip()
            if not _CHUNK_SIZE.fullmatch(size):
                raise BrokenAnswer(f"a broken chunk: {size[:20]!r}")
            length = int(size, 16)
            if length == 0:
                break
            self._fill_to(sock, read + length + 2)
            if not self._buffer.startswith(b"\r\n", read + length):
                raise BrokenAnswer("a chunk longer than it says")
            self._view[end : end + length] = self._view[read : read + length]
            end, read = end + length, read + length + 2
        while line:
            line, read = self._line(sock, read)
        if self._have > read:
            raise BrokenAnswer("bytes after the answer")
        return end

    def _line(self, sock: Socket, start: int) -> tuple[bytes, int]:
        while (end := self._buffer.find(b"\r\n", start, self._have)) < 0:
            if self._have - start > _LINE_BYTES:
                raise BrokenAnswer("a chunk header without an end")
            self._receive_more(sock)
        return bytes(self._view[start:end]), end + 2

    def _receive_to_end(self, sock: Socket) -> int:
        """A body without a length ends with its connection."""
        while True:
            sock.wait()
            if self._receive(sock, may_end=True) == 0:
                return self._have

    def _receive_more(self, sock: Socket) -> None:
        have = self._have
        while self._have == have:
            sock.wait()
            self._receive(sock)

    def _receive(self, sock: Socket, may_end: bool = False) -> int:
        """How many bytes came; 0: the end, an error unless it `may_end`; -1: none are there."""
        if self._have == len(self._buffer):
            most = self._max_body_bytes + MAX_HEAD_BYTES + 1
            if self._have >= most:
                raise too_large(self._max_body_bytes)
            self._grow(min(most, 2 * self._have), self._have)
        try:
            count = sock.recv_into(self._view[self._have :])
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


class HttpDriver:
    """Triton's HTTP endpoint, as a `registry.Driver`."""

    takes_shared_memory = True
    address_hint = "give the server's HTTP address with --url"

    def service(self, target: Target) -> Target:
        return target

    def address(self, target: Target) -> str:
        return target.http_url

    def build(self, call: Call, target: Target, shared: Shared = NOTHING_SHARED) -> bytes:
        parts = urlsplit(target.http_url)
        return http_request(
            call.tensors,
            call.outputs,
            host=parts.netloc,
            path_prefix=parts.path,
            model=call.model,
            version=call.version,
            headers=target.headers,
            shared=shared,
        )

    def parse(self, body: memoryview, head_length: int) -> tuple[Output, ...]:
        return parse_answer(body, head_length)

    def connection(
        self, target: Target, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES
    ) -> Connection:
        return HttpConnection(
            target.http_url,
            timeout_s=timeout_s,
            max_body_bytes=max_body_bytes,
            way=target.access,
        )
