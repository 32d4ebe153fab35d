"""A trial that does not end is ended, and the failure says where it stood. The workers are played."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import ToolError
from bench.core.target import Target
from bench.core.trial import Plan, Served
from bench.loadgen.locust.engine import LocustEngine, longest_trial_s
from bench.loadgen.locust.watchdog import Watchdog


class StoppedWorker:
    """It reads nothing: whoever commands it waits until it is killed."""

    def __init__(self) -> None:
        self.live: dict[str, Any] = {}
        self.clock, self.pid, self.name = None, None, "stopped"
        self.alive = self.at_work = True
        self.killed = threading.Event()

    def say(self, **_: Any) -> None:
        assert self.killed.wait(30)

    def expect(self, kind: str, _timeout_s: float) -> dict[str, Any]:
        raise ToolError(f"it ended before {kind}")

    def kill(self) -> None:
        self.killed.set()


class Pool:
    def __init__(self, _log: Path) -> None:
        self.worker = StoppedWorker()
        self.pids: tuple[int, ...] = ()
        self.is_discarded = False

    def ready(self, _count: int) -> list[Any]:
        return [self.worker]

    def discard(self) -> None:
        self.is_discarded = True

    def close(self) -> None: ...


def plan(limit_s: float | None = None) -> Plan:
    load = Load(protocol=Protocol.HTTP, batch=1, concurrency=1)
    cell = Cell(server=ServerConfiguration(model="m"), load=load)
    return Plan(cell=cell, repeat=0, seed=1, warmup_s=1.0, duration_s=5.0, limit_s=limit_s, workers=1)


def test_a_trial_whose_worker_is_stopped_is_ended_and_says_where_it_stood() -> None:
    pools: list[Pool] = []

    def pool(log: Path) -> Pool:
        pools.append(Pool(log))
        return pools[0]

    with LocustEngine(worker_pool=pool) as engine, pytest.raises(ToolError) as failure:
        engine.measure(plan(0.2), Target("http://127.0.0.1:1"), Served({}, {}))
    assert "ended after 0.2 s; it stood at: preparing the workers" in str(failure.value)
    assert "--trial-timeout" in str(failure.value)
    assert pools[0].is_discarded


def test_without_a_limit_a_trial_may_take_what_its_steps_may() -> None:
    asked = plan()
    least_s = asked.warmup_s + 6 * asked.duration_s + asked.drain_s + asked.timeout_s
    assert least_s < longest_trial_s(asked) < 600


def test_a_trial_that_ends_in_time_is_left_alone() -> None:
    bites: list[int] = []
    with Watchdog(60.0, lambda: bites.append(1)) as watchdog:
        pass
    assert not watchdog.has_bitten
    assert bites == []
