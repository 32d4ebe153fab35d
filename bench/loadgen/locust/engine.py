"""The Locust engine: worker processes that stay up for a whole sweep, and one trial at a time on them.

The parent keeps the clock: it says when the trial starts, when the window opens and closes (and reads
the server's counters at just these instants), and when to stop. A worker that dies is a finding; one
that hangs past its deadline is killed.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench.analysis.checks.load import is_client_bound
from bench.core import open_files, units
from bench.core.cell import Load
from bench.core.errors import ToolError
from bench.core.findings import Finding, Severity
from bench.core.samples import Samples, Window
from bench.core.scratch import folder as temporary_folder
from bench.core.target import Target
from bench.core.trial import Generator, Live, Plan, Served, Trial
from bench.loadgen.arrivals import tape_ns
from bench.loadgen.locust.local_workers import LocalWorkers
from bench.loadgen.locust.own_clock import Stall, stalled_s
from bench.loadgen.locust.trial_timeline import TrialTimeline
from bench.loadgen.locust.watchdog import Watchdog
from bench.loadgen.locust.work_order import WorkOrder
from bench.loadgen.locust.worker_pool import Worker, WorkerPool
from bench.loadgen.warmup import (
    LONGEST_WAIT_S,
    Milestone,
    longest_window_s,
    opening,
    phase_s,
    planned_s,
)
from bench.protocols.routes import routes, service_for
from bench.sensors.host import usable_cores, waited_s
from bench.server.control import CONTROL_TIMEOUT_S, Triton
from bench.server.fleet import control_of

PREPARE_TIMEOUT_S = 120.0
# The command to start, or to stop, names a moment that is this far ahead, so that every worker has read it by
# then.
_LEAD_NS = 30_000_000
# An open loop has so many users, and fewer for large tensors. With all of them busy a request is sent late,
# and never dropped.
MAX_IN_FLIGHT = 256
_MAX_IN_FLIGHT_BYTES = 2 << 30
# A trial that takes this many times longer than all its steps may take together is ended.
_OUTLIVES = 2.0
# A clock may be off by this share of the window; from there on throughput shows it.
_MOST_UNCERTAIN = 0.001


class LocustEngine:
    """Use as a context manager; `measure` gives one trial."""

    def __init__(
        self, log: Path | None = None, worker_pool: Callable[[Path], WorkerPool] = LocalWorkers
    ) -> None:
        open_files.raise_limit()  # the workers inherit it
        self._files = ExitStack()
        self._scratch = self._files.enter_context(temporary_folder())
        self._pool = worker_pool(log or self._scratch / "locust.log")
        self._enough: dict[Load, int] = {}  # processes that a load was found to need
        self._stage = ""  # of the trial under way, for whoever has to say where it stood

    def __enter__(self) -> LocustEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers that were started here."""
        self._pool.close()
        self._files.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers on this host."""
        return self._pool.pids

    def measure(
        self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None] = lambda _: None
    ) -> Trial:
        """One trial of `plan.cell`.

        Raises ToolError when no worker can be had, TargetError when the server's control side fails.
        """
        users = plan.cell.load.concurrency or in_flight_cap(plan)
        most = min(users, usable_cores())
        fit = open_files.processes(users, is_open_loop=plan.cell.load.is_open_loop)
        count = plan.workers or max(self._enough.get(plan.cell.load, 1), min(fit, most))
        trial = self._measure(plan, target, served, on_live, min(count, users))
        if plan.workers == 0 and is_client_bound(trial) and count < most:
            # One process was not enough; every later trial of this load starts with more.
            self._enough[plan.cell.load] = min(2 * count, most)
            return self.measure(plan, target, served, on_live)
        return trial

    def _measure(
        self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None], count: int
    ) -> Trial:
        workers = self._pool.ready(count)
        orders = orders_of(plan, target, served, len(workers), self._scratch)
        # Only the service that takes this load's protocol has requests to count.
        control = control_of(service_for(target, plan.cell.load.protocol))
        limit_s = plan.limit_s or _OUTLIVES * longest_trial_s(plan)
        with closing(control), Watchdog(limit_s, partial(_kill, workers)) as watchdog:
            try:
                self._stage = "preparing the workers"
                for worker, order in zip(workers, orders, strict=True):
                    worker.live = {}
                    worker.say(prepare=order.to_json())
                for worker in workers:
                    worker.expect("prepared", PREPARE_TIMEOUT_S)
                trial = self._run(plan, control, workers, orders, served, on_live)
                _raise_if(watchdog, limit_s, self._stage)
            except BaseException:
                self._pool.discard()
                _raise_if(watchdog, limit_s, self._stage)
                raise
        return dataclasses.replace(trial, findings=tuple(findings_of(trial, workers, count)))

    def _run(
        self,
        plan: Plan,
        control: Triton,
        workers: Sequence[Worker],
        orders: Sequence[WorkOrder],
        served: Served,
        on_live: Callable[[Live], None],
    ) -> Trial:
        start_ns = time.monotonic_ns() + _LEAD_NS
        for worker in workers:
            worker.say(start_at=start_ns)
        timeline = TrialTimeline(start_ns, workers, on_live)
        self._stage = "the warm-up"
        timeline.wait(opening(plan.cell.load, plan.warmup_s))
        ready_s, ended = timeline.seconds, timeline.requests
        planned = planned_s(plan.cell.load, plan.duration_s, ready_s, ended)
        timeline.wait(Milestone(ready_s + phase_s(plan.cell.load, plan.seed, ready_s, ended)))
        self._stage = "reading the server's counters at the window's start"
        opened = control.statistics(plan.cell.server.model)
        self._stage = "the window"
        spent_opened = _spent(workers)
        opened_s = (opened.at_ns - start_ns) / 1e9
        timeline.wait_for_answers(plan.cell.load, plan.duration_s, planned, opened_s)
        if plan.longest_s is not None:
            timeline.wait_until_tight(opened_s, opened_s + plan.longest_s, plan.percent)
        self._stage = "reading the server's counters at the window's end"
        closed = control.statistics(plan.cell.server.model)
        self._stage = "waiting for the last answers"
        spent = np.maximum(_spent(workers) - spent_opened, 0.0)
        window = Window(opened.at_ns, closed.at_ns)
        # A little ahead: no worker may have sent what is due after the end before it hears of it.
        stop_ns = time.monotonic_ns() + _LEAD_NS
        for worker in workers:
            worker.say(stop_at=stop_ns, drain_s=plan.drain_s)
        ends = [self._end(worker, order, plan.drain_s) for worker, order in zip(workers, orders, strict=True)]
        done = [end for end in ends if end is not None]
        samples = Samples.merge(samples for _, samples in done)
        return Trial(
            plan=plan,
            window=window,
            samples=samples,
            errors=dict(sum((Counter(end["errors"]) for end, _ in done), Counter())),
            generator=Generator(
                workers=len(workers),
                cpu_s=tuple(spent[:, 0].tolist()),
                waited_s=tuple(spent[:, 1].tolist()),
                max_rss_bytes=max((worker.rss_bytes() for worker in workers), default=0),
                lost_workers=len(workers) - len(done),
                stalled_s=tuple(
                    stalled_s(_stalls(worker, end[0]["stalls"]), window)
                    for worker, end in zip(workers, ends, strict=True)
                    if end is not None
                ),
            ),
            counters=closed - opened,
            planned=_planned(orders, stop_ns - start_ns),
            values_checked=sum(end["values_checked"] for end, _ in done),
            reference=served.reference.origin if served.reference else "",
            engine={"name": "locust", **_clocks(workers)},
        )

    def _end(self, worker: Worker, order: WorkOrder, drain_s: float) -> tuple[dict[str, Any], Samples] | None:
        """A worker's own account and samples; None when it was lost on the way."""
        try:
            end = worker.expect("done", drain_s + order.timeout_s + 30.0)
            return end, worker.samples(order)
        except (ToolError, OSError, ValueError, BadZipFile):  # lost on the way, or its samples were
            worker.kill()
            return None


def longest_trial_s(plan: Plan) -> float:
    """The longest that a trial may take when each of its steps takes as long as it may."""
    window_s = plan.longest_s or longest_window_s(plan.duration_s)
    waits_s = PREPARE_TIMEOUT_S + LONGEST_WAIT_S + 2 * CONTROL_TIMEOUT_S
    return waits_s + plan.warmup_s + window_s + plan.drain_s + plan.timeout_s


def _kill(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()


def _raise_if(watchdog: Watchdog, limit_s: float, stage: str) -> None:
    """Raises ToolError where the trial took too long."""
    if watchdog.has_bitten:
        raise ToolError(
            f"The trial was ended after {units.significant(limit_s)} s; it stood at: {stage}. A longer "
            "--trial-timeout gives it more time."
        )


def orders_of(plan: Plan, target: Target, served: Served, workers: int, folder: Path) -> list[WorkOrder]:
    """One order a worker: users and arrivals are shared out, everything else is the same."""
    load = plan.cell.load
    users = load.concurrency or in_flight_cap(plan)
    # The tape lasts longer than the window, which closes late when the two calls for the counters are slow.
    tape_s = plan.warmup_s + (plan.longest_s or plan.duration_s) + 2 * CONTROL_TIMEOUT_S
    base = WorkOrder(
        targets=tuple(_address_of(route, target.headers) for route in routes(target, load)),
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
        max_answer_bytes=plan.max_answer_bytes,
        check_every=round(1 / plan.check_fraction) if plan.check_fraction else 0,
        rate_per_s=load.rate_per_s,
        arrival=load.arrival,
        tape_s=tape_s,
        seed=plan.seed,
        workers=workers,
    )
    shares = [len(range(i, users, workers)) for i in range(workers)]
    return [
        dataclasses.replace(base, users=share, worker=i, samples=str(folder / f"samples-{i}.npz"))
        for i, share in enumerate(shares)
    ]


def _address_of(way: Target, headers: tuple[tuple[str, str], ...]) -> Target:
    """What a worker needs of a target: its addresses."""
    return dataclasses.replace(way, headers=headers, pid=None, pods=(), over_grpc=None)


def in_flight_cap(plan: Plan) -> int:
    """As many users as an open loop may need, within what their answers take in memory."""
    per_answer = max(1, plan.cell.load.batch) * plan.image_height * plan.image_width * 3 * 4
    return max(4, min(MAX_IN_FLIGHT, _MAX_IN_FLIGHT_BYTES // per_answer))


def _spent(workers: Sequence[Worker]) -> NDArray[np.float64]:
    """Seconds, per worker: of CPU, and waiting for a core, which a worker on another host does not tell."""
    return np.array([(worker.cpu_s(), waited_s(worker.pid) if worker.pid else 0.0) for worker in workers])


def _planned(orders: Sequence[WorkOrder], span_ns: int) -> int | None:
    order = orders[0]
    if order.rate_per_s is None:
        return None
    return int((tape_ns(order.arrival, order.rate_per_s, order.tape_s, order.seed) < span_ns).sum())


def findings_of(trial: Trial, workers: Sequence[Worker], asked: int) -> Iterator[Finding]:
    """What only the engine knows: workers that never came back, clocks that are too uncertain."""
    if len(workers) < asked:
        yield Finding(
            "workers-missing",
            Severity.WARNING,
            f"{len(workers)} of {asked} workers made the load.",
            "One was lost in an earlier trial and has not come back.",
            "Its users were shared out to the others; start another worker, or repeat the cell.",
        )
    worst_ns = max((w.clock.uncertainty_ns for w in workers if w.clock), default=0)
    if worst_ns > _MOST_UNCERTAIN * trial.window.seconds * 1e9:
        yield Finding(
            "clock-uncertain",
            Severity.WARNING,
            f"A worker's clock is known to {units.duration(worst_ns)} only.",
            "Messages between master and workers take long, or unequally long.",
            "Latencies stand, each is of one clock; the window's edges are off by this. Lengthen --duration.",
        )


def _stalls(worker: Worker, rows: Sequence[Sequence[int]]) -> list[Stall]:
    """As the worker reported them, on our clock."""
    if not rows or worker.clock is None:
        return [Stall(*row) for row in rows]
    table = np.array(rows, dtype=np.int64)
    moments = [worker.clock.ours(table[:, column]) for column in (0, 1)]
    return [Stall(*map(int, row)) for row in zip(*moments, table[:, 2], table[:, 3], strict=True)]


def _clocks(workers: Sequence[Worker]) -> dict[str, str]:
    rows = [{"worker": worker.name, **worker.clock.described()} for worker in workers if worker.clock]
    return {"clocks": json.dumps(rows)} if rows else {}
