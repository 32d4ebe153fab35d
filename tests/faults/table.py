"""The table of faults: what is played in place of an answer, and as what it must be recorded.

`bench` talks to a real Triton through `tests.faults.proxy`. A row is played at one of two levels: to a user's
connection by `test_requests.py`, and to whole sweeps by `python -m benchmarks.faults`.
"""

# ruff: noqa: E501  # a row is a line
from __future__ import annotations

import gzip
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import hpack

from bench.core.cell import Protocol
from bench.core.samples import Outcome
from bench.protocols import http2 as h2
from tests.faults.proxy import Play

# The client has given up by then; a play that goes on longer ends by itself.
LONGEST_PLAY_S = 3.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. `outcomes`: as which of these a request may end; it never ends otherwise."""

    name: str
    protocol: Protocol
    play: Play
    outcomes: frozenset[Outcome]

    def __str__(self) -> str:
        return f"{self.protocol}: {self.name}"


# --- pieces of plays -------------------------------------------------------------------------------------


def says(data: bytes) -> Play:
    """Say this and end the connection in order."""

    def play(sock: socket.socket, _: bytes) -> None:
        sock.sendall(data)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)

    return play


def says_and_stays(data: bytes) -> Play:
    """Say this, and then nothing more, with the connection open."""

    def play(sock: socket.socket, _: bytes) -> None:
        sock.sendall(data)
        _stay(sock)

    return play


def resets(share: float) -> Play:
    """Send a share of the real answer, then RST."""

    def play(sock: socket.socket, answer: bytes) -> None:
        sock.sendall(answer[: int(len(answer) * share)])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    return play


def changes(change: Callable[[bytes], bytes], ends: bool = True) -> Play:
    """Say the real answer, changed."""

    def play(sock: socket.socket, answer: bytes) -> None:
        (says if ends else says_and_stays)(change(answer))(sock, b"")

    return play


def goes_on(piece: bytes, first: bytes = b"", pause_s: float = 0.0) -> Play:
    """Say `first`, then one piece after the other until the client has had enough."""

    def play(sock: socket.socket, _: bytes) -> None:
        sock.sendall(first)
        end = time.monotonic() + LONGEST_PLAY_S
        while time.monotonic() < end:
            sock.sendall(piece)
            if pause_s:
                time.sleep(pause_s)

    return play


def drips(pause_s: float = 0.05) -> Play:
    """The real answer, a byte at a time."""

    def play(sock: socket.socket, answer: bytes) -> None:
        end = time.monotonic() + LONGEST_PLAY_S
        for byte in answer:
            if time.monotonic() > end:
                return
            sock.sendall(bytes([byte]))
            time.sleep(pause_s)

    return play


def _stay(sock: socket.socket) -> None:
    """Until the client ends the connection."""
    sock.settimeout(LONGEST_PLAY_S)
    with suppress(OSError):
        while sock.recv(_MIB):
            pass


def head(status: str = "200 OK", *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


def whole(status: str, body: bytes, *fields: str) -> bytes:
    return head(status, f"Content-Length: {len(body)}", *fields) + body


# --- HTTP ------------------------------------------------------------------------------------------------

_FAILED = frozenset({Outcome.SERVER_ERROR})
_BROKEN = frozenset({Outcome.CONNECTION})
_LATE = frozenset({Outcome.TIMEOUT})
_WRONG = frozenset({Outcome.WRONG_ANSWER})
_RIGHT = frozenset({Outcome.OK})
_CODES = (
    *("300 Multiple Choices", "301 Moved Permanently", "302 Found", "303 See Other", "304 Not Modified"),
    *("307 Temporary Redirect", "308 Permanent Redirect", "400 Bad Request", "401 Unauthorized"),
    *("403 Forbidden", "404 Not Found", "405 Method Not Allowed", "408 Request Timeout", "409 Conflict"),
    *("413 Content Too Large", "418 I'm a teapot", "422 Unprocessable", "429 Too Many Requests"),
    *("431 Request Header Fields Too Large", "499 Client Closed", "500 Internal Server Error"),
    *("501 Not Implemented", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"),
    *("505 HTTP Version Not Supported", "507 Insufficient Storage", "520 Unknown", "599 Timeout"),
)


def _body_of(answer: bytes) -> tuple[bytes, bytes]:
    first, _, body = answer.partition(b"\r\n\r\n")
    return first + b"\r\n\r\n", body


def _with_body(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the body and keeps the head, whose lengths then lie."""

    def changed(answer: bytes) -> bytes:
        first, body = _body_of(answer)
        return first + change(body)

    return changed


# fmt: off
def _http_rows() -> Iterator[tuple[str, Play, frozenset[Outcome]]]:
    for code in _CODES:
        body = b"" if code.startswith("304") else b'{"error": "played"}'
        yield f"status {code}", says(whole(code, body)), _FAILED
    yield (
        "a redirect is not followed",
        says(whole("302 Found", b"", "Location: http://127.0.0.1:9/x")),
        _FAILED,
    )
    yield "informational answers before the real one", changes(lambda a: head("103 Hints") * 3 + a), _RIGHT
    yield "informational answers without end", goes_on(head("102 Processing")), _BROKEN | _LATE
    yield "nothing, and the connection ends", says(b""), _BROKEN
    yield "nothing, and the connection stays", says_and_stays(b""), _LATE
    yield "reset before an answer", resets(0.0), _BROKEN
    yield "reset in the head", resets(0.05), _BROKEN
    yield "reset in the body", resets(0.9), _BROKEN
    yield "cut off in the head", changes(lambda a: a[:20]), _BROKEN
    yield "cut off in the body", changes(lambda a: a[:-1]), _BROKEN
    yield "cut off, and the connection stays", changes(lambda a: a[:-1], ends=False), _LATE
    yield "a byte too many", changes(lambda a: a + b"x"), _RIGHT | _BROKEN
    yield "drip-fed", drips(), _LATE
    yield "a head without end", goes_on(b"A: b\r\n" * 100, head()[:-2]), _BROKEN | _LATE
    yield "a head line without end", goes_on(b"a" * 4096, b"HTTP/1.1 200 OK\r\nA: "), _BROKEN | _LATE
    yield "a body without end or length", goes_on(bytes(_MIB), head()), _BROKEN | _LATE
    yield "chunks without end", goes_on(b"100000\r\n" + bytes(_MIB) + b"\r\n", head("200 OK", "Transfer-Encoding: chunked")), _BROKEN | _LATE
    yield "a length of 1 GiB and nothing behind", says_and_stays(head("200 OK", "Content-Length: 1073741824")), _BROKEN | _LATE
    yield "a length of 10^14", says_and_stays(head("200 OK", "Content-Length: 100000000000000")), _BROKEN
    yield "a chunk of 1 GiB and nothing behind", says_and_stays(head("200 OK", "Transfer-Encoding: chunked") + b"40000000\r\n"), _BROKEN | _LATE
    yield "a negative length", says(head("200 OK", "Content-Length: -1")), _BROKEN
    yield "two lengths", says(head("200 OK", "Content-Length: 1", "Content-Length: 2") + b"ab"), _BROKEN
    yield (
        "a length and chunks",
        says(head("200 OK", "Content-Length: 1", "Transfer-Encoding: chunked")),
        _BROKEN,
    )
    yield "garbage", says(bytes(range(256)) * 4), _BROKEN
    yield "garbage without end", goes_on(b"\x00" * 4096), _BROKEN | _LATE
    yield "HTTP/2 on the HTTP port", says(bytes.fromhex("000000040000000000")), _BROKEN
    yield "TLS on the HTTP port", says(bytes.fromhex("15030100020246")), _BROKEN
    yield "HTTP/0.9", says(b"<html>hello</html>"), _BROKEN
    yield "a page with status 200", says(whole("200 OK", b"<html>log in</html>")), _WRONG
    yield "an empty body", says(whole("200 OK", b"")), _WRONG
    yield "no content", says(head("204 No Content")), _WRONG
    yield "JSON of another kind", says(whole("200 OK", b"[]")), _WRONG
    yield "JSON: no outputs", says(whole("200 OK", b'{"model_name": "m"}')), _WRONG
    yield "JSON: outputs is a number", says(whole("200 OK", b'{"outputs": 3}')), _WRONG
    yield "JSON: an output is null", says(whole("200 OK", b'{"outputs": [null]}')), _WRONG
    yield "JSON: a size of infinity", says(_answer(b'"parameters": {"binary_data_size": Infinity}')), _WRONG
    yield "JSON: a size of NaN", says(_answer(b'"parameters": {"binary_data_size": NaN}')), _WRONG
    yield "JSON: a negative size", says(_answer(b'"parameters": {"binary_data_size": -1}')), _WRONG
    yield "JSON: a size of 10^300", says(_answer(b'"parameters": {"binary_data_size": 1e300}')), _WRONG
    yield "JSON: a shape of infinity", says(_answer(b'"parameters": {}', b"[Infinity]")), _WRONG
    yield "JSON: a shape of 10^400", says(_answer(b'"parameters": {}', b"[1" + b"0" * 400 + b"]")), _WRONG
    yield "JSON: 100,000 nested brackets", says(whole("200 OK", b'{"outputs": ' + b"[" * 100_000)), _WRONG
    yield "JSON: 5,000 nested brackets closed", says(whole("200 OK", b'{"outputs": ' + b"[" * 5000 + b"]" * 5000 + b"}")), _WRONG
    yield "JSON: a number of 5,000 digits", says(_answer(b'"parameters": {"binary_data_size": ' + b"9" * 5000 + b"}")), _WRONG
    yield (
        "JSON: a lone surrogate in a name",
        says(whole("200 OK", b'{"outputs": [{"name": "\\ud800"}]}')),
        _WRONG,
    )
    yield "a lone surrogate in an error", says(whole("500 Oops", b'{"error": "\\ud800 \\udfff"}')), _FAILED
    yield "an error of 1 MiB", says(whole("500 Oops", b'{"error": "' + b"x" * _MIB + b'"}')), _FAILED
    yield "an error in Latin-1", says(whole("500 Oops", b'{"error": "caf\xe9"}')), _FAILED
    yield "an error of nested brackets", says(whole("500 Oops", b"[" * 100_000)), _FAILED
    yield (
        "control characters in an error",
        says(whole("500 Oops", b'{"error": "\\u001b[31mred\\u0000"}')),
        _FAILED,
    )
    yield "gzip that nobody asked for", says(whole("200 OK", b"\x1f\x8b\x08" + bytes(50), "Content-Encoding: gzip")), _WRONG
    yield "the tensor is a byte short", changes(_relabelled(lambda body: body[:-1])), _WRONG
    yield "the tensor is a byte long", changes(_relabelled(lambda body: body + b"x")), _WRONG
    yield (
        "an inference header longer than the body",
        changes(lambda a: _header_length(a, 10**9)),
        _WRONG | _BROKEN,
    )


# fmt: on


def _answer(fields: bytes, shape: bytes = b"[1,16]") -> bytes:
    """An answer of one output with these fields."""
    described = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": ' + shape + b", " + fields + b"}]}"
    return whole("200 OK", described + bytes(64), f"Inference-Header-Content-Length: {len(described)}")


def _relabelled(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the body, and the content length with it."""

    def changed(answer: bytes) -> bytes:
        first, body = _body_of(answer)
        new = change(body)
        lines = [
            b"Content-Length: %d" % len(new) if line.lower().startswith(b"content-length:") else line
            for line in first.split(b"\r\n")
        ]
        return b"\r\n".join(lines) + new

    return changed


def _header_length(answer: bytes, length: int) -> bytes:
    first, body = _body_of(answer)
    name = b"inference-header-content-length"
    lines = [
        b"%s: %d" % (name, length) if line.lower().startswith(name) else line for line in first.split(b"\r\n")
    ]
    return b"\r\n".join(lines) + body


# --- gRPC ------------------------------------------------------------------------------------------------


def block(*pairs: tuple[str, str]) -> bytes:
    """A header block that enters no table."""
    encoded: bytes = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*p) for p in pairs], huffman=False)
    return encoded


_OK = block((":status", "200"), ("content-type", "application/grpc"))
_ENDS = h2.END_HEADERS | h2.END_STREAM


def frames(*parts: bytes) -> bytes:
    return b"".join(parts)


def headers(data: bytes = _OK, flags: int = h2.END_HEADERS, stream: int = 1) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream, data)


def message(
    payload: bytes, stream: int = 1, flags: int = 0, compressed: int = 0, length: int | None = None
) -> bytes:
    """A DATA frame with a gRPC message in it."""
    size = len(payload) if length is None else length
    return h2.frame(h2.DATA, flags, stream, struct.pack(">BI", compressed, size) + payload)


def trailers(status: str = "0", told: str = "") -> bytes:
    pairs = [("grpc-status", status), *([("grpc-message", told)] if told else [])]
    return headers(block(*pairs), _ENDS)


def status_alone(status: str, told: str = "played", http: str = "200") -> bytes:
    return headers(block((":status", http), ("grpc-status", status), ("grpc-message", told)), _ENDS)


# fmt: off
def _grpc_rows() -> Iterator[tuple[str, Play, frozenset[Outcome]]]:
    for number, name in enumerate(h2.STATUS_NAMES):
        if number:
            is_late = name == "DEADLINE_EXCEEDED"
            yield (
                f"status {name} alone",
                says_and_stays(status_alone(str(number))),
                _LATE if is_late else _FAILED,
            )
            ended = frames(headers(), trailers(str(number)))
            yield f"status {name} after headers", says_and_stays(ended), _LATE if is_late else _FAILED
    yield "a status nobody knows", says_and_stays(status_alone("99")), _FAILED
    yield "a status that is no number", says_and_stays(status_alone("many")), _BROKEN
    yield "a negative status", says_and_stays(status_alone("-1")), _FAILED | _BROKEN
    yield "no trailers, and the connection ends", says(frames(headers(), message(b""))), _BROKEN
    yield "no trailers, and the connection stays", says_and_stays(frames(headers(), message(b""))), _LATE
    yield (
        "the stream ends without trailers",
        says_and_stays(frames(headers(), message(b"", flags=1))),
        _BROKEN,
    )
    yield "trailers without a status", says_and_stays(frames(headers(), message(b""), headers(block(("a", "b")), _ENDS))), _BROKEN
    yield "success without a message", says_and_stays(frames(headers(), trailers())), _BROKEN
    yield "success with an empty message", says_and_stays(frames(headers(), message(b""), trailers())), _WRONG
    yield (
        "a message that is no protobuf",
        says_and_stays(frames(headers(), message(b"\xff" * 20), trailers())),
        _WRONG,
    )
    yield (
        "a message cut short",
        says_and_stays(frames(headers(), message(b"abc", length=9), trailers())),
        _BROKEN,
    )
    yield "a message longer than it says", says_and_stays(frames(headers(), message(b"abcdef", length=2), trailers())), _BROKEN
    yield (
        "a compressed message",
        says_and_stays(frames(headers(), message(b"abc", compressed=1), trailers())),
        _BROKEN,
    )
    yield "half closed: nothing after headers", says(headers()), _BROKEN
    yield "nothing, and the connection ends", says(b""), _BROKEN
    yield "nothing, and the connection stays", says_and_stays(b""), _LATE
    yield "reset", resets(0.0), _BROKEN
    for code, name in enumerate(h2.ERROR_NAMES):
        cancelled = h2.frame(h2.RST_STREAM, 0, 1, code.to_bytes(4, "big"))
        yield f"RST_STREAM {name}", says_and_stays(cancelled), _BROKEN
    yield "GOAWAY before the call", says_and_stays(_goaway(0, 11, b"too_many_pings")), _BROKEN
    yield (
        "GOAWAY after the call, then its answer",
        says_and_stays(frames(_goaway(1, 0), status_alone("14"))),
        _FAILED,
    )
    yield "GOAWAY after the call, then the end", says(_goaway(1, 0)), _BROKEN
    yield "a GOAWAY of three bytes", says_and_stays(h2.frame(h2.GOAWAY, 0, 0, b"abc")), _BROKEN
    yield "settings of five bytes", says_and_stays(h2.frame(h2.SETTINGS, 0, 0, b"abcde")), _BROKEN
    yield "a frame of a length of 16 MiB and nothing behind", says_and_stays(h2.frame_header(h2.DATA, 0, 1, (1 << 24) - 1)), _LATE | _BROKEN
    yield (
        "a pushed promise",
        says_and_stays(h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4) + _OK)),
        _BROKEN,
    )
    yield "garbage", says_and_stays(bytes(range(256)) * 4), _BROKEN | _LATE
    yield "HTTP/1.1 on the gRPC port", says(whole("400 Bad Request", b"")), _BROKEN
    yield "a broken header block", says_and_stays(headers(b"\xff\xff\xff\xff\xff")), _BROKEN
    yield (
        "a continuation of nothing",
        says_and_stays(h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, _OK)),
        _BROKEN,
    )
    yield "headers without an end, then data", says_and_stays(frames(headers(flags=0), message(b""))), _BROKEN
    yield "more padding than content", says_and_stays(h2.frame(h2.DATA, h2.PADDED, 1, b"\xffab")), _BROKEN
    yield "unknown frames only", says_and_stays(h2.frame(0xEE, 0, 0, b"?") * 50), _LATE
    yield "another stream's answer only", says_and_stays(frames(headers(stream=9), message(b"", 9))), _LATE
    yield "HTTP 503 of a proxy", says_and_stays(headers(block((":status", "503")), _ENDS)), _FAILED
    yield (
        "HTTP 302 of a login page",
        says_and_stays(headers(block((":status", "302"), ("location", "/")), _ENDS)),
        _FAILED,
    )
    yield "HTTP 200 of a web page", says_and_stays(frames(headers(block((":status", "200"))), h2.frame(h2.DATA, 1, 1, b"<html>"))), _BROKEN
    yield "a lone surrogate in the message", says_and_stays(status_alone("13", "%ED%A0%80")), _FAILED
    yield "a broken escape in the message", says_and_stays(status_alone("13", "%zz%")), _FAILED
    yield "a message of 60 KiB", says_and_stays(_long_status(60_000)), _FAILED
    yield "a status block of 1 MiB", says_and_stays(_long_status(_MIB)), _BROKEN
    yield "a flood of PINGs", goes_on(h2.frame(h2.PING, 0, 0, bytes(8)) * 500), _BROKEN | _LATE
    yield "a flood of settings", goes_on(h2.frame(h2.SETTINGS, 0, 0) * 500), _BROKEN | _LATE
    yield "a flood of window updates", goes_on(h2.window_update(0, 1) * 500), _BROKEN | _LATE
    yield "a window beyond 2^31", says_and_stays(h2.window_update(1, h2.MOST_WINDOW) * 4), _LATE | _BROKEN
    yield "a flood of empty data", goes_on(h2.frame(h2.DATA, 0, 1) * 500, headers()), _BROKEN | _LATE
    yield "a flood of continuations", goes_on(h2.frame(h2.CONTINUATION, 0, 1, b"\x00\x01a\x01b") * 50, headers(flags=0)), _BROKEN | _LATE
    yield "a flood of empty continuations", goes_on(h2.frame(h2.CONTINUATION, 0, 1) * 500, headers(flags=0)), _BROKEN | _LATE
    yield "an HPACK bomb", says_and_stays(_hpack_bomb()), _BROKEN | _LATE
    yield "a table of 2^30 asked for", says_and_stays(headers(b"\x3f\xe1\xff\xff\xff\x03" + _OK)), _BROKEN
    yield "data without end", goes_on(h2.frame(h2.DATA, 0, 1, bytes(16_384)) * 16, headers()), _BROKEN | _LATE
    yield "headers without end", goes_on(headers(block((":status", "103")))), _BROKEN | _LATE
    yield "data drip-fed", goes_on(h2.frame(h2.DATA, 0, 1, b"x"), headers(), pause_s=0.05), _LATE | _BROKEN


# fmt: on


def _goaway(last: int, code: int, told: bytes = b"") -> bytes:
    return h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", last, code) + told)


def _long_status(size: int) -> bytes:
    data = block((":status", "200"), ("grpc-status", "13"), ("grpc-message", "x" * size))
    pieces = [data[at : at + 16_000] for at in range(0, len(data), 16_000)]
    last = len(pieces) - 1
    sent = [headers(pieces[0], h2.END_STREAM | (0 if last else h2.END_HEADERS))]
    sent += [h2.frame(h2.CONTINUATION, 4 if n == last else 0, 1, p) for n, p in enumerate(pieces) if n]
    return b"".join(sent)


def _hpack_bomb() -> bytes:
    """One long header enters the dynamic table, and is then named thousands of times by one byte each."""
    entry = b"\x40\x01a\x7f\x81\x1f" + b"b" * 4094  # literal with incremental indexing: name a, 4,094 bytes
    return headers(entry + b"\xbe" * 12_000, _ENDS)


# What a server can say to a question of the control side: a page, nonsense, too much, or too slowly.
CONTROL: dict[str, Play] = {
    "ends": says(b""),
    "stays silent": says_and_stays(b""),
    "reset in the answer": resets(0.5),
    "cut off": changes(lambda a: a[:-1]),
    "drip-fed": drips(),
    "a body without end": goes_on(bytes(_MIB), head()),
    "chunks without end": goes_on(
        b"100000\r\n" + bytes(_MIB) + b"\r\n", head("200 OK", "Transfer-Encoding: chunked")
    ),
    "a head without end": goes_on(b"A: b\r\n" * 100, head()[:-2]),
    "a length of 1 GiB": says_and_stays(head("200 OK", "Content-Length: 1073741824")),
    "gzip of nothing": says(whole("200 OK", b"\x1f\x8b\x08" + bytes(9), "Content-Encoding: gzip")),
    "a gzip bomb": says(whole("200 OK", gzip.compress(bytes(200 * _MIB), 9), "Content-Encoding: gzip")),
    "garbage": says(bytes(range(256))),
    "a web page": says(whole("200 OK", b"<html>log in</html>")),
    "an empty body": says(whole("200 OK", b"")),
    "Latin-1": says(whole("200 OK", b'{"name": "caf\xe9"}')),
    "a list": says(whole("200 OK", b"[1, 2]")),
    "a number": says(whole("200 OK", b"1e400")),
    "null": says(whole("200 OK", b"null")),
    "an empty object": says(whole("200 OK", b"{}")),
    "nested brackets": says(whole("200 OK", b"[" * 100_000)),
    "a lone surrogate": says(whole("200 OK", b'{"name": "\\ud800", "error": "\\udfff"}')),
    "wrong types": says(
        whole(
            "200 OK",
            b'{"name": 3, "versions": 4, "inputs": 5, "outputs": {"a": []}, "model_stats": "x", "max_batch_size": "y"}',
        )
    ),
    "wrong types inside": says(
        whole("200 OK", b'{"inputs": [null], "outputs": [7], "model_stats": [null], "instance_group": 3}')
    ),
    "axes of 10^9": says(
        whole(
            "200 OK",
            b'{"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1000000000, 1000000000]}], "outputs": []}',
        )
    ),
    "status 500": says(whole("500 Internal Server Error", b'{"error": "played"}')),
    "an error of 1 MiB": says(whole("500 Oops", b'{"error": "' + b"x" * _MIB + b'"}')),
    "a page with status 404": says(whole("404 Not Found", b"<html>nobody\nis\nhere</html>")),
    "asks who you are": says(whole("401 Unauthorized", b"")),
    "a redirect": says(whole("302 Found", b"", "Location: http://127.0.0.1:9/x")),
    "a redirect to itself": says(whole("307 Temporary Redirect", b"", "Location: /v2")),
}

ROWS = tuple(
    Fault(name, protocol, play, outcomes)
    for protocol, rows in ((Protocol.HTTP, _http_rows()), (Protocol.GRPC, _grpc_rows()))
    for name, play, outcomes in rows
)
