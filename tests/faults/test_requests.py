"""Whatever a server does to a request, it ends as a labelled outcome, in time and in bounded memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from bench.core.cell import Protocol, ServerConfiguration
from bench.core.samples import Outcome
from bench.core.trial import Served
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.request_loop import Session
from bench.loadgen.locust.work_order import WorkOrder
from bench.server.embedded import EmbeddedTriton
from tests.faults.proxy import Proxy, proxy
from tests.faults.table import ROWS, Fault
from tests.support.calibration import serve

pytestmark = pytest.mark.e2e

TIMEOUT_S = 0.3
# A busy machine may hold a test up for seconds. What takes longer than this has hung.
HANGS_S = 20.0
MOST_BYTES = 64 << 20


@pytest.fixture(scope="module")
def served(triton: EmbeddedTriton) -> Served:
    return serve(triton, ServerConfiguration(model="null_small", instances=1))


@pytest.fixture(scope="module")
def proxies(triton: EmbeddedTriton) -> Iterator[dict[Protocol, Proxy]]:
    http = urlsplit(triton.target.http_url).netloc
    with proxy(http) as over_http, proxy(triton.target.grpc_address or "", is_http=False) as over_grpc:
        over_http.path = "/infer"
        yield {Protocol.HTTP: over_http, Protocol.GRPC: over_grpc}


def order_of(
    triton: EmbeddedTriton, served: Served, one: Proxy, protocol: Protocol, timeout_s: float
) -> WorkOrder:
    target = replace(triton.target, http_url=f"http://{one.address}", grpc_address=one.address)
    return WorkOrder(
        targets=(target,),
        protocol=protocol,
        model="null_small",
        metadata=served.metadata,
        max_batch=served.max_batch,
        batch=1,
        reference=served.reference,
        check_every=1,
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("fault", ROWS, ids=str)
def test_a_fault_is_one_labelled_outcome_and_the_next_is_right(
    fault: Fault, triton: EmbeddedTriton, served: Served, proxies: dict[Protocol, Proxy]
) -> None:
    one = proxies[fault.protocol]
    session = Session(check_every=1)

    def request(timeout_s: float) -> None:
        """One request on a connection of its own."""
        connection = ConnectionFactory(order_of(triton, served, one, fault.protocol, timeout_s)).connect()
        session.request(connection, None)
        connection.close()

    request(HANGS_S)
    one.play, played = fault.play, one.played
    tracemalloc.start()
    started = time.monotonic()
    try:
        request(TIMEOUT_S)
        took_s = time.monotonic() - started
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        one.play = None
    request(HANGS_S)
    outcomes = [Outcome(code) for code in session.recorder.samples().outcome]
    assert one.played == played + 1
    assert (outcomes[0], outcomes[2]) == (Outcome.OK, Outcome.OK)
    assert outcomes[1] in fault.outcomes, session.last_error
    assert (outcomes[1] is Outcome.OK) == (not session.recorder.errors)
    assert all(message == message.encode(errors="replace").decode() for message in session.recorder.errors)
    assert took_s < HANGS_S
    assert most < MOST_BYTES
