"""A server that floods, or lies about lengths, costs bounded memory and time, and is told as a failure."""

from __future__ import annotations

import struct
import time
import tracemalloc
from typing import Any

import gevent
import pytest

from bench.core.samples import Outcome
from bench.protocols import http2 as h2
from bench.protocols.answers import MalformedAnswer
from bench.protocols.connection import BrokenAnswer, Reply
from bench.protocols.grpc import GrpcConnection
from bench.protocols.http1 import HttpConnection, parse_answer, parse_head
from bench.protocols.http2 import FrameReceiver
from tests.protocols.test_grpc import (
    DONE,
    ENDS,
    HELLO,
    OK,
    PING,
    answer,
    data,
    echo,
    ends_stream,
    headers,
    over_wire,
    prefixed,
    take_frames,
)  # fmt: skip
from tests.support.http_peer import ScriptedSocket, peer

_LIMIT = 1 << 18  # bytes of an answer, in these tests
# Quadratic work takes minutes for these floods, linear work far below a second: no neighbour makes the
# difference.
_MOST_CPU_S = 10.0
_PONG = h2.frame(h2.PING, h2.ACK, 0, b"12345678")


def test_a_ping_is_acknowledged_while_the_call_runs() -> None:
    """The peer answers the call only when its ping was acknowledged, as a server's keepalive does."""

    def script(sock: Any) -> None:
        def is_acknowledged(kind: int, flags: int, _: int) -> bool:
            if ends_stream(kind, flags, _):
                sock.sendall(PING)
            return kind == h2.PING and bool(flags & h2.ACK)

        sock.sendall(HELLO)
        take_frames(sock, is_acknowledged)
        sock.sendall(answer(b"hello"))
        sock.recv(1)

    with peer(script) as address:
        connection = GrpcConnection(address, timeout_s=5)
        reply = connection.exchange(b"x")
        connection.close()
    assert (reply.outcome, bytes(reply.body)) == (Outcome.OK, b"hello"), reply.error


FLOODS = {
    "pings": PING * 100_000,
    "settings": h2.settings([]) * 100_000,
    "empty continuations": headers(OK, 0) + h2.frame(h2.CONTINUATION, 0, 1) * 100_000,
    "continuations of a byte": headers(OK, 0) + h2.frame(h2.CONTINUATION, 0, 1, b"x") * 100_000,
    "window updates": h2.window_update(0, 1) * 100_000,
    "empty data": headers(OK) + data(b"") * 100_000,
    "data of a byte": headers(OK) + data(b"\0") * 30_000,
    "data of another stream": data(bytes(1000), stream=9) * 5_000,
    "frames of no known kind": h2.frame(0xFA, 0, 0, bytes(1000)) * 5_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=list(FLOODS))
def test_a_flood_takes_linear_time_and_bounded_memory(flood: bytes) -> None:
    connection = GrpcConnection("h:1", timeout_s=1, max_body_bytes=_LIMIT)
    connection._socket = ScriptedSocket([HELLO + flood])  # type: ignore[assignment]  # a stand-in
    began = time.process_time()
    reply = connection.exchange(b"x")
    assert time.process_time() - began < _MOST_CPU_S
    assert reply.outcome == Outcome.CONNECTION, "the stand-in ends, and there was no answer"
    assert len(connection._receiver._buffer) <= 2 * _LIMIT + (1 << 18)


def test_a_server_that_takes_no_acknowledgement_is_given_up() -> None:
    class Deaf(ScriptedSocket):
        def send(self, data: bytes | memoryview) -> int:
            if bytes(data[:4]) == PING[:4]:
                raise BlockingIOError
            return super().send(data)

    connection = GrpcConnection("h:1", timeout_s=1)
    connection._socket = Deaf([HELLO + PING * 100_000])  # type: ignore[assignment]  # a stand-in
    reply = connection.exchange(b"x")
    assert (reply.outcome, reply.error) == (Outcome.CONNECTION, "a flood of HTTP/2 pings or settings")


def test_pongs_are_sent_whole_and_in_order_however_little_is_taken() -> None:
    wire = ScriptedSocket([HELLO, *[PING] * 50, answer(b"hello")], takes=5)
    connection = GrpcConnection("h:1", timeout_s=1)
    connection._socket = wire  # type: ignore[assignment]  # a stand-in
    assert connection.exchange(b"x").outcome == Outcome.OK
    sent = wire.sent + bytes(connection._receiver.pending)
    assert sent.endswith(_PONG * 50)


def test_a_message_in_frames_of_a_byte_is_put_together() -> None:
    message = bytes(range(256)) * 100
    frames = b"".join(data(prefixed(message)[at : at + 1]) for at in range(len(message) + 5))
    reply = over_wire(headers(OK) + frames + headers(DONE, ENDS))
    assert (reply.outcome, bytes(reply.body)) == (Outcome.OK, message)


GRPC_LIES = {
    "a message that says it has 1 GiB": headers(OK) + data(b"\0" + (1 << 30).to_bytes(4, "big")),
    "a frame that says it has 16 MiB": headers(OK) + h2.frame_header(h2.DATA, 0, 1, h2.MOST_FRAME),
    "messages without an end": headers(OK) + data(prefixed(b"")) + data(bytes(16_000)) * 200,
}


@pytest.mark.parametrize("sent", GRPC_LIES.values(), ids=list(GRPC_LIES))
def test_an_answer_over_the_limit_fails_before_its_bytes_come(sent: bytes) -> None:
    reply = over_wire(sent + bytes(10), max_body_bytes=_LIMIT)
    assert (reply.outcome, reply.error) == (Outcome.CONNECTION, _TOO_LARGE)


_TOO_LARGE = f"an answer of over {_LIMIT} bytes: --max-answer allows more"
_BAD_FRAMES = {
    "settings of 16 MiB": h2.frame_header(h2.SETTINGS, 0, 0, h2.MOST_FRAME),
    "a frame size of nothing": h2.settings([(h2.MAX_FRAME_SIZE, 0)]),
    "a window beyond its range": h2.settings([(h2.INITIAL_WINDOW_SIZE, 1 << 31)]),
    "a ping of 9 bytes": h2.frame(h2.PING, 0, 0, bytes(9)),
    "a window update of a byte": h2.frame(h2.WINDOW_UPDATE, 0, 0, b"1"),
}


@pytest.mark.parametrize("sent", _BAD_FRAMES.values(), ids=list(_BAD_FRAMES))
def test_frames_that_http2_does_not_allow_end_the_connection(sent: bytes) -> None:
    receiver = FrameReceiver(_LIMIT)
    receiver.space()[: len(HELLO)] = HELLO
    receiver.filled(len(HELLO))
    receiver.space()[: len(sent)] = sent
    with pytest.raises(BrokenAnswer):
        receiver.filled(len(sent))


def over_http(sent: bytes) -> tuple[Reply, HttpConnection]:
    connection = HttpConnection("http://h", timeout_s=1, max_body_bytes=_LIMIT)
    connection._socket = ScriptedSocket([sent])  # type: ignore[assignment]  # a stand-in
    return connection.exchange(b"x"), connection


HTTP = b"HTTP/1.1 200 OK\r\n"
HTTP_LIES = {
    "a length of 1 GiB": HTTP + b"Content-Length: 1073741824\r\n\r\n",
    "a body without an end": HTTP + b"\r\n" + bytes(2 * _LIMIT),
    "a chunk of 1 GiB": HTTP + b"Transfer-Encoding: chunked\r\n\r\n40000000\r\n",
    "chunks without an end": HTTP + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000,
    "trailers without an end": HTTP + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 100_000,
}


@pytest.mark.parametrize("sent", HTTP_LIES.values(), ids=list(HTTP_LIES))
def test_an_http_answer_over_the_limit_fails_in_bounded_memory(sent: bytes) -> None:
    tracemalloc.start()
    reply, connection = over_http(sent)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (reply.outcome, reply.error) == (Outcome.CONNECTION, _TOO_LARGE)
    assert most < 10 * _LIMIT
    assert connection._socket is None, "dropped"


def test_a_length_is_not_believed_before_bytes_come() -> None:
    connection = HttpConnection("http://h", timeout_s=1, max_body_bytes=1 << 30)
    sent = HTTP + b"Content-Length: 1073741824\r\n\r\n" + bytes(100_000)
    connection._socket = ScriptedSocket([sent])  # type: ignore[assignment]  # a stand-in
    tracemalloc.start()
    reply = connection.exchange(b"x")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (reply.outcome, most < 2 << 20) == (Outcome.CONNECTION, True)


def test_informational_answers_without_an_end_are_no_answer() -> None:
    reply, _ = over_http(b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000)
    assert (reply.outcome, "informational" in reply.error) == (Outcome.CONNECTION, True)


def test_a_header_of_blanks_is_read_in_linear_time() -> None:
    began = time.process_time()
    with pytest.raises(BrokenAnswer):
        parse_head(b"HTTP/1.1 200 OK\r\nX:" + b" " * 60_000 + b"\x01")
    assert time.process_time() - began < _MOST_CPU_S


@pytest.mark.parametrize(
    "described",
    [b"[" * 100_000, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [Infinity]}]}',
     b'{"outputs": [{"name": "", "datatype": "", "shape": [1], "parameters": {"binary_data_size": -4}}]}'],
)  # fmt: skip
def test_json_that_no_triton_sends_is_a_malformed_answer(described: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        parse_answer(memoryview(described), len(described))


def test_a_byte_now_and_then_does_not_outlive_the_timeout() -> None:
    def drip(sock: Any) -> None:
        sock.sendall(HELLO + headers(OK))
        while True:
            gevent.sleep(0.01)
            sock.sendall(data(struct.pack("B", 0)))

    with peer(drip, echo) as address:
        connection = GrpcConnection(address, timeout_s=0.2)
        assert connection.exchange(b"x").outcome == Outcome.TIMEOUT
        assert connection.exchange(b"x").outcome == Outcome.OK, "on another connection"
        connection.close()
