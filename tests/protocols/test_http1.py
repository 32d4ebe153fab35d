"""An answer is read as HTTP/1.1 says, or the exchange fails in a way that is told; nothing is raised."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.samples import Outcome
from bench.protocols.connection import BrokenAnswer, Reply
from bench.protocols.http1 import HttpConnection, error_message, parse_head
from tests.support.http_peer import ScriptedSocket, cut, free_port, peer, reset, self_signed

REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
GOOD = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
)


def over_wire(data: bytes, at: list[int] | None = None, **given: Any) -> Reply:
    connection = HttpConnection("http://h", timeout_s=1, **given)
    connection._socket = ScriptedSocket(cut(data, at or []))  # type: ignore[assignment]  # a stand-in
    return connection.exchange(REQUEST)


def answering(data: bytes, **given: Any) -> Callable[[Any], None]:
    """A server's script: read a request, answer, over and over."""

    def script(sock: Any) -> None:
        while sock.recv(1 << 16):
            sock.sendall(data)
            if given.get("close"):
                return

    return script


OK = b"HTTP/1.1 200 OK\r\n"
INFORMATIONAL = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n"
ANSWERS = {
    "a length says where the body ends": (GOOD, b"hello"),
    "chunks are joined, extensions and trailers dropped": (CHUNKED, b"hello"),
    "informational answers are skipped": (INFORMATIONAL + GOOD, b"hello"),
    "without a length the body ends with the connection": (OK + b"\r\nhello", b"hello"),
    "an empty body is a body": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "a reason is not needed": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "204 has no body": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
}


@pytest.mark.parametrize(("data", "body"), ANSWERS.values(), ids=list(ANSWERS))
@given(at=st.lists(st.integers(0, 500), max_size=6))
@settings(max_examples=25, deadline=None)
def test_however_it_is_cut(data: bytes, body: bytes, at: list[int]) -> None:
    reply = over_wire(data, at)
    assert (reply.outcome, bytes(reply.body), reply.error) == (Outcome.OK, body, "")


IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {
    "no answer": (b"", "closed the connection without an answer"),
    "an end within the head": (GOOD[:20], "closed the connection within an answer"),
    "an end within the body": (GOOD[:-1], "closed the connection within an answer"),
    "an end within a chunk": (CHUNKED[:-20], "closed the connection within an answer"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP/1.1 answer"),
    "HTTP/2": (b"HTTP/2 200\r\n\r\n", "no HTTP/1.1 answer"),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "content-length"),
    "a negative length": (OK + b"Content-Length: -5\r\n\r\nhello", "content-length"),
    "a length and chunks": (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
    "compressed chunks": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "unknown transfer"),
    "a folded line": (OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n", "broken header line"),
    "a space before the colon": (OK + b"Content-Length : 0\r\n\r\n", "broken header line"),
    "a chunk size that is none": (IN_CHUNKS + b"-1\r\n", "broken chunk"),
    "a chunk longer than it says": (IN_CHUNKS + b"1\r\nhe\r\n0\r\n\r\n", "longer"),
    "a head without an end": (OK + b"A: b\r\n" * 20_000, "head of over"),
    "an endless chunk header": (IN_CHUNKS + b"1" * 9000, "without an end"),
}


@pytest.mark.parametrize(("data", "told"), BROKEN.values(), ids=list(BROKEN))
def test_broken_answers_are_connection_failures(data: bytes, told: str) -> None:
    reply = over_wire(data)
    assert reply.outcome == Outcome.CONNECTION
    assert told in reply.error
    assert not reply.body


def test_an_answer_over_the_cap_is_refused_however_it_is_framed() -> None:
    big = b"x" * 200_000
    framings = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + big,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n" + big + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + big,
    ]
    for data in framings:
        reply = over_wire(data, max_body_bytes=1000)
        assert (reply.outcome, "over 1000 bytes" in reply.error) == (Outcome.CONNECTION, True)
        assert over_wire(data).outcome == Outcome.OK


HEADS = st.lists(
    st.sampled_from(
        [
            (b"Content-Length", b"5"),
            (b"content-length", b"7"),
            (b"Connection", b"close"),
            (b"Connection", b"keep-alive, x"),
            (b"X-Any", b"a, b;c"),
            (b"Transfer-Encoding", b"chunked"),
        ]
    ),
    max_size=4,
)


@given(version=st.sampled_from([b"1.0", b"1.1"]), status=st.sampled_from([200, 400, 503]), fields=HEADS)
@settings(deadline=None)
def test_heads_are_read_as_llhttp_reads_them(
    version: bytes, status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    data = b"HTTP/%s %d Reason" % (version, status) + b"".join(b"\r\n%s: %s" % pair for pair in fields)

    class Seen:
        complete = False
        alive = True

        def on_headers_complete(self) -> None:
            self.complete = True
            self.alive = parser.should_keep_alive()

    seen = Seen()
    parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(data + b"\r\n\r\n")
    except httptools.HttpParserError:
        seen.complete = False
    try:
        head = parse_head(data)
    except BrokenAnswer:
        # Stricter in what could be read in two ways, never laxer.
        assert not seen.complete or [name for name, _ in fields].count(b"Transfer-Encoding") > 1
        return
    assert seen.complete
    assert head.status == parser.get_status_code()
    # Two answers to whether the connection stays are an end here.
    assert seen.alive or not head.keep_alive or (head.length is None and not head.chunked)


def test_triton_s_own_message_is_kept() -> None:
    told = b'{"error":"unexpected shape"}'
    reply = over_wire(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told))
    assert (reply.outcome, reply.error) == (Outcome.SERVER_ERROR, "unexpected shape (HTTP 400)")


MESSAGES = {
    "text that is no JSON is kept": (b"upstream connect error", "upstream connect error (HTTP 503)"),
    "no text: the status alone": (b"", "HTTP 503"),
    "JSON of another shape is kept as text": (b"[1]", "[1] (HTTP 503)"),
    "bytes that are no text harm nothing": (b"\xff\xfe", "\ufffd\ufffd (HTTP 503)"),
}


@pytest.mark.parametrize(("body", "told"), MESSAGES.values(), ids=list(MESSAGES))
def test_error_messages(body: bytes, told: str) -> None:
    assert error_message(503, body) == told


def test_one_connection_serves_many_exchanges() -> None:
    with peer(answering(GOOD), lambda sock: sock.close()) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        replies = [
            (r.outcome, bytes(r.body), r.head_length) for r in map(connection.exchange, [REQUEST] * 20)
        ]
        connection.close()
    assert replies == [(Outcome.OK, b"hello", 3)] * 20


def test_times_are_in_order() -> None:
    with peer(answering(GOOD)) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        before = time.monotonic_ns()
        reply = connection.exchange(REQUEST)
        assert before <= reply.sent_ns < reply.done_ns <= time.monotonic_ns()
        connection.close()


CLOSING = {
    "says close": answering(GOOD.replace(b"\r\nContent", b"\r\nConnection: close\r\nContent"), close=True),
    "says nothing and closes": answering(GOOD, close=True),
    "speaks HTTP/1.0": answering(GOOD.replace(b"1.1", b"1.0"), close=True),
    "sends more than it said": answering(GOOD + b"more"),
}


@pytest.mark.parametrize("script", CLOSING.values(), ids=list(CLOSING))
def test_a_connection_that_cannot_go_on_is_replaced_before_the_next_request(
    script: Callable[[Any], None],
) -> None:
    with peer(script) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        for _ in range(3):
            reply = connection.exchange(REQUEST)
            assert (reply.outcome, bytes(reply.body)) == (Outcome.OK, b"hello")
            gevent.sleep(0.01)  # the close arrives between exchanges
        connection.close()


def test_after_any_failure_the_next_exchange_connects_again() -> None:
    def broken(sock: Any) -> None:
        sock.recv(1 << 16)
        reset(sock)

    with peer(broken, answering(GOOD)) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        assert connection.exchange(REQUEST).outcome == Outcome.CONNECTION
        assert connection.exchange(REQUEST).outcome == Outcome.OK
        connection.close()


def test_nobody_listens() -> None:
    connection = HttpConnection(f"http://127.0.0.1:{free_port()}", timeout_s=5)
    assert connection.connect() == "connection refused"
    reply = connection.exchange(REQUEST)
    assert (reply.outcome, reply.error) == (Outcome.CONNECTION, "connection refused")


def test_an_unknown_host_is_a_failed_request() -> None:
    reply = HttpConnection("http://no-such-host.invalid", timeout_s=5).exchange(REQUEST)
    assert reply.outcome == Outcome.CONNECTION


def trickle(sock: Any) -> None:
    sock.recv(1 << 16)
    for byte in GOOD:
        sock.sendall(bytes([byte]))
        gevent.sleep(0.05)


SLOW = {"no answer": lambda _: gevent.sleep(5), "a trickle, each byte in time": trickle}


@pytest.mark.parametrize("script", SLOW.values(), ids=list(SLOW))
def test_the_timeout_is_of_the_whole_exchange(script: Callable[[Any], None]) -> None:
    with peer(script) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=0.2)
        reply = connection.exchange(REQUEST)
    assert (reply.outcome, reply.error) == (Outcome.TIMEOUT, "no answer within 0.2 s")
    assert 0.19e9 < reply.done_ns - reply.sent_ns < 2e9


def test_a_connection_older_than_its_timeout_still_works() -> None:
    with peer(answering(GOOD)) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=0.1)
        for _ in range(4):
            assert connection.exchange(REQUEST).outcome == Outcome.OK
            gevent.sleep(0.06)
        connection.close()


def test_bodies_larger_than_the_socket_s_buffers_go_both_ways() -> None:
    size = 19 << 20

    def script(sock: Any) -> None:
        for _ in range(2):
            left = size
            while left:
                received = len(sock.recv(1 << 20))
                if not received:
                    return  # the impatient client is gone
                left -= received
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    with peer(script) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=20)
        for _ in range(2):
            reply = connection.exchange(bytes(size))
            assert (reply.outcome, len(reply.body)) == (Outcome.OK, size)
        connection.close()


def test_an_answer_before_the_request_is_sent_whole_is_taken_and_the_connection_given_up() -> None:
    refusal = b'HTTP/1.1 413 Too Large\r\nContent-Length: 19\r\n\r\n{"error":"too big"}'

    def keeps_open(sock: Any) -> None:
        sock.recv(1000)
        sock.sendall(refusal)
        gevent.sleep(5)

    def closes(sock: Any) -> None:
        sock.recv(1000)
        sock.sendall(refusal)

    for script in (keeps_open, closes):
        with peer(script, answering(GOOD)) as address:
            connection = HttpConnection(f"http://{address}", timeout_s=5)
            reply = connection.exchange(bytes(30 << 20))
            assert (reply.outcome, reply.error) == (Outcome.SERVER_ERROR, "too big (HTTP 413)")
            assert connection.exchange(REQUEST).outcome == Outcome.OK
            connection.close()


def test_informational_answers_while_sending_do_not_stop_it() -> None:
    size = 30 << 20

    def script(sock: Any) -> None:
        left = size - len(sock.recv(1000))
        sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        while left:
            left -= len(sock.recv(1 << 20))
        sock.sendall(GOOD)

    with peer(script) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=20)
        assert connection.exchange(bytes(size)).outcome == Outcome.OK
        connection.close()


def test_a_killed_user_leaves_no_half_answer_behind() -> None:
    def script(sock: Any) -> None:
        sock.recv(1 << 16)
        sock.sendall(GOOD[:-1])
        gevent.sleep(5)

    with peer(script, answering(GOOD)) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        user = gevent.spawn(connection.exchange, REQUEST)
        gevent.sleep(0.05)
        user.kill()
        reply = connection.exchange(REQUEST)
        assert (reply.outcome, bytes(reply.body)) == (Outcome.OK, b"hello")
        connection.close()


def test_an_idle_connection_that_was_closed_does_not_keep_the_loop_busy() -> None:
    with peer(answering(GOOD, close=True)) as address:
        connection = HttpConnection(f"http://{address}", timeout_s=5)
        connection.exchange(REQUEST)
        before = time.process_time()
        gevent.sleep(0.3)
        assert time.process_time() - before < 0.15
        connection.close()


def test_over_tls_the_same_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    size = 3 << 20

    def script(sock: Any) -> None:
        for _ in range(2):
            left = size
            while left:
                received = len(sock.recv(1 << 20))
                if not received:
                    return  # the impatient client is gone
                left -= received
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        gevent.sleep(5)

    with peer(script, keyfile=str(key), certfile=str(certificate)) as address:
        connection = HttpConnection(f"https://{address}", timeout_s=3)
        for _ in range(2):
            reply = connection.exchange(bytes(size))
            assert (reply.outcome, len(reply.body), reply.error) == (Outcome.OK, size, "")
        connection.close()
        impatient = HttpConnection(f"https://{address}", timeout_s=0.2)
        assert impatient.exchange(REQUEST).outcome == Outcome.TIMEOUT


def test_a_certificate_nobody_vouches_for_is_a_failed_request(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    with peer(answering(GOOD), keyfile=str(key), certfile=str(certificate)) as address:
        reply = HttpConnection(f"https://{address}", timeout_s=3).exchange(REQUEST)
    assert reply.outcome == Outcome.CONNECTION
    assert "certificate" in reply.error
