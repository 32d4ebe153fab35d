"""What a server says beside its answers is read within a time and a size, and in its form, or refused."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import TargetError, Unreachable
from bench.core.target import Target, target_of
from bench.server import reader
from bench.server.control import Snapshot, Triton
from bench.server.reader import Answer, Reader

URL = "http://h:1/v2/x"
READERS: dict[str, Callable[[Answer, str], Any]] = {
    "object": reader.read_object,
    "index": reader.read_index,
    "metadata": reader.read_metadata,
    "config": reader.read_config,
    "statistics": reader.read_statistics,
}
WRONG = {
    "a gateway's page": ("object", b"<html>", "no JSON"),
    "a list": ("object", b"[]", "no JSON object"),
    "Latin-1": ("config", '{"name": "é"}'.encode("latin-1"), "config.pbtxt as UTF-8"),
    "nesting": ("object", b"[" * 100_000, "no JSON"),
    "NaN": ("statistics", b'{"model_stats": [{"inference_count": NaN}]}', "no JSON"),
    "a number of 5000 digits": ("object", b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    "an index that is none": ("index", b'{"models": 3}', "the index is .* and no list"),
    "a model without a name": ("index", b'[{"name": 3}]', "a name is 3, and no text"),
    "no inputs": ("metadata", b'{"name": "m"}', "inputs is missing, and no list"),
    "a shape of words": (
        "metadata", b'{"name": "m", "inputs": [{"name": "y", "datatype": "FP32", "shape": ["a"]}]}',
        "the shape of 'y'",
    ),
    "a batch of a million million": ("config", b'{"max_batch_size": 1000000000000}', "max_batch_size"),
    "instances that are a word": ("config", b'{"instance_group": "two"}', "instance_group"),
    "a count that is true": ("config", b'{"instance_group": [{"count": true}]}', "count is true"),
    "parameters that are a list": ("config", b'{"parameters": [1]}', "parameters"),
    "negative counters": ("statistics", b'{"model_stats": [{"execution_count": -1}]}', "count is -1"),
    "statistics that are a word": ("statistics", b'{"model_stats": "many"}', "model_stats"),
    "a duration that is a word": (
        "statistics", b'{"model_stats": [{"inference_stats": {"queue": "long"}}]}', "inference_stats queue",
    ),
    "a batch without a size": ("statistics", b'{"model_stats": [{"batch_stats": [{}]}]}', "size is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "says"), WRONG.values(), ids=list(WRONG))
def test_what_is_unfit_is_told_in_a_sentence(kind: str, body: bytes, says: str) -> None:
    with pytest.raises(TargetError, match=says) as raised:
        READERS[kind](Answer(200, body), URL)
    assert URL in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["name", "inputs", "outputs", "shape", "model_stats", "inference_stats", "batch_stats", "batch_size",
         "queue", "count", "ns", "instance_group", "parameters", "max_batch_size", "input", "dims"]
    ), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
@given(body=json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_any_answer_is_read_or_refused(read: Callable[[Answer, str], Any], body: bytes) -> None:
    with suppress(TargetError):
        found = read(Answer(200, body), URL)
        if read is reader.read_statistics:
            Snapshot(1, found) - Snapshot(0, {})


@contextmanager
def playing(*parts: bytes, endless: bytes = b"", every_s: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that plays this to each request, and goes on with `endless`: its address, its requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    asked: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listening.accept()
                with sock, suppress(OSError):
                    sock.settimeout(5)
                    asked.append(sock.recv(1 << 16))
                    sock.sendall(b"".join(parts))
                    while endless and not over.wait(every_s):
                        sock.sendall(endless)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(6)


OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "a head that drips": (b"HTTP/1.1 200 OK\r\nA: ", b"x"),
    "a body that drips": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "a body without an end that drips": (OK + b"\r\n{", b" "),
    "nothing at all": (b"", b""),
}


@pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=list(DRIPS))
def test_the_time_is_of_the_whole_call(start: bytes, drop: bytes) -> None:
    with playing(start, endless=drop or b"", every_s=0.02) as (url, _):
        control = Reader(Target(url))
        began = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s|closed the connection"):
            control.ask(f"{url}/v2", 0.2)
        assert time.monotonic() - began < 5
        control.close()


SIZES = {
    "a body without an end": (OK + b"\r\n", b" " * 65536),
    "a length of 1 GiB": (OK + b"Content-Length: 1073741824\r\n\r\n", b" " * 65536),
    "chunks without an end": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"8000\r\n" + b" " * 32768 + b"\r\n",
    ),
}


@pytest.mark.parametrize(("start", "more"), SIZES.values(), ids=list(SIZES))
def test_the_size_is_bounded(start: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 1 << 20)
    with playing(start, endless=more) as (url, _):
        triton = Triton(Target(url, metrics_url=f"{url}/metrics"))
        with pytest.raises(Unreachable, match="over 1048576 bytes"):
            triton.server()
        assert triton.metrics() == ""
        assert not triton.live()
        triton.close()


def test_a_redirect_is_not_followed_and_is_no_health() -> None:
    with playing(OK + b"Content-Length: 2\r\n\r\n{}") as (elsewhere, asked):
        moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}/v2\r\nContent-Length: 0\r\n\r\n".encode()
        with playing(moved) as (url, _):
            triton = Triton(Target(url, headers=(("X-Api-Key", "s3cret"),), metrics_url=f"{url}/metrics"))
            with pytest.raises(TargetError, match="redirect"):
                triton.server()
            assert not triton.live()
            assert triton.metrics() == ""
            triton.close()
    assert asked == [], "nobody asked the other host"


def test_neither_netrc_nor_a_proxy_of_the_environment_has_a_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with playing(OK + b"Content-Length: 2\r\n\r\n{}") as (url, asked):
        triton = Triton(target_of(url.replace("http://", "http://me:pa%20ss@"), None, None))
        assert triton.server() == {}
        triton.close()
    (request,) = asked
    assert b"Authorization: Basic bWU6cGEgc3M=\r\n" in request
    assert b"s3cret" not in request


def test_a_proxy_that_was_asked_for_is_asked_for_the_way() -> None:
    with playing(b"HTTP/1.1 407 Who are you\r\n\r\n") as (proxy, asked):
        triton = Triton(target_of("http://h.invalid:8000", None, None, proxy=proxy.replace("//", "//me:pw@")))
        with pytest.raises(Unreachable, match=r"the proxy of --proxy refused: HTTP/1\.1 407"):
            triton.server()
        triton.close()
    (request,) = asked
    assert request.startswith(b"CONNECT h.invalid:8000 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cHc=\r\n" in request
