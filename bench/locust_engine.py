"""The Locust engine: worker processes that stay up for a whole sweep, and one trial at a time on them.

The parent keeps the clock: it says when the trial starts, when the window opens and closes (and reads
the server's counters at just these instants), and when to stop. A worker that dies is a finding; one
that hangs past its deadline is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.arrivals import tape_ns
from bench.cell import Load
from bench.checks import is_client_bound
from bench.errors import ToolError
from bench.lanes import Order
from bench.machine import usable_cores
from bench.samples import Samples, Window
from bench.special import student_t_quantile
from bench.stats import samples_needed
from bench.trial import Generator, Live, Plan, Served, Target, Trial
from bench.triton import Triton

START_TIMEOUT_S = 60.0
PREPARE_TIMEOUT_S = 120.0
_LEAD_NS = 30_000_000  # from "start" to the start: every worker has read the command by then
# A closed loop's window opens once every user has had an answer, or after this long all the same.
_SLOW_WARMUP_S = 60.0
# Users of an open loop: a cap on requests in flight, which delays and never drops.
MAX_IN_FLIGHT = 256
_MAX_IN_FLIGHT_BYTES = 2 << 30


class WorkerProcess:
    """One `bench.locust_worker` and the thread that reads it."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.locust_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.log = log
        self.live: dict[str, Any] = {}
        self.greeted = False
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def say(self, **command: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # dead: `expect` tells

    def expect(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """The next event of that kind. Raises ToolError when it does not come."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            raise ToolError(
                f"A Locust worker gave no {kind!r} within {timeout_s:g} s. Its log: {self.log}."
            ) from None
        if kind not in event:
            reason = event.get("error", {}).get("message", f"it ended with code {self._process.poll()}")
            raise ToolError(f"A Locust worker failed: {reason}. Its log: {self.log}.")
        body: dict[str, Any] = event[kind]
        return body

    def kill(self) -> None:
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was still to be said to a dead worker
                    pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                event = json.loads(line)
                if "live" in event:
                    self.live = event["live"]
                else:
                    self._events.put(event)
        except ValueError:
            pass  # closed, or cut in the middle of a line by a kill
        self._process.wait()
        self._events.put({"ended": {}})


class LocustEngine:
    """Use as a context manager; `measure` gives one trial."""

    def __init__(self, log: Path | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="bench-locust-")
        self._log = log or Path(self._scratch.name) / "locust.log"
        self._workers: list[WorkerProcess] = []
        self._enough: dict[Load, int] = {}  # processes that a load was found to need

    def __enter__(self) -> LocustEngine:
        self._grow(1, wait=False)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._scratch.cleanup()

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._workers)

    def measure(
        self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None] = lambda _: None
    ) -> Trial:
        """One trial of `plan.cell`.

        Raises ToolError when no worker can be had, TargetError when the server's control side fails.
        """
        users = plan.cell.load.concurrency or in_flight_cap(plan)
        most = min(users, usable_cores())
        count = plan.workers or self._enough.get(plan.cell.load, 1)
        trial = self._measure(plan, target, served, on_live, min(count, users))
        if plan.workers == 0 and is_client_bound(trial) and count < most:
            # One process was not enough; every later trial of this load starts with more.
            self._enough[plan.cell.load] = min(2 * count, most)
            return self.measure(plan, target, served, on_live)
        return trial

    def _measure(
        self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None], count: int
    ) -> Trial:
        workers = self._ready(count)
        orders = orders_of(plan, target, served, len(workers), Path(self._scratch.name))
        control = Triton(target)
        try:
            for worker, order in zip(workers, orders, strict=True):
                worker.live = {}
                worker.say(prepare=order.to_json())
            for worker in workers:
                worker.expect("prepared", PREPARE_TIMEOUT_S)
            return self._run(plan, control, workers, orders, served, on_live)
        except BaseException:
            self._discard()
            raise
        finally:
            control.close()

    def _run(
        self,
        plan: Plan,
        control: Triton,
        workers: Sequence[WorkerProcess],
        orders: Sequence[Order],
        served: Served,
        on_live: Callable[[Live], None],
    ) -> Trial:
        start_ns = time.monotonic_ns() + _LEAD_NS
        for worker in workers:
            worker.say(start_at=start_ns)
        clock = _Clock(start_ns, workers, on_live)
        clock.wait(plan.warmup_s, until=None if plan.cell.load.is_open_loop else sum(o.users for o in orders))
        opened = control.statistics(plan.cell.server.model)
        cpu_opened = [_cpu_s(worker.pid) for worker in workers]
        opened_s = (opened.at_ns - start_ns) / 1e9
        clock.wait(opened_s + plan.duration_s)
        if plan.longest_s is not None:
            clock.wait_until_tight(opened_s, opened_s + plan.longest_s)
        closed = control.statistics(plan.cell.server.model)
        cpu_closed = [_cpu_s(worker.pid) for worker in workers]
        window = Window(opened.at_ns, closed.at_ns)
        # A little ahead: no worker may have sent what is due after the end before it hears of it.
        stop_ns = time.monotonic_ns() + _LEAD_NS
        for worker in workers:
            worker.say(stop_at=stop_ns, drain_s=plan.drain_s)
        ends = [self._end(worker, order, plan.drain_s) for worker, order in zip(workers, orders, strict=True)]
        self._workers = [worker for worker in self._workers if worker.alive]
        done = [end for end in ends if end is not None]
        samples = Samples.merge(samples for _, samples in done)
        return Trial(
            plan=plan,
            window=window,
            samples=samples,
            errors=dict(sum((Counter(end["errors"]) for end, _ in done), Counter())),
            generator=Generator(
                workers=len(workers),
                cpu_s=tuple(max(0.0, b - a) for a, b in zip(cpu_opened, cpu_closed, strict=True)),
                max_rss_bytes=max((_rss_bytes(worker.pid) for worker in workers), default=0),
                lost_workers=len(workers) - len(done),
            ),
            counters=closed - opened,
            planned=_planned(orders, stop_ns - start_ns),
            values_checked=sum(end["values_checked"] for end, _ in done),
            reference=served.reference.origin if served.reference else "",
            engine={"name": "locust"},
        )

    def _end(
        self, worker: WorkerProcess, order: Order, drain_s: float
    ) -> tuple[dict[str, Any], Samples] | None:
        """A worker's own account and samples; None when it was lost on the way."""
        try:
            end = worker.expect("done", drain_s + 30.0)
            return end, Samples.load(Path(order.samples))
        except (ToolError, OSError):
            worker.kill()
            return None

    def _ready(self, count: int) -> list[WorkerProcess]:
        self._workers = [worker for worker in self._workers if worker.alive]
        self._grow(count, wait=True)
        return self._workers[:count]

    def _grow(self, count: int, *, wait: bool) -> None:
        while len(self._workers) < count:
            self._workers.append(WorkerProcess(self._log))
        for worker in self._workers[:count] if wait else ():
            if not worker.greeted:
                worker.expect("hello", START_TIMEOUT_S)
                worker.greeted = True

    def _discard(self) -> None:
        """After a trial that broke off, no worker is in a known state."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


class _Clock:
    """Waits on the trial's time line, showing it as it goes by."""

    def __init__(
        self, start_ns: int, workers: Sequence[WorkerProcess], on_live: Callable[[Live], None]
    ) -> None:
        self._start_ns, self._workers, self._on_live = start_ns, workers, on_live
        self._last = (start_ns, 0)
        self._marks: list[tuple[float, int]] = []

    def wait(self, at_s: float, until: int | None = None) -> None:
        """Until `at_s` after the start and, with `until`, that many answers have come (or a limit)."""
        while True:
            seconds = (time.monotonic_ns() - self._start_ns) / 1e9
            requests = sum(worker.live.get("requests", 0) for worker in self._workers)
            enough = until is None or requests >= until or seconds > at_s + _SLOW_WARMUP_S
            if seconds >= at_s and enough:
                return
            if not any(worker.alive for worker in self._workers):
                return  # every worker is lost: the end of the trial says so
            self._show(seconds, requests)
            time.sleep(max(0.0, min(0.25, at_s - seconds) if seconds < at_s else 0.05))

    def wait_until_tight(self, from_s: float, at_most_s: float) -> None:
        """Until p99 has its samples and throughput is known to 3 %, or `at_most_s`."""
        while True:
            seconds = (time.monotonic_ns() - self._start_ns) / 1e9
            if seconds >= at_most_s or not any(worker.alive for worker in self._workers):
                return
            marks = [(at_s, count) for at_s, count in self._marks if at_s >= from_s]
            if len(marks) > 1 and marks[-1][1] - marks[0][1] >= samples_needed(99) and is_tight(marks):
                return
            self.wait(min(seconds + 0.5, at_most_s))

    def _show(self, seconds: float, requests: int) -> None:
        now_ns = time.monotonic_ns()
        then_ns, before = self._last
        if now_ns - then_ns < 200_000_000 or seconds < 0:
            return
        rate = (requests - before) / (now_ns - then_ns) * 1e9
        self._last = (now_ns, requests)
        self._marks.append((seconds, requests))
        p99 = max((worker.live.get("p99_ns", 0.0) for worker in self._workers), default=0.0)
        self._on_live(Live(seconds, requests, rate, p99))


def is_tight(marks: Sequence[tuple[float, int]], within: float = 0.03) -> bool:
    """Whether the mean rate of (seconds, requests so far) is known to a share of itself, at 95 %.

    Means of ten spans, Student's t: spans of many requests each are nearly independent.
    """
    edges = np.linspace(0, len(marks) - 1, 11).astype(int)
    if len(set(edges)) < len(edges):
        return False
    seconds, requests = (np.array([marks[i][k] for i in edges]) for k in (0, 1))
    rates = np.diff(requests) / np.diff(seconds)
    half_width = student_t_quantile(0.975, len(rates) - 1) * rates.std(ddof=1) / np.sqrt(len(rates))
    return bool(half_width <= within * rates.mean())


def orders_of(plan: Plan, target: Target, served: Served, workers: int, folder: Path) -> list[Order]:
    """One order a worker: users and arrivals are shared out, everything else is the same."""
    load = plan.cell.load
    users = load.concurrency or in_flight_cap(plan)
    tape_s = (
        plan.warmup_s + (plan.longest_s or plan.duration_s) + 5.0
    )  # the end is cut where the window really closed
    base = Order(
        http_url=target.http_url,
        grpc_address=target.grpc_address or "",
        headers=target.headers,
        model=plan.cell.server.model,
        model_version=plan.model_version,
        metadata=served.metadata,
        max_batch=served.max_batch,
        reference=served.reference,
        protocol=load.protocol,
        batch=load.batch,
        shared_memory=load.shared_memory,
        image_height=plan.image_height,
        image_width=plan.image_width,
        timeout_s=plan.timeout_s,
        check_every=round(1 / plan.check_fraction) if plan.check_fraction else 0,
        rate_per_s=load.rate_per_s,
        arrival=load.arrival,
        tape_s=tape_s,
        seed=plan.seed,
        payload_seed=0,
        users=0,
        worker=0,
        workers=workers,
        samples="",
    )
    shares = [len(range(i, users, workers)) for i in range(workers)]
    return [
        dataclasses.replace(base, users=share, worker=i, samples=str(folder / f"samples-{i}.npz"))
        for i, share in enumerate(shares)
    ]


def in_flight_cap(plan: Plan) -> int:
    """As many users as an open loop may need, within what their answers take in memory."""
    per_answer = max(1, plan.cell.load.batch) * plan.image_height * plan.image_width * 3 * 4
    return max(4, min(MAX_IN_FLIGHT, _MAX_IN_FLIGHT_BYTES // per_answer))


def _planned(orders: Sequence[Order], span_ns: int) -> int | None:
    order = orders[0]
    if order.rate_per_s is None:
        return None
    return int((tape_ns(order.arrival, order.rate_per_s, order.tape_s, order.seed) < span_ns).sum())


def _cpu_s(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _rss_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
