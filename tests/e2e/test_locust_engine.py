"""The Locust engine on servers whose truth is known: right, complete, and never hanging."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.checks import findings_of
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import ToolError, Unreachable
from bench.core.findings import Verdict, verdict
from bench.core.samples import Outcome
from bench.core.target import Target
from bench.core.trial import Live, Plan, Served
from bench.loadgen.locust.engine import LocustEngine, orders_of
from bench.loadgen.locust.work_order import WorkOrder
from bench.server.control import CONTROL_TIMEOUT_S
from bench.server.embedded import EmbeddedTriton
from tests.support.calibration import closed, measure, parameters, rate_per_s, serve, undisturbed

pytestmark = pytest.mark.e2e

DELAY_S = 0.05


@pytest.fixture(scope="module")
def engine() -> Iterator[LocustEngine]:
    with LocustEngine() as engine:
        yield engine


def delay(instances: int = 1, **values: object) -> ServerConfiguration:
    return ServerConfiguration(model="delay", instances=instances, parameters=parameters(**values))


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("k", [1, 4])
def test_k_instances_of_50_ms_under_k_users_answer_k_per_50_ms(
    engine: LocustEngine, triton: EmbeddedTriton, protocol: Protocol, k: int
) -> None:
    load, truth = closed(k, protocol), pytest.approx(k / DELAY_S, rel=0.05)
    trial = undisturbed(
        lambda: measure(engine, triton, delay(k), load, duration_s=1.5), lambda t: rate_per_s(t) == truth
    )
    assert rate_per_s(trial) == truth
    assert (trial.samples.outcome == Outcome.OK).all()
    assert trial.samples.service_ns.min() >= DELAY_S * 1e9
    assert trial.window.seconds >= 1.5
    assert trial.errors == {}


def test_two_processes_make_the_load_of_one(engine: LocustEngine, triton: EmbeddedTriton) -> None:
    truth = pytest.approx(4 / DELAY_S, rel=0.05)
    trial = undisturbed(
        lambda: measure(engine, triton, delay(4), closed(4), duration_s=1.5, workers=2),
        lambda trial: rate_per_s(trial) == truth,
    )
    assert trial.generator.workers == len(trial.generator.cpu_s) == 2
    assert rate_per_s(trial) == truth


@pytest.mark.parametrize("workers", [1, 2])
def test_an_open_loop_accounts_for_every_arrival(
    engine: LocustEngine, triton: EmbeddedTriton, workers: int
) -> None:
    load = Load(protocol=Protocol.HTTP, batch=1, rate_per_s=60)
    trial = measure(engine, triton, delay(4), load, workers=workers)
    assert trial.planned == len(trial.samples)
    assert (trial.samples.sent_ns >= trial.samples.intended_ns).all()
    assert (np.diff(trial.samples.intended_ns) > 0).all()  # merged in order, each arrival once
    assert (trial.samples.outcome == Outcome.OK).all()


def test_counters_are_of_the_window(engine: LocustEngine, triton: EmbeddedTriton) -> None:
    trial = measure(engine, triton, delay(4), closed(4, batch=8), warmup_s=0.5)
    done = len(trial.samples.done_in(trial.window))
    assert trial.counters is not None
    assert abs(trial.counters.success_count - done) <= 8
    assert trial.counters.inference_count == 8 * trial.counters.success_count
    computed_ns = trial.counters.compute_infer_ns / trial.counters.success_count
    assert 50e6 <= computed_ns <= 1.1 * trial.samples.service_ns.mean()


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize(
    ("mode", "outcome", "code"),
    [
        ("empty", Outcome.WRONG_ANSWER, "wrong-answers"),
        ("wrong_shape", Outcome.WRONG_ANSWER, "wrong-answers"),
        ("wrong_values", Outcome.WRONG_ANSWER, "wrong-answers"),
        ("nan", Outcome.WRONG_ANSWER, "wrong-answers"),
        ("error", Outcome.SERVER_ERROR, "nothing-measured"),
    ],
)
def test_a_server_that_answers_wrong_makes_the_cell_invalid(
    engine: LocustEngine, triton: EmbeddedTriton, protocol: Protocol, mode: str, outcome: Outcome, code: str
) -> None:
    server = ServerConfiguration(model="faulty", parameters=parameters(mode=mode))
    load = closed(2, protocol, batch=2)
    trial = measure(engine, triton, server, load, duration_s=0.3, check_fraction=1.0)
    assert len(trial.samples) > 0
    assert (trial.samples.outcome == outcome).all()
    findings = findings_of(trial)
    assert code in {finding.code for finding in findings}
    assert verdict(findings) is Verdict.INVALID
    said = "this request fails on purpose" if mode == "error" else "y"  # the output's name
    assert all(said in message for message in trial.errors)
    assert sum(trial.errors.values()) == len(trial.samples)


def test_a_server_that_answers_right_is_not_accused(engine: LocustEngine, triton: EmbeddedTriton) -> None:
    server = ServerConfiguration(model="faulty", parameters=parameters(fraction=0))
    trial = measure(engine, triton, server, closed(2, batch=2), duration_s=0.3, check_fraction=1.0)
    assert (trial.samples.outcome == Outcome.OK).all()
    assert trial.values_checked == len(trial.samples)


@pytest.mark.parametrize(("workers", "left"), [(1, 0), (2, 1)])
def test_a_worker_that_is_killed_is_a_finding_and_the_engine_goes_on(
    engine: LocustEngine, triton: EmbeddedTriton, workers: int, left: int
) -> None:
    victims: list[int] = []

    def kill_one(live: Live) -> None:
        if not victims and live.seconds > 0.3:
            victims.append(engine.pids[0])
            os.kill(victims[0], signal.SIGKILL)

    cell = Cell(server=delay(4), load=closed(4))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.2, duration_s=1.0, workers=workers)
    began = time.monotonic()
    trial = engine.measure(plan, triton.target, serve(triton, cell.server), kill_one)
    assert time.monotonic() - began < 20
    assert victims
    assert trial.generator.lost_workers == 1
    assert (len(trial.samples) > 0) == (left > 0)
    assert "worker-lost" in {finding.code for finding in findings_of(trial)}
    assert verdict(findings_of(trial)) is Verdict.INVALID
    assert victims[0] not in engine.pids
    after = measure(engine, triton, delay(4), closed(4), duration_s=0.3, workers=workers)
    assert after.generator.lost_workers == 0
    assert len(after.samples.good()) > 0


def test_requests_that_reach_nobody_are_data_and_not_a_hang(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    """The control side answers, the address of gRPC requests does not."""
    cell = Cell(server=delay(4), load=closed(2, Protocol.GRPC))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.1, duration_s=0.3)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = replace(triton.target, grpc_address=f"127.0.0.1:{unused.getsockname()[1]}")
        trial = engine.measure(plan, nobody, serve(triton, delay(4)))
    assert set(trial.samples.outcome.tolist()) == {Outcome.CONNECTION}
    assert verdict(findings_of(trial)) is Verdict.INVALID


def test_a_target_that_is_gone_is_an_error_and_not_a_trial(engine: LocustEngine) -> None:
    cell = Cell(server=delay(), load=closed(1))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.1, duration_s=0.2)
    served = Served(
        {"name": "delay", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
         "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 16]}]},
        {"max_batch_size": 64},
    )  # fmt: skip
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = Target(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(Unreachable, match="connection refused"):
            engine.measure(plan, target, served)


def test_arrivals_of_an_overload_are_unfinished_and_not_lost(
    engine: LocustEngine, triton: EmbeddedTriton
) -> None:
    load = Load(protocol=Protocol.GRPC, batch=1, rate_per_s=800)  # ten times what it can do
    trial = measure(engine, triton, delay(4), load, drain_s=0.1)
    unfinished = int((trial.samples.outcome == Outcome.UNFINISHED).sum())
    assert trial.planned == len(trial.samples)
    assert unfinished > 0.5 * len(trial.samples)
    assert "saturated" in {finding.code for finding in findings_of(trial)}


@pytest.mark.parametrize("protocol", list(Protocol))
def test_an_overload_leaves_no_work_to_the_next_trial(
    engine: LocustEngine, triton: EmbeddedTriton, protocol: Protocol
) -> None:
    """A server goes on with requests that nobody waits for."""
    load = Load(protocol=protocol, batch=1, rate_per_s=60)  # three times what it can do
    trial = measure(engine, triton, delay(), load, duration_s=0.5, drain_s=0.1)
    after = measure(engine, triton, delay(), closed(1, protocol), duration_s=0.5)
    assert trial.samples.done_ns.max() > trial.window.end_ns + trial.plan.drain_s * 1e9
    assert after.counters is not None
    counted = len(after.samples.done_in(after.window).good())
    assert after.counters.success_count == pytest.approx(counted, abs=2)
    assert after.samples.service_ns[0] < trial.samples.service_ns.max() / 3


@given(users=st.integers(1, 500), workers=st.integers(1, 16), batch=st.integers(1, 8))
def test_users_are_shared_out_whole(users: int, workers: int, batch: int) -> None:
    cell = Cell(server=delay(), load=closed(users, batch=batch))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0, duration_s=1)
    orders = orders_of(plan, Target("http://h:1"), Served({}, {}), workers, Path())
    assert sum(order.users for order in orders) == users
    assert max(order.users for order in orders) - min(order.users for order in orders) <= 1
    assert len({order.samples for order in orders}) == workers
    assert all(WorkOrder.from_json(json.loads(json.dumps(order.to_json()))) == order for order in orders)


@pytest.mark.parametrize("longest_s", [None, 60.0])
def test_a_tape_outlasts_a_window_whose_counters_come_as_late_as_they_may(longest_s: float | None) -> None:
    """A tape that ended before its window would be a lower rate that every count agrees with."""
    cell = Cell(server=delay(), load=Load(protocol=Protocol.HTTP, batch=1, rate_per_s=9.0))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=1.0, duration_s=4.0, longest_s=longest_s)
    (order,) = orders_of(plan, Target("http://h:1"), Served({}, {}), 1, Path())
    assert order.tape_s >= 1.0 + (longest_s or 4.0) + 2 * CONTROL_TIMEOUT_S


def test_a_worker_refuses_users_that_have_no_open_files(engine: LocustEngine, triton: EmbeddedTriton) -> None:
    """And says so at once, instead of failing their requests."""
    measure(engine, triton, delay(4), closed(1), duration_s=0.1)
    resource.prlimit(engine.pids[0], resource.RLIMIT_NOFILE, (150, 150))
    with pytest.raises(ToolError, match=r"300 users in one process need 428 open files.*150"):
        measure(engine, triton, delay(4), closed(300), duration_s=0.1)


@pytest.mark.alone
def test_a_worker_that_is_stopped_for_a_while_says_so(engine: LocustEngine, triton: EmbeddedTriton) -> None:
    stopped: list[int] = []

    def stop_once(live: Live) -> None:
        if not stopped and live.seconds > 1.0:  # the window has opened by then
            stopped.append(engine.pids[0])
            os.kill(stopped[0], signal.SIGSTOP)
            time.sleep(0.6)
            os.kill(stopped[0], signal.SIGCONT)

    cell = Cell(server=delay(4), load=closed(2))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.05, duration_s=1.8, workers=1)
    trial = engine.measure(plan, triton.target, serve(triton, cell.server), stop_once)
    assert stopped
    assert 0.4 < trial.generator.stalled_s[0] < 1.0
    assert "generator-stalled" in {finding.code for finding in findings_of(trial)}
    after = measure(engine, triton, delay(4), closed(2), duration_s=0.5)
    assert after.generator.stalled_s == (0.0,)
