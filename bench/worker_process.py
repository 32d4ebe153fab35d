"""One `bench.locust_worker` as its parent sees it: commands go in, events come out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from bench.errors import ToolError


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
