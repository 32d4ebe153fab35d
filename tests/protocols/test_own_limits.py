"""What this machine or process has no more of is told apart from what a server refuses."""

from __future__ import annotations

import errno
import resource
from typing import Any

import gevent.socket
import pytest

from bench.core.samples import Outcome
from bench.protocols.http1 import HttpConnection
from tests.support.http_peer import free_port


def test_a_process_without_open_files_does_not_blame_the_server() -> None:
    connection = HttpConnection(f"http://127.0.0.1:{free_port()}", timeout_s=1)
    refused = connection.exchange(b"request").outcome
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        reply = connection.exchange(b"request")
        told = (reply.outcome, reply.error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told == (Outcome.CLIENT, "too many open files")
    assert refused == Outcome.CONNECTION


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OSError(errno.ENOBUFS, "No buffer space available"), Outcome.CLIENT),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), Outcome.CLIENT),
        (OSError(errno.ENFILE, "Too many open files in system"), Outcome.CLIENT),
        (MemoryError(), Outcome.CLIENT),
        (OSError(errno.ECONNREFUSED, "Connection refused"), Outcome.CONNECTION),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Outcome.CONNECTION),
    ],
)
def test_each_error_of_connecting_is_somebodys(
    monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: Outcome
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(gevent.socket, "create_connection", fails)
    reply = HttpConnection("http://h:1", timeout_s=1).exchange(b"request")
    assert (reply.outcome, bool(reply.error)) == (outcome, True)
