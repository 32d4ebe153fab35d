"""Requests and control calls over TLS reach a real Triton, from this process and from Locust's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing

import pytest

from bench.core.cell import Cell, Protocol, ServerConfiguration
from bench.core.errors import Unreachable
from bench.core.samples import Outcome
from bench.core.target import Target, Tls
from bench.core.trial import Plan, Served
from bench.loadgen.locust.engine import LocustEngine
from bench.protocols import payload
from bench.protocols.connection import Reply
from bench.protocols.grpc import answers_grpc
from bench.protocols.payload import Call
from bench.protocols.registry import DRIVERS
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from tests.support.calibration import closed, serve
from tests.support.http_peer import self_signed
from tests.support.tls_proxy import tls_proxy

MODEL = ServerConfiguration(model="null_small")
every_protocol = pytest.mark.parametrize("protocol", list(Protocol))


@pytest.fixture(scope="module")
def served(triton: EmbeddedTriton) -> Served:
    return serve(triton, MODEL)


@pytest.fixture(scope="module")
def secured(triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The real Triton behind TLS, for clients with a certificate."""
    ours, theirs = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("client")
    (key, certificate), (client_key, client) = self_signed(ours), self_signed(theirs)
    plain = triton.target
    http_address = plain.http_url.removeprefix("http://")
    with (
        tls_proxy(http_address, certificate, key, clients=client) as http,
        tls_proxy(str(plain.grpc_address), certificate, key, application="h2", clients=client) as grpc,
    ):
        yield Target(
            f"https://{http}",
            grpc,
            tls=Tls(ca=str(certificate), certificate=str(client), key=str(client_key)),
        )


def ask(target: Target, protocol: Protocol, served: Served) -> tuple[Reply, bytes]:
    driver = DRIVERS[protocol]
    tensors = payload.for_model(served.metadata, served.max_batch, 1, seed=0)
    request = driver.build(Call(MODEL.model, tensors), target)
    with closing(driver.connection(target, 10.0)) as connection:
        replies = [connection.exchange(request) for _ in range(3)]
        return replies[-1], bytes(replies[-1].body)


@every_protocol
def test_a_request_goes_through(secured: Target, served: Served, protocol: Protocol) -> None:
    reply, body = ask(secured, protocol, served)
    assert (reply.outcome, reply.error, len(body) > 0) == (Outcome.OK, "", True)


def test_control_calls_go_through(secured: Target) -> None:
    with closing(Triton(secured)) as control:
        assert control.live()
        assert control.metadata(MODEL.model)["name"] == MODEL.model
        assert control.statistics(MODEL.model).stats
    assert answers_grpc(str(secured.grpc_address), (), secured.access)


@every_protocol
def test_any_certificate_will_do_where_that_is_asked(
    secured: Target, served: Served, protocol: Protocol
) -> None:
    blind = dataclasses.replace(secured, tls=dataclasses.replace(secured.tls, ca="", insecure=True))
    assert ask(blind, protocol, served)[0].outcome == Outcome.OK
    with closing(Triton(blind)) as control:
        assert control.live()


@every_protocol
def test_a_certificate_that_nobody_vouches_for_is_refused(
    secured: Target, served: Served, protocol: Protocol
) -> None:
    reply, _ = ask(dataclasses.replace(secured, tls=Tls()), protocol, served)
    assert reply.outcome == Outcome.CONNECTION
    assert "certificate is not trusted" in reply.error
    assert "--ca" in reply.error
    with closing(Triton(dataclasses.replace(secured, tls=Tls()))) as control:
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            control.server()
        assert not control.live()


@every_protocol
def test_without_our_certificate_nothing_is_answered(
    secured: Target, served: Served, protocol: Protocol
) -> None:
    nameless = dataclasses.replace(secured, tls=Tls(ca=secured.tls.ca))
    assert ask(nameless, protocol, served)[0].outcome == Outcome.CONNECTION


def test_locust_s_processes_do_the_same(secured: Target, served: Served) -> None:
    with LocustEngine() as engine:
        for protocol in Protocol:
            cell = Cell(server=MODEL, load=closed(2, protocol))
            plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.1, duration_s=0.4, workers=1)
            trial = engine.measure(plan, secured, served)
            assert trial.errors == {}
            assert len(trial.samples.good()) > 10
