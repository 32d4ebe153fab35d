"""Workers of Locust's master make the same load as processes of the engine's own, and may be lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.checks import findings_of
from bench.cli.spec import sweep_spec
from bench.cli.targets import check_workers
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import ToolError
from bench.core.findings import Verdict, verdict
from bench.core.parsing import master_address
from bench.core.trial import Live, Plan, Trial
from bench.experiments.engines import worker_pool
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.locust.local_workers import LocalWorkers
from bench.loadgen.locust.remote_workers import RemoteWorkers
from bench.server.embedded import EmbeddedTriton
from tests.support.calibration import closed, measure, rate_per_s, serve, undisturbed
from tests.support.command import values_of

DELAY = ServerConfiguration(model="delay", instances=4)
DELAY_S = 0.05


@contextmanager
def remote(count: int, log: Path, address: tuple[str, int] | None = None) -> Iterator[LocustEngine]:
    with LocustEngine(log, partial(RemoteWorkers, count, address)) as engine:
        yield engine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def elsewhere(port: int, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers that somebody else started."""
    command = [sys.executable, "-m", "bench", "worker", "--master", f"127.0.0.1:{port}"]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.alone
@pytest.mark.e2e
@pytest.mark.parametrize("count", [2, 8])
def test_many_workers_give_the_result_of_one(count: int, triton: EmbeddedTriton, tmp_path: Path) -> None:
    """8 users of 4 instances of 50 ms: 80 answers a second, whoever asks."""
    truth = pytest.approx(4 / DELAY_S, rel=0.05)
    with remote(count, tmp_path / "log") as engine:
        trial = undisturbed(
            lambda: measure(engine, triton, DELAY, closed(8), duration_s=1.5, workers=count),
            lambda trial: rate_per_s(trial) == truth,
        )
        pids = engine.pids
    assert rate_per_s(trial) == truth
    assert trial.generator.workers == len(trial.generator.cpu_s) == count == len(pids)
    assert not any(map(psutil.pid_exists, pids))
    assert trial.values_checked > 0  # the reference reached them
    clocks = json.loads(trial.engine["clocks"])
    assert len(clocks) == count
    # One host, one clock: whatever is read off it lies within what the reading says of itself.
    assert all(abs(clock["offset_ns"]) <= clock["uncertainty_ns"] for clock in clocks)


@pytest.mark.alone
@pytest.mark.e2e
def test_an_open_loop_over_workers_accounts_for_every_arrival(triton: EmbeddedTriton, tmp_path: Path) -> None:
    load = Load(protocol=Protocol.GRPC, batch=1, rate_per_s=60)
    with remote(2, tmp_path / "log") as engine:
        trial = measure(engine, triton, DELAY, load, duration_s=1.0, workers=2)
        again = measure(engine, triton, DELAY, load, duration_s=1.0, workers=2)
    for one in (trial, again):
        assert one.planned == len(one.samples)
        assert {"worker-lost", "clock-uncertain"}.isdisjoint(f.code for f in one.findings)


@pytest.mark.e2e
def test_a_worker_killed_in_a_trial_is_a_finding_and_is_replaced(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    with remote(2, tmp_path / "log") as engine:
        trial = kill_one_during(engine, triton, lambda: engine.pids[0])
        assert trial.generator.lost_workers == 1
        assert len(trial.samples) > 0
        assert "worker-lost" in {finding.code for finding in findings_of(trial)}
        assert verdict(findings_of(trial)) is Verdict.INVALID
        after = measure(engine, triton, DELAY, closed(4), duration_s=0.3, workers=2)
    assert (after.generator.workers, after.generator.lost_workers) == (2, 0)


@pytest.mark.e2e
def test_workers_started_elsewhere_are_waited_for_and_end_with_the_sweep(
    triton: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three is lost on the way: the next trial is made by those who are left, and says so."""
    monkeypatch.setattr("bench.loadgen.locust.remote_workers.REJOIN_TIMEOUT_S", 1.0)
    port = free_port()
    with elsewhere(port, 3) as processes:
        with remote(3, tmp_path / "log", ("127.0.0.1", port)) as engine:
            first = kill_one_during(engine, triton, lambda: processes[0].pid, workers=3)
            second = measure(engine, triton, DELAY, closed(4), duration_s=0.3, workers=3)
        codes = [process.wait(timeout=10) for process in processes]
    assert first.generator.lost_workers == 1
    assert second.generator.workers == 2
    assert "workers-missing" in {finding.code for finding in second.findings}
    assert codes == [-signal.SIGKILL, 0, 0]


@pytest.mark.e2e
def test_after_a_trial_that_broke_off_a_worker_elsewhere_starts_afresh(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    port = free_port()

    def interrupt(_: Live) -> None:
        raise KeyboardInterrupt

    plan = Plan(
        cell=Cell(server=DELAY, load=closed(2)), repeat=0, seed=1, warmup_s=0.1, duration_s=5, workers=1
    )
    with elsewhere(port, 1), remote(1, tmp_path / "log", ("127.0.0.1", port)) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.measure(plan, triton.target, serve(triton, DELAY), interrupt)
        after = measure(engine, triton, DELAY, closed(2), duration_s=0.5, workers=1)
    assert after.generator.lost_workers == 0
    assert len(after.samples.good()) > 0


def test_a_port_that_is_taken_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ToolError, match="a port that is free"):
            RemoteWorkers(1, ("127.0.0.1", taken.getsockname()[1]), tmp_path / "log")


def test_workers_that_never_come_are_an_error_that_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.loadgen.locust.remote_workers.START_TIMEOUT_S", 0.3)
    pool = RemoteWorkers(2, ("127.0.0.1", free_port()), tmp_path / "log")
    try:
        with pytest.raises(ToolError, match=r"0 of 2 Locust workers .* `bench worker --master"):
            pool.ready(1)
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--workers", "2", "--processes", "2"], ["--workers 2", "without --processes"]),
        (["--workers", "0"], ["--workers 0"]),
        (["--in-cluster", "--url", "http://a"], ["--in-cluster", "goes with --workers"]),
        (["--in-cluster", "--workers", "2"], ["--in-cluster", "goes with --mlservice"]),
        (["--workers", "2", "--load-account", "a"], ["--load-account a: goes with --in-cluster"]),
        (["--locust-master", "10.0.0.5"], ["--locust-master 10.0.0.5", "goes with --workers"]),
        (["--locust-master", "h:x", "--workers", "2"], ["--locust-master h:x", "1 to 65535"]),
        (
            ["--locust-master", "h", "--workers", "2", "--in-cluster", "--url", "a"],
            ["without --locust-master"],
        ),
        (["--locust-master", "h", "--workers", "2", "--shared-memory", "system"], ["--shared-memory system"]),
        (["--in-cluster", "--workers", "2", "--url", "a", "--header", "A:secret"], ["in the clear"]),
        (["--in-cluster", "--workers", "2", "--url", "a", "--resume"], ["--resume"]),
    ],
)
def test_flags_that_do_not_go_together_are_mistakes(words: list[str], named: list[str]) -> None:
    values = values_of("sweep", *words)
    check_workers(values, sweep_spec(values))
    assert all(part in "\n".join(values.mistakes.mistakes) for part in named)
    assert "secret" not in "\n".join(values.mistakes.mistakes)


def test_workers_are_a_number_of_the_spec_that_every_plan_asks_for() -> None:
    values = values_of("sweep", "--workers", "4")
    spec = sweep_spec(values)
    assert values.mistakes.mistakes == []
    assert (spec.workers, spec.processes) == (4, 0)
    assert worker_pool(spec.workers, values["locust_master"]) is not LocalWorkers
    assert worker_pool(0, None) is LocalWorkers


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.5", ("10.0.0.5", 5557)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("h:65535", ("h", 65535))],
)
def test_an_address_is_read_with_locusts_port_as_the_default(text: str, address: tuple[str, int]) -> None:
    assert master_address(text) == address


@given(st.text(max_size=12) | st.from_regex(r"h:[0-9]{0,6}", fullmatch=True))
def test_whatever_else_is_typed_is_a_mistake(text: str) -> None:
    try:
        host, port = master_address(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65536


def kill_one_during(engine: LocustEngine, triton: EmbeddedTriton, pid: object, workers: int = 2) -> Trial:
    """A trial in which the process that `pid()` names is killed half-way. Never hangs."""
    victims: list[int] = []

    def kill(live: Live) -> None:
        if not victims and live.seconds > 0.3:
            victims.append(pid())  # type: ignore[operator]  # a function of no arguments
            os.kill(victims[0], signal.SIGKILL)

    cell = Cell(server=DELAY, load=closed(4))
    plan = Plan(cell=cell, repeat=0, seed=1, warmup_s=0.2, duration_s=1.0, workers=workers)
    began = time.monotonic()
    trial = engine.measure(plan, triton.target, serve(triton, DELAY), kill)
    assert victims
    assert time.monotonic() - began < 30
    return trial
