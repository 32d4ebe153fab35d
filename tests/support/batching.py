"""A dynamically batching server in virtual time: instances that contend, a queue delay, noise.

Like `simulation`, which serves one request at a time; here an execution takes what is waiting.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.core.samples import Outcome, Samples
from tests.support.simulation import SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingServer:
    """As Triton batches: an idle instance takes up to `max_batch` items, and waits for more of them until
    the oldest has waited `delay_ns`. `delay_ns` None: one request an execution.
    """

    execution_ms: Callable[[int, int], float]  # of so many items, with so many instances busy
    instances: int = 1
    max_batch: int = 1
    delay_ns: int | None = None
    jitter: float = 0.0  # of an execution: standard deviation of its logarithm
    luck: float = 0.0  # of a whole trial: likewise


@dataclass(slots=True)
class _Run:
    """One trial: events in order of time. `on_done` says when a user asks again, or never."""

    server: BatchingServer
    batch: int
    random: np.random.Generator
    speed: float
    again: bool
    end_ns: int

    def samples(self, due_ns: list[int]) -> Samples:
        events = [(at, n, -1) for n, at in enumerate(due_ns)]  # (when, serial, instance to free or -1)
        heapq.heapify(events)
        serial, busy = len(events), 0
        waiting: deque[int] = deque()
        rows: list[tuple[int, int, int, int]] = []
        while events:
            now, _, kind = heapq.heappop(events)
            if kind == -1:
                waiting.append(now)
            elif kind > 0:  # an execution of `kind` requests ends
                busy -= 1
                for _ in range(kind if self.again and now < self.end_ns else 0):
                    waiting.append(now)
            while waiting and busy < self.server.instances:
                count = self._count(waiting, now)
                serial += 1
                if count == 0:
                    heapq.heappush(events, (waiting[0] + (self.server.delay_ns or 0), serial, 0))
                    break
                busy += 1
                done = now + self._execution_ns(count * self.batch, busy)
                for _ in range(count):
                    due = waiting.popleft()
                    rows.append((due, due, done, int(Outcome.OK)))
                heapq.heappush(events, (done, serial, count))
        return Samples.of(rows)

    def _count(self, waiting: deque[int], now: int) -> int:
        """Requests of the next execution; 0: wait for more."""
        if self.server.delay_ns is None:
            return 1
        room = max(1, self.server.max_batch // self.batch)
        if len(waiting) < room and now < waiting[0] + self.server.delay_ns:
            return 0
        return min(room, len(waiting))

    def _execution_ns(self, items: int, busy: int) -> int:
        noise = math.exp(self.server.jitter * self.random.standard_normal()) if self.server.jitter else 1.0
        return round(self.server.execution_ms(items, busy) * noise * self.speed * 1e6)


def _run(server: BatchingServer, batch: int, seed: int, end_ns: int, *, again: bool) -> _Run:
    random = np.random.default_rng(seed)
    speed = math.exp(server.luck * random.standard_normal())
    return _Run(server, batch, random, speed, again, end_ns)


def closed_loop(server: BatchingServer, users: int, *, batch: int, seconds: float, seed: int) -> Samples:
    """Every user sends again when its answer is there."""
    end_ns = round(seconds * SECOND)
    return _run(server, batch, seed, end_ns, again=True).samples([0] * users)


def open_loop(server: BatchingServer, due_ns: list[int], *, batch: int, seed: int) -> Samples:
    return _run(server, batch, seed, 0, again=False).samples(due_ns)
