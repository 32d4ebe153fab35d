"""Triton's control side: counters as differences, failures as sentences."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from bench.core.errors import ModelLoadFailed, TargetError, Unreachable
from bench.core.target import Target
from bench.server.control import Snapshot, Triton


def stats(n: int, ns: int, **batches: int) -> dict[str, Any]:
    duration = {"count": n, "ns": ns}
    return {
        "inference_count": 8 * n,
        "execution_count": n,
        "inference_stats": {
            "success": duration,
            "fail": {"count": 1, "ns": 1},
            "queue": duration,
            "compute_input": duration,
            "compute_infer": duration,
            "compute_output": duration,
        },
        "batch_stats": [
            {"batch_size": int(size[1:]), "compute_infer": {"count": count, "ns": 10 * count}}
            for size, count in batches.items()
        ],
    }


def test_counters_are_what_was_counted_in_between() -> None:
    counted = Snapshot(2, stats(30, 900, b8=25, b16=5)) - Snapshot(1, stats(10, 400, b8=10))
    assert (counted.success_count, counted.fail_count) == (20, 0)
    assert (counted.inference_count, counted.execution_count) == (160, 20)
    assert counted.success_ns == counted.queue_ns == counted.compute_output_ns == 500
    assert counted.batches == {8: (15, 150), 16: (5, 50)}
    assert counted.executing_ns == 200


def test_a_model_that_has_served_nothing_yet_counts_from_zero() -> None:
    counted = Snapshot(2, stats(3, 30, b1=3)) - Snapshot(1, {})
    assert counted.success_count == 3
    assert counted.batches == {1: (3, 30)}


def test_a_batch_size_that_did_not_occur_is_left_out() -> None:
    assert (Snapshot(2, stats(3, 30, b1=3)) - Snapshot(1, stats(3, 30, b1=3))).batches == {}


class Answers(BaseHTTPRequestHandler):
    """A server that is no Triton, or an unwell one."""

    answers: tuple[int, bytes] = (200, b"")

    def do_GET(self) -> None:
        status, body = self.answers
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Triton]:
    listening = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    triton = Triton(Target(f"http://127.0.0.1:{listening.server_port}"))
    yield triton
    triton.close()
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"<html>", "is it a Triton"),
        (200, b"[]", "is it a Triton"),
        (500, b"oops", "500"),
        (400, b'{"error": "out of memory"}', "out of memory"),
    ],
)
def test_what_answers_but_is_no_triton_is_said(
    server: Triton, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, says: str
) -> None:
    monkeypatch.setattr(Answers, "answers", (status, body))
    with pytest.raises(TargetError, match=says):
        server.server()


def test_a_server_that_loads_nothing_says_which_mode_it_needs(
    server: Triton, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = {"error": "explicit model load / unload is not allowed if polling is enabled"}
    monkeypatch.setattr(Answers, "answers", (400, json.dumps(refusal).encode()))
    with pytest.raises(ModelLoadFailed, match="--model-control-mode=explicit"):
        server.load("m")


def test_nobody_at_the_address_is_unreachable_and_not_live() -> None:
    triton = Triton(Target("http://127.0.0.1:9", metrics_url="http://127.0.0.1:9/metrics"))
    with pytest.raises(Unreachable, match="connection refused"):
        triton.server()
    assert not triton.live()
    assert not triton.ready()
    assert triton.metrics() == ""


def test_a_model_that_never_gets_ready_is_waited_for_no_longer_than_asked(
    server: Triton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "answers", (400, b""))
    with pytest.raises(ModelLoadFailed, match=r"not ready after 0\.1 s"):
        server.wait_until_ready("m", 0.1)
