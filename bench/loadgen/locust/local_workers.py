"""The parent's end of workers on this host, which are driven over pipes and share its clock and its files.

`LocalWorkers` is the pool; each of its `LocalWorker` stands for one `worker_process`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from bench.core.child import dies_with_us
from bench.core.samples import Samples
from bench.loadgen.locust.clock_sync import ClockMap
from bench.loadgen.locust.work_order import WorkOrder
from bench.loadgen.locust.worker_pool import EventQueue

START_TIMEOUT_S = 60.0


class LocalWorker:
    """One `bench.loadgen.locust.worker_process` and the thread that reads it."""

    clock: ClockMap | None = None
    name = ""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.loadgen.locust.worker_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                preexec_fn=dies_with_us(),
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.live: dict[str, Any] = {}
        self.greeted = False
        self._inbox = EventQueue(log, lambda: f"it ended with code {self._process.poll()}")
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def at_work(self) -> bool:
        return self.alive and self._inbox.is_empty

    def say(self, **command: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # dead: `expect` tells

    def expect(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """The next event of that kind. Raises ToolError when it does not come."""
        return self._inbox.expect(kind, timeout_s)

    def samples(self, order: WorkOrder) -> Samples:
        """Raises OSError where it left none."""
        return Samples.load(Path(order.samples))

    def cpu_s(self) -> float:
        """Spent so far, user and system; 0 once it is gone."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

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
                    self._inbox.put(event)
        except ValueError:
            pass  # closed, or cut in the middle of a line by a kill
        self._process.wait()
        self._inbox.put({"ended": {}})


class LocalWorkers:
    """A pool of as many workers as were ever asked for at once. The first is started before anybody asks."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._workers = [LocalWorker(log)]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(worker.pid for worker in self._workers if worker.alive)

    def ready(self, count: int) -> list[LocalWorker]:
        """Raises ToolError when one does not start."""
        self._workers = [worker for worker in self._workers if worker.alive]
        while len(self._workers) < count:
            self._workers.append(LocalWorker(self._log))
        for worker in self._workers[:count]:
            if not worker.greeted:
                worker.expect("hello", START_TIMEOUT_S)
                worker.greeted = True
        return self._workers[:count]

    def discard(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def close(self) -> None:
        self.discard()
