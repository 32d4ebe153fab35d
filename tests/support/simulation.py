"""Load and server in virtual time: a queue in front of k servers, driven by an open or a closed loop.

What it gives is the record a real trial gives, so the statistics can be held against a known truth.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.core.cell import Arrival, Cell, Load, Protocol, ServerConfiguration
from bench.core.samples import Outcome, Samples, Window
from bench.core.trial import Counters, Generator, Plan, Trial
from bench.loadgen.arrivals import tape_ns

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """First come, first served, by `servers` at once. In a stall no work is done."""

    service_ns: Callable[[int], int]  # of the i-th request that is started
    servers: int = 1
    stall: Window | None = None

    def finished_ns(self, start_ns: int, service_ns: int) -> int:
        if (
            self.stall is None
            or start_ns >= self.stall.end_ns
            or start_ns + service_ns <= self.stall.start_ns
        ):
            return start_ns + service_ns
        return start_ns + service_ns + self.stall.end_ns - max(start_ns, self.stall.start_ns)


class _Queue:
    """A server under way: takes requests in order of arrival and says when each is done."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._free_ns = [0] * server.servers
        self._started = 0

    def done_ns(self, sent_ns: int) -> int:
        start_ns = max(sent_ns, heapq.heappop(self._free_ns))
        done_ns = self._server.finished_ns(start_ns, self._server.service_ns(self._started))
        self._started += 1
        heapq.heappush(self._free_ns, done_ns)
        return done_ns


def always(service_ms: float) -> Callable[[int], int]:
    return lambda _: round(service_ms * MILLISECOND)


def drawn(draw: Callable[[np.random.Generator, int], Any], seed: int) -> Callable[[int], int]:
    """Service times in ms from `draw(generator, count)`, the same for the same seed."""
    times: list[int] = []
    random = np.random.default_rng(seed)

    def service_ns(index: int) -> int:
        while index >= len(times):
            times.extend(np.round(np.asarray(draw(random, 4096)) * MILLISECOND).astype(int).tolist())
        return times[index]

    return service_ns


def open_loop(
    server: Server, due_ns: list[int], end_ns: int, *, users: int = 256, drain_ns: int = 10 * SECOND
) -> Samples:
    """Every arrival is sent when it is due and one of `users` is free; what is not done in time is kept."""
    queue, free_ns, last_ns = _Queue(server), [0] * users, end_ns + drain_ns
    rows = []
    for due in due_ns:
        sent_ns = max(due, heapq.heappop(free_ns))
        if sent_ns >= last_ns:  # never sent
            heapq.heappush(free_ns, sent_ns)
            rows.append((due, last_ns, last_ns, int(Outcome.UNFINISHED)))
            continue
        done_ns = queue.done_ns(sent_ns)
        heapq.heappush(free_ns, done_ns)
        rows.append(_row(due, sent_ns, done_ns, last_ns))
    return Samples.of(rows)


def closed_loop(server: Server, users: int, end_ns: int, *, pacing_ns: int = 0) -> Samples:
    """Each user sends when its last answer is there, and at most once in `pacing_ns`."""
    queue, rows = _Queue(server), []
    ready_ns = [pacing_ns * user // users for user in range(users)]
    heapq.heapify(ready_ns)
    while (sent_ns := heapq.heappop(ready_ns)) < end_ns:
        done_ns = queue.done_ns(sent_ns)
        rows.append(_row(sent_ns, sent_ns, done_ns, end_ns + 10 * SECOND))
        heapq.heappush(ready_ns, max(done_ns, sent_ns + pacing_ns))
    return Samples.of(rows)


def _row(due_ns: int, sent_ns: int, done_ns: int, last_ns: int) -> tuple[int, int, int, int]:
    if done_ns > last_ns:
        return due_ns, sent_ns, last_ns, int(Outcome.UNFINISHED)
    return due_ns, sent_ns, done_ns, int(Outcome.OK)


def cell(*, concurrency: int | None = None, rate_per_s: float | None = None, batch: int = 1) -> Cell:
    load = Load(protocol=Protocol.HTTP, batch=batch, concurrency=concurrency, rate_per_s=rate_per_s)
    return Cell(server=ServerConfiguration(model="delay"), load=load)


def trial(
    server: Server,
    of: Cell,
    *,
    seconds: float = 30.0,
    warmup_s: float = 2.0,
    seed: int = 1,
    arrival: Arrival = Arrival.POISSON,
) -> Trial:
    """One trial of `of` on `server`, with counters that agree and nothing else to remark on."""
    window = Window(round(warmup_s * SECOND), round((warmup_s + seconds) * SECOND))
    load, planned = of.load, None
    if load.rate_per_s is not None:
        due_ns = tape_ns(arrival, load.rate_per_s, warmup_s + seconds, seed).tolist()
        samples, planned = open_loop(server, due_ns, window.end_ns), len(due_ns)
    else:
        samples = closed_loop(server, load.concurrency or 1, window.end_ns)
    return Trial(
        plan=Plan(cell=of, repeat=0, seed=seed, warmup_s=warmup_s, duration_s=seconds),
        window=window,
        samples=samples,
        errors={},
        generator=Generator(workers=1, cpu_s=(0.2 * seconds,), max_rss_bytes=100 << 20),
        counters=counters(samples, window, load.batch),
        planned=planned,
        values_checked=3,
        reference="a formula",
        engine={"name": "locust"},
    )


def counters(samples: Samples, window: Window, batch: int) -> Counters:
    """What a server that served all of it would have counted in the window."""
    done = samples.done_in(window).good()
    busy_ns = int(done.service_ns.sum())
    return Counters(
        inference_count=len(done) * batch,
        execution_count=len(done),
        success_count=len(done),
        fail_count=0,
        success_ns=busy_ns,
        queue_ns=0,
        compute_input_ns=0,
        compute_infer_ns=busy_ns,
        compute_output_ns=0,
        batches={batch: (len(done), busy_ns)},
    )


def repeats(make: Callable[[int], Trial], count: int, first_seed: int = 1) -> Iterator[Trial]:
    for index in range(count):
        one = make(first_seed + index)
        yield replace(one, plan=replace(one.plan, repeat=index))
