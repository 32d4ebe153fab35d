"""Workers as the Locust engine sees them, wherever they run: one of them, and the pool that they make.

A worker is a load-generating process. There are two kinds, each with the process itself and the parent's end
of it:

    on this host, over pipes              worker_process          local_workers
    anywhere, over Locust's own master    remote_worker_process   remote_workers (with master_process between)
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bench.core.errors import ToolError
from bench.core.samples import Samples
from bench.loadgen.locust.clock_sync import ClockMap
from bench.loadgen.locust.work_order import WorkOrder


class Worker(Protocol):
    """Takes commands and gives events, as listed in `worker_process`. Moments are of the engine's clock."""

    live: dict[str, Any]  # its last figures of a trial under way

    @property
    def pid(self) -> int | None: ...  # on this host; None: on another one
    @property
    def name(self) -> str: ...
    @property
    def clock(self) -> ClockMap | None: ...  # None: it shares ours
    @property
    def alive(self) -> bool: ...
    @property
    def at_work(self) -> bool: ...  # alive, and nothing has come from it that ends the trial
    def say(self, **command: Any) -> None: ...
    def expect(self, kind: str, timeout_s: float) -> dict[str, Any]: ...
    def samples(self, order: WorkOrder) -> Samples: ...
    def cpu_s(self) -> float: ...
    def rss_bytes(self) -> int: ...
    def kill(self) -> None: ...


class WorkerPool(Protocol):
    """Workers for one trial after another."""

    def ready(self, count: int) -> list[Any]: ...  # of Worker; fewer where no more can be had
    def discard(self) -> None: ...  # after a trial that broke off, no worker is in a known state
    def close(self) -> None: ...
    @property
    def pids(self) -> tuple[int, ...]: ...  # on this host


class EventQueue:
    """The events of one worker, in order."""

    def __init__(self, log: Path, why_ended: Callable[[], str]) -> None:
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log, self._why_ended = log, why_ended

    def put(self, event: dict[str, Any]) -> None:
        self._events.put(event)

    @property
    def is_empty(self) -> bool:
        """Whether every event was taken."""
        return self._events.empty()

    def expect(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """The next event of that kind. Raises ToolError when it does not come."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            raise ToolError(
                f"A Locust worker gave no {kind!r} within {timeout_s:g} s. Its log: {self._log}."
            ) from None
        if kind not in event:
            reason = event.get("error", {}).get("message", self._why_ended())
            raise ToolError(f"A Locust worker failed: {reason}. Its log: {self._log}.")
        body: dict[str, Any] = event[kind]
        return body
