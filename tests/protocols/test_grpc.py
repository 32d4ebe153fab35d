"""A unary call over HTTP/2 ends as grpcio would end it, whatever order and size frames come in."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import gevent
import grpc
import hpack
import pytest
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import WrongUse
from bench.core.samples import Outcome
from bench.protocols import http2 as h2
from bench.protocols.connection import BrokenAnswer, Reply
from bench.protocols.grpc import GrpcConnection
from bench.protocols.http2 import FrameReceiver
from tests.support.grpcio_client import GrpcioConnection
from tests.support.http_peer import ScriptedSocket, cut, free_port, peer, reset

HELLO = h2.settings([(h2.MAX_FRAME_SIZE, 1 << 14)])


def block(*pairs: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    encoded: bytes = encoder.encode(pairs)
    return encoded


OK = block((":status", "200"), ("content-type", "application/grpc"))
DONE = block(("grpc-status", "0"))
ENDS = h2.END_HEADERS | h2.END_STREAM


def prefixed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def headers(data: bytes, flags: int = h2.END_HEADERS, stream: int = 1) -> bytes:
    return h2.frame(h2.HEADERS, flags, stream, data)


def data(payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return h2.frame(h2.DATA, flags, stream, payload)


def answer(message: bytes, stream: int = 1) -> bytes:
    return headers(OK, stream=stream) + data(prefixed(message), stream=stream) + headers(DONE, ENDS, stream)


def status_alone(*pairs: tuple[str, str], http: str = "200") -> bytes:
    return headers(block((":status", http), *pairs), ENDS)


def over_wire(sent: bytes, at: list[int] | None = None, takes: int = 1 << 30, **given: Any) -> Reply:
    connection = GrpcConnection("h:1", timeout_s=1, **given)
    connection._socket = ScriptedSocket(cut(HELLO + sent, at or []), takes)  # type: ignore[assignment]  # a stand-in
    return connection.exchange(b"request")


PING = h2.frame(h2.PING, 0, 0, b"12345678")
BAD_SHAPE = status_alone(("grpc-status", "3"), ("grpc-message", "bad%20shape%3A %C3%A9"))
CALLS = {
    "headers, message, trailers": (answer(b"hello"), Outcome.OK, b"hello", ""),
    "an empty message": (answer(b""), Outcome.OK, b"", ""),
    "a message over several frames, its prefix cut": (
        headers(OK) + data(prefixed(b"hello")[:3]) + PING + data(prefixed(b"hello")[3:7]) + data(b"")
        + h2.window_update(1, 5) + data(b"llo") + headers(DONE, ENDS),
        Outcome.OK, b"hello", "",
    ),
    "padding and priority are dropped": (
        headers(b"\x02" + bytes(5) + OK + b"..", h2.END_HEADERS | h2.PADDED | h2.PRIORITY)
        + data(b"\x04" + prefixed(b"hello") + b"....", h2.PADDED) + headers(DONE, ENDS),
        Outcome.OK, b"hello", "",
    ),
    "headers over continuations": (
        headers(OK[:3], 0) + h2.frame(h2.CONTINUATION, 0, 1, OK[3:5])
        + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, OK[5:]) + data(prefixed(b"hello"))
        + headers(DONE[:2], h2.END_STREAM) + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, DONE[2:]),
        Outcome.OK, b"hello", "",
    ),
    "informational headers are skipped": (
        headers(block((":status", "103"))) + answer(b"hello"), Outcome.OK, b"hello", "",
    ),
    "frames of other streams and unknown kinds are ignored": (
        answer(b"other", stream=9) + h2.frame(0xFA, 0, 0, b"?") + answer(b"hello"), Outcome.OK, b"hello", "",
    ),
    "a reset after the end changes nothing": (
        answer(b"hello") + h2.frame(h2.RST_STREAM, 0, 1, bytes(4)), Outcome.OK, b"hello", "",
    ),
    "going away after this call": (
        h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", 1, 0)) + answer(b"hello"), Outcome.OK, b"hello", "",
    ),
    "an error in trailers alone, its message percent-encoded": (
        BAD_SHAPE, Outcome.SERVER_ERROR, b"", "bad shape: é (INVALID_ARGUMENT)",
    ),
    "an error after headers": (
        headers(OK) + headers(block(("grpc-status", "13")), ENDS), Outcome.SERVER_ERROR, b"", "INTERNAL",
    ),
    "unavailable is the server's word": (
        status_alone(("grpc-status", "14")), Outcome.SERVER_ERROR, b"", "UNAVAILABLE",
    ),
    "the server's deadline is a timeout": (
        status_alone(("grpc-status", "4")), Outcome.TIMEOUT, b"", "DEADLINE_EXCEEDED",
    ),
    "a status nobody knows": (status_alone(("grpc-status", "99")), Outcome.SERVER_ERROR, b"", "99"),
    "a proxy that is no gRPC server": (
        status_alone(http="503"), Outcome.SERVER_ERROR, b"", "HTTP 503, which no gRPC server answers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "outcome", "body", "error"), CALLS.values(), ids=list(CALLS))
@given(at=st.lists(st.integers(0, 500), max_size=6), takes=st.sampled_from([1, 7, 1 << 30]))
@settings(max_examples=25, deadline=None)
def test_however_it_is_cut(
    sent: bytes, outcome: Outcome, body: bytes, error: str, at: list[int], takes: int
) -> None:
    reply = over_wire(sent, at, takes)
    assert (reply.outcome, bytes(reply.body), reply.error) == (outcome, body, error)


BROKEN = {
    "no answer": (b"", "closed the connection"),
    "an end within the answer": (answer(b"hello")[:-1], "closed the connection"),
    "no status": (headers(OK) + data(prefixed(b"hello"), h2.END_STREAM), "without a gRPC status"),
    "no message": (headers(OK) + headers(DONE, ENDS), "without a message"),
    "half a message": (headers(OK) + data(prefixed(b"hello")[:-1]) + headers(DONE, ENDS), "another length"),
    "two messages": (headers(OK) + data(prefixed(b"a") * 2) + headers(DONE, ENDS), "another length"),
    "compressed": (headers(OK) + data(b"\1" + bytes(4)) + headers(DONE, ENDS), "compressed"),
    "reset": (h2.frame(h2.RST_STREAM, 0, 1, struct.pack(">I", 7)), "reset the stream: REFUSED_STREAM"),
    "going away before this call": (
        h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings"),
        "going away: ENHANCE_YOUR_CALM too_many_pings",
    ),
    "headers that are no HPACK": (headers(b"\xff\xff\xff\xff\xff\xff"), "broken HTTP/2 headers"),
    "headers interrupted": (headers(OK, 0) + data(b"x"), "headers without an end"),
    "a continuation of nothing": (h2.frame(h2.CONTINUATION, 4, 1, OK), "continuation of nothing"),
    "endless headers": (headers(b"x" * 70_000, 0), "headers of over"),
    "padding larger than the frame": (data(b"\x09abc", h2.PADDED), "more padding"),
    "a pushed stream": (h2.frame(h2.PUSH_PROMISE, 4, 1, bytes(4) + OK), "pushed"),
    "settings of no known form": (h2.frame(h2.SETTINGS, 0, 0, bytes(5)), "broken HTTP/2 settings"),
}


@pytest.mark.parametrize(("sent", "told"), BROKEN.values(), ids=list(BROKEN))
def test_broken_answers_are_connection_failures(sent: bytes, told: str) -> None:
    reply = over_wire(sent)
    assert (reply.outcome, bytes(reply.body)) == (Outcome.CONNECTION, b"")
    assert told in reply.error


@given(garbage=st.binary(max_size=300), at=st.lists(st.integers(0, 300), max_size=3))
@settings(deadline=None)
def test_garbage_breaks_an_answer_and_nothing_else(garbage: bytes, at: list[int]) -> None:
    inbox = FrameReceiver(1 << 20)
    inbox.open_stream()
    try:
        for piece in cut(HELLO + garbage, at):
            inbox.space()[: len(piece)] = piece
            inbox.filled(len(piece))
    except BrokenAnswer:
        pass


def test_an_answer_over_the_cap_is_refused() -> None:
    reply = over_wire(answer(bytes(300_000)), max_body_bytes=1000)
    assert (reply.outcome, "over 1000 bytes" in reply.error) == (Outcome.CONNECTION, True)


def test_pings_and_settings_are_acknowledged_between_frames() -> None:
    connection = GrpcConnection("h:1", timeout_s=1)
    wire = ScriptedSocket([HELLO + PING + answer(b"hello")])
    connection._socket = wire  # type: ignore[assignment]  # a stand-in
    connection.exchange(b"request")
    acknowledged = h2.frame(h2.SETTINGS, h2.ACK, 0) + h2.frame(h2.PING, h2.ACK, 0, b"12345678")
    assert wire.sent.endswith(acknowledged)


def test_metadata_goes_with_every_call_and_enters_no_table() -> None:
    sent = h2.request_block("h:1", "/s/m", [("Authorization", "Bearer x")])
    decoder = hpack.Decoder()
    decoded = dict(decoder.decode(sent))
    assert decoded[":path"] == "/s/m"
    assert decoded["authorization"] == "Bearer x"
    assert not decoder.header_table.dynamic_entries


def test_metadata_that_would_change_the_call_is_refused() -> None:
    with pytest.raises(WrongUse) as refused:
        GrpcConnection("h:1", timeout_s=1, metadata=(("authorization", "secret\r\nx: y"),))
    assert "secret" not in str(refused.value)


# Against a peer that plays the protocol's harder moves.


def take_frames(sock: Any, until: Callable[[int, int, int], bool]) -> bytes:
    """Reads frames; returns the data of the call when `until` (kind, flags, stream) says so."""
    file = sock.makefile("rb")
    assert file.read(24).startswith(b"PRI")
    received = b""
    while True:
        word, flags, stream = h2.unpack_header(file.read(9))
        payload = file.read(word >> 8)
        if word & 255 == h2.DATA:
            received += payload
        if until(word & 255, flags, stream):
            return received


def ends_stream(kind: int, flags: int, _: int) -> bool:
    return kind == h2.DATA and bool(flags & h2.END_STREAM)


def echo(sock: Any) -> None:
    sock.sendall(HELLO)
    received = take_frames(sock, ends_stream)
    sock.sendall(answer(received[5:]))
    gevent.sleep(1)


@pytest.mark.parametrize("window", [1, 3, 100], ids="a window of {} bytes".format)
def test_the_server_s_windows_are_respected(window: int) -> None:
    def script(sock: Any) -> None:
        sock.sendall(h2.settings([(h2.INITIAL_WINDOW_SIZE, window)]))
        seen = 0

        def update(kind: int, flags: int, stream: int) -> bool:
            nonlocal seen
            if kind == h2.DATA:
                seen += 1
                sock.sendall(h2.window_update(stream, window))
            return ends_stream(kind, flags, stream)

        received = take_frames(sock, update)
        assert seen == -(-len(received) // window)
        sock.sendall(answer(received[5:]))
        gevent.sleep(1)

    with peer(script) as address:
        connection = GrpcConnection(address, timeout_s=5)
        reply = connection.exchange(b"a message of some length")
        assert (reply.outcome, bytes(reply.body), reply.error) == (
            Outcome.OK,
            b"a message of some length",
            "",
        )
        connection.close()


def test_settings_may_shrink_the_windows_below_zero() -> None:
    def script(sock: Any) -> None:
        sock.sendall(h2.settings([(h2.INITIAL_WINDOW_SIZE, 10)]))
        shrunk = False

        def shrink(kind: int, flags: int, stream: int) -> bool:
            nonlocal shrunk
            if kind == h2.DATA and not shrunk:
                shrunk = True
                sock.sendall(h2.settings([(h2.INITIAL_WINDOW_SIZE, 0)]) + h2.window_update(1, 100))
            return ends_stream(kind, flags, stream)

        sock.sendall(answer(take_frames(sock, shrink)[5:]))
        gevent.sleep(1)

    with peer(script) as address:
        connection = GrpcConnection(address, timeout_s=5)
        assert bytes(connection.exchange(bytes(50)).body) == bytes(50)
        connection.close()


def test_going_away_means_a_new_connection_for_the_next_call() -> None:
    def leaves(sock: Any) -> None:
        sock.sendall(HELLO)
        take_frames(sock, ends_stream)
        sock.sendall(answer(b"first") + h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", 1, 0)))
        gevent.sleep(1)

    with peer(leaves, echo) as address:
        connection = GrpcConnection(address, timeout_s=5)
        assert bytes(connection.exchange(b"x").body) == b"first"
        assert bytes(connection.exchange(b"y").body) == b"y"
        connection.close()


def speaks_http1(sock: Any) -> None:
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def resets(sock: Any) -> None:
    sock.sendall(HELLO)
    sock.recv(9)
    reset(sock)


FAILING = {
    "refuses to speak HTTP/2": (speaks_http1, "speaks no HTTP/2"),
    "closes at once": (lambda sock: sock.close(), "connection"),
    "resets the connection": (resets, "connection"),
}


@pytest.mark.parametrize(("script", "told"), FAILING.values(), ids=list(FAILING))
def test_after_any_failure_the_next_call_connects_again(script: Callable[[Any], Any], told: str) -> None:
    with peer(script, echo) as address:
        connection = GrpcConnection(address, timeout_s=5)
        reply = connection.exchange(b"x")
        assert reply.outcome == Outcome.CONNECTION
        assert told in reply.error
        assert bytes(connection.exchange(b"y").body) == b"y"
        connection.close()


def test_nobody_listens() -> None:
    connection = GrpcConnection(f"127.0.0.1:{free_port()}", timeout_s=5)
    assert connection.connect() == "connection refused"
    assert connection.exchange(b"x").outcome == Outcome.CONNECTION


SILENT = {"before its settings": b"", "after its settings": HELLO}


@pytest.mark.parametrize("said", SILENT.values(), ids=list(SILENT))
def test_silence_is_a_timeout(said: bytes) -> None:
    def script(sock: Any) -> None:
        sock.sendall(said)
        gevent.sleep(5)

    with peer(script) as address:
        reply = GrpcConnection(address, timeout_s=0.2).exchange(b"x")
    assert (reply.outcome, reply.error) == (Outcome.TIMEOUT, "no answer within 0.2 s")
    assert 0.19e9 < reply.done_ns - reply.sent_ns < 2e9


def test_an_answer_before_the_message_is_sent_whole_is_taken_and_the_connection_given_up() -> None:
    def refuses(sock: Any) -> None:
        window = 1 << 30
        sock.sendall(h2.settings([(h2.INITIAL_WINDOW_SIZE, window)]) + h2.window_update(0, window))
        take_frames(sock, lambda kind, *_: kind == h2.HEADERS)
        sock.sendall(BAD_SHAPE)
        gevent.sleep(1)

    with peer(refuses, echo) as address:
        connection = GrpcConnection(address, timeout_s=5)
        reply = connection.exchange(bytes(40 << 20))
        assert (reply.outcome, reply.error) == (Outcome.SERVER_ERROR, "bad shape: é (INVALID_ARGUMENT)")
        assert bytes(connection.exchange(b"y").body) == b"y"
        connection.close()


def test_pings_between_calls_are_answered_while_the_user_is_idle() -> None:
    answered = Event()

    def script(sock: Any) -> None:
        sock.sendall(HELLO)
        file = sock.makefile("rb")
        file.read(24)
        while True:
            word, flags, _ = h2.unpack_header(file.read(9))
            payload = file.read(word >> 8)
            if word & 255 == h2.DATA:
                sock.sendall(answer(b"x"))
                gevent.sleep(0.02)
                sock.sendall(PING)
            elif word & 255 == h2.PING and flags == h2.ACK and payload == b"12345678":
                answered.set()

    with peer(script) as address:
        connection = GrpcConnection(address, timeout_s=5)
        reply = connection.exchange(b"x")
        assert answered.wait(2)
        assert bytes(reply.body) == b"x"  # still there
        connection.close()


def test_a_closed_idle_connection_is_replaced_and_does_not_keep_the_loop_busy() -> None:
    def closes(sock: Any) -> None:
        sock.sendall(HELLO)
        take_frames(sock, ends_stream)
        sock.sendall(answer(b"x"))

    with peer(closes, echo) as address:
        connection = GrpcConnection(address, timeout_s=5)
        connection.exchange(b"x")
        before = time.process_time()
        gevent.sleep(0.3)
        assert time.process_time() - before < 0.15
        assert bytes(connection.exchange(b"y").body) == b"y"
        connection.close()


# Against a real gRPC server, with grpcio's own client as the oracle.


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(getattr(self, details.method.rpartition("/")[2]))

    def echo(self, message: bytes, _: Any) -> bytes:
        return message

    def refuse(self, _: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong shape: 100 % é\nsecond line")

    def slow(self, message: bytes, _: Any) -> bytes:
        time.sleep(0.2)
        return message

    def late(self, _: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")

    def metadata(self, _: bytes, context: Any) -> bytes:
        return dict(context.invocation_metadata())["authorization"].encode()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    running = grpc.server(futures.ThreadPoolExecutor(24), options=options)
    running.add_generic_rpc_handlers([Service()])
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}"
    running.stop(0).wait()


METADATA = (("authorization", "Bearer secret"),)


@pytest.mark.parametrize("method", ["echo", "refuse", "late", "metadata", "unknown"])
@pytest.mark.parametrize("size", [0, 64, 602_112, 19 << 20])
def test_calls_end_as_with_grpcio(server: str, method: str, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    ours = GrpcConnection(server, method=f"/s/{method}", timeout_s=20, metadata=METADATA)
    theirs = GrpcioConnection(server, method=f"/s/{method}", timeout_s=20, metadata=METADATA)
    for _ in range(2):
        mine, oracle = ours.exchange(message), theirs.exchange(message)
        assert (mine.outcome, mine.error) == (oracle.outcome, oracle.error)
        assert mine.body == oracle.body
    ours.close()
    theirs.close()


def test_many_calls_on_one_connection(server: str) -> None:
    connection = GrpcConnection(server, method="/s/echo", timeout_s=20)
    for number in range(300):
        message = b"%d" % number * (number * 100)
        assert connection.exchange(message).body == message
    connection.close()


def test_grpcio_tells_a_failed_connection_from_a_server_s_word() -> None:
    reply = GrpcioConnection(f"127.0.0.1:{free_port()}", timeout_s=5).exchange(b"x")
    assert reply.outcome == Outcome.CONNECTION
