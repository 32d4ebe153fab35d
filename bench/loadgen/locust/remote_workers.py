"""The parent's end of workers that join Locust's master over the network, on this host or another one.

`RemoteWorkers` is the pool. It starts the master (`master_process`), and each of its `RemoteWorker` stands
for one `remote_worker_process` on the other side of the master.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.core.child import dies_with_us
from bench.core.errors import ToolError
from bench.core.samples import Samples
from bench.core.version import __version__
from bench.loadgen.locust.clock_sync import ClockMap, Offset, from_json, offset_of
from bench.loadgen.locust.work_order import WorkOrder
from bench.loadgen.locust.worker_pool import EventQueue

# Workers on a cluster may have to pull an image before they can join.
START_TIMEOUT_S = 300.0
# A trial goes on without a lost worker that has not joined again by then.
REJOIN_TIMEOUT_S = 15.0
_LOCAL_TIMEOUT_S = 60.0
_MOMENTS = ("start_at", "stop_at")


class RemoteWorker:
    """One `bench.loadgen.locust.remote_worker_process` on the other side of the master."""

    def __init__(
        self,
        name: str,
        hello: dict[str, Any],
        tell: Callable[..., None],
        process: subprocess.Popen[bytes] | None,
        log: Path,
    ) -> None:
        self.name = name
        self.hello = hello
        self.live: dict[str, Any] = {}
        self.clock: ClockMap | None = None
        self._before: dict[str, Any] = {}  # the live figures before the last ones
        self._tell, self._process = tell, process
        self._ended = False
        self._inbox = EventQueue(log, lambda: f"the one on {hello['host']} is gone")

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return not self._ended and (self._process is None or self._process.poll() is None)

    @property
    def at_work(self) -> bool:
        return self.alive and self._inbox.is_empty

    def say(self, **command: Any) -> None:
        """Moments in the command are of our clock, and leave as the worker's."""
        if "prepare" in command:
            self.clock, self.live, self._before = None, {}, {}
        for name in _MOMENTS:
            if name in command and self.clock is not None:
                command[name] = self.clock.theirs(command[name])
        self._tell(to=self.name, command=command)

    def expect(self, kind: str, timeout_s: float) -> dict[str, Any]:
        """The next event of that kind. Raises ToolError when it does not come."""
        body = self._inbox.expect(kind, timeout_s)
        if "clock" in body:
            self._set_clock(body["clock"])
        if kind == "prepared":
            self.live = body  # what it has cost so far; nothing has been asked yet
        return body

    def samples(self, order: WorkOrder) -> Samples:
        """On our clock. Raises OSError or ValueError where they did not arrive whole."""
        recorded = Samples.load(Path(order.samples))
        return self.clock.samples(recorded) if self.clock else recorded

    def cpu_s(self) -> float:
        """What it last reported, and for the time since then the pace between its last two reports."""
        now, before = self.live, self._before
        if "cpu_s" not in now:
            return 0.0
        told: float = now["cpu_s"]
        if "cpu_s" not in before or self.clock is None:
            return told
        pace: float = (told - before["cpu_s"]) / max(1, now["at_ns"] - before["at_ns"])
        since_ns: int = self.clock.theirs(time.monotonic_ns()) - now["at_ns"]
        return told + pace * max(0, since_ns)

    def rss_bytes(self) -> int:
        return int(self.live.get("rss_bytes", 0))

    def kill(self) -> None:
        """A process of ours is killed; one elsewhere starts afresh and joins again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        elif not self._ended:
            self._tell(to=self.name, restart=True)
        self._ended = True

    def take(self, event: dict[str, Any]) -> None:
        """From the master's reader."""
        if "live" in event:
            self._before, self.live = self.live, event["live"]
            return
        if "ended" in event:
            self._ended = True
        self._inbox.put(event)

    def _set_clock(self, rows: list[dict[str, int]]) -> None:
        if not rows:
            raise ToolError(f"The clock of the Locust worker on {self.hello['host']} could not be read.")
        offset: Offset = offset_of(from_json(rows))
        self.clock = ClockMap(self.clock.before, offset) if self.clock else ClockMap(offset)


class RemoteWorkers:
    """Locust's master, as a process, and the workers that came to it.

    `address` None: `count` workers are started here. Otherwise the master listens there and waits for
    workers that somebody else starts.
    """

    def __init__(self, count: int, address: tuple[str, int] | None, log: Path) -> None:
        self._count, self._log, self._is_local = count, log, address is None
        host, port = address or ("127.0.0.1", 0)
        self._workers: dict[str, RemoteWorker] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._joined = threading.Condition()
        self._has_met_all = False
        self._master = self._start("bench.loadgen.locust.master_process", host, str(port), pipe=True)
        self._listening: queue.Queue[int] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = self._port(host, port)
        self._fill()

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(pid for pid, process in self._processes.items() if process.poll() is None)

    def ready(self, count: int) -> list[RemoteWorker]:
        """`count` workers, or fewer when lost ones do not come back in time.

        Raises ToolError when too few ever came, none is left, or one runs another version.
        """
        self._fill()
        limit_s = _LOCAL_TIMEOUT_S if self._is_local else START_TIMEOUT_S
        deadline = time.monotonic() + (REJOIN_TIMEOUT_S if self._has_met_all else limit_s)
        wanted = count if self._has_met_all else self._count
        with self._joined:
            while len(self._alive()) < wanted and time.monotonic() < deadline:
                self._joined.wait(0.2)
                if self._master.poll() is not None:
                    raise ToolError(
                        f"Locust's master ended with code {self._master.returncode}. Its log: {self._log}."
                    )
        found = self._alive()
        if not found or (len(found) < wanted and not self._has_met_all):
            raise ToolError(
                f"{len(found)} of {wanted} Locust workers came to port {self.port} within {limit_s:g} s. "
                f"Start them with `bench worker --master HOST:{self.port}`, or look at their logs."
            )
        self._has_met_all = True
        _refuse_others(found)
        return found[:count]

    def discard(self) -> None:
        for worker in self._alive():
            worker.kill()

    def close(self) -> None:
        """Workers are told to quit; what was started here is gone when this returns."""
        with contextlib.suppress(BrokenPipeError):
            if self._master.stdin is not None:
                self._master.stdin.close()
        for process in (self._master, *self._processes.values()):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if self._master.stdout is not None:
            self._master.stdout.close()

    def _alive(self) -> list[RemoteWorker]:
        return [worker for worker in self._workers.values() if worker.alive]

    def _fill(self) -> None:
        """A process for each local worker there should be."""
        self._processes = {pid: process for pid, process in self._processes.items() if process.poll() is None}
        while self._is_local and len(self._processes) < self._count:
            process = self._start("bench.loadgen.locust.remote_worker_process", "127.0.0.1", str(self.port))
            self._processes[process.pid] = process

    def _start(self, module: str, *words: str, pipe: bool = False) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as sink:
            return subprocess.Popen(
                [sys.executable, "-m", module, *words],
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else sink,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                preexec_fn=dies_with_us(),
            )

    def _port(self, host: str, port: int) -> int:
        try:
            listening = self._listening.get(timeout=_LOCAL_TIMEOUT_S)
        except queue.Empty:
            listening = 0
        if not listening:
            self.close()
            raise ToolError(
                f"Locust's master cannot listen at {host}:{port}: give an address of this machine and a "
                f"port that is free. Its log: {self._log}."
            )
        return listening

    def _tell(self, **line: Any) -> None:
        assert self._master.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it ended: the reader ends every worker
            self._master.stdin.write(json.dumps(line).encode() + b"\n")
            self._master.stdin.flush()

    def _read(self) -> None:
        assert self._master.stdout is not None
        with contextlib.suppress(ValueError):  # closed, or cut in the middle of a line
            for line in self._master.stdout:
                self._take(json.loads(line))
        self._listening.put(0)
        for worker in self._workers.values():
            worker.take({"ended": {}})

    def _take(self, line: dict[str, Any]) -> None:
        if "listening" in line:
            self._listening.put(line["listening"]["port"])
            return
        name, event = line["from"], line["event"]
        if "hello" in event:
            self._join(name, event["hello"])
        elif name in self._workers:
            self._workers[name].take(event)

    def _join(self, name: str, hello: dict[str, Any]) -> None:
        process = self._processes.get(hello["pid"]) if self._is_local else None
        worker = RemoteWorker(name, hello, self._tell, process, self._log)
        with self._joined:
            self._workers = {**self._workers, name: worker}
            self._joined.notify_all()


def _refuse_others(workers: list[RemoteWorker]) -> None:
    for worker in workers:
        if worker.hello["bench"] != __version__:
            raise ToolError(
                f"The worker on {worker.hello['host']} runs bench {worker.hello['bench']}, here it is "
                f"{__version__}: install the same version on both."
            )
