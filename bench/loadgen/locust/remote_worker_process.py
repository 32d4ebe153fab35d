"""A load-generating process that joins Locust's master over ZeroMQ, from this host or another one.

It runs the trials of `worker_process.TrialExecutor`; only the way of commands and events differs (the
parent's end is `remote_workers`). Commands and events are messages of Locust's own protocol (msgpack, beside
its heartbeats), and files travel in pieces, since hosts share none:

    bench          {"command": {...}} from the master, {"event": {...}} to it
    bench_file     {"digest", "data", "last"}     a reference, before the order that names it
    bench_samples  {"data"}                       a trial's .npz, before `done`
    bench_clock    {"sent_ns"} -> {"sent_ns", "answered_ns"}
    bench_restart  this process starts afresh: after a trial that broke off nothing in it is certain

It ends when the master says so (0), or is gone (4).
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
import time
from typing import Any

import gevent
import locust  # noqa: F401  # patches the world; first, before sockets are made
import numpy as np
from gevent.queue import Queue
from locust import runners
from locust.env import Environment

from bench.core.errors import EXIT_FAILED, EXIT_OK
from bench.core.samples import COLUMNS, Samples
from bench.core.scratch import WORKER_PREFIX, claim
from bench.loadgen.locust.work_order import WorkOrder
from bench.loadgen.locust.worker_process import TrialExecutor

# Under ZeroMQ's and Locust's queues of 1000 messages whatever a trial holds, and no heartbeat waits long.
PIECE_BYTES = 1 << 20
# A worker ends when its master has been silent for this long. Locust's own 60 s would hold a cluster's CPUs
# longer.
_MASTER_SILENT_S = 10


class MasterLink:
    """Locust's connection to the master: what comes over it, and what goes."""

    def __init__(self, host: str, port: int) -> None:
        self.commands: Queue[dict[str, Any]] = Queue()
        self._folder = claim(WORKER_PREFIX)
        self._pieces: dict[str, list[bytes]] = {}
        self.was_told_to_quit = False
        self.runner = Environment().create_worker_runner(host, port)
        for name, listener in (
            ("bench", self._on_command),
            ("bench_file", self._on_file),
            ("bench_clock", self._on_clock),
            ("bench_restart", self._on_restart),
        ):
            self.runner.register_message(name, listener)

    def say(self, **event: Any) -> None:
        # Through JSON, as over a pipe: tuples and enums become what the other end expects.
        self.runner.send_message("bench", {"event": json.loads(json.dumps(event))})

    def deliver(self, _order: WorkOrder, samples: Samples) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(samples, name) for name in COLUMNS})
        for piece in pieces(buffer.getvalue()):
            self.runner.send_message("bench_samples", {"data": piece})

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_command(self, msg: Any, **_: Any) -> None:
        command = msg.data["command"]
        if command.get("goodbye"):
            self.was_told_to_quit = True
            return
        order = command.get("prepare")
        if order and order["reference"]:
            order["reference"]["path"] = str(self._folder / order["reference"]["path"])
        self.commands.put(command)

    def _on_file(self, msg: Any, **_: Any) -> None:
        digest = msg.data["digest"]
        self._pieces.setdefault(digest, []).append(msg.data["data"])
        if msg.data["last"]:
            (self._folder / digest).write_bytes(b"".join(self._pieces.pop(digest)))

    def _on_clock(self, msg: Any, **_: Any) -> None:
        answered_ns = time.monotonic_ns()
        self.runner.send_message("bench_clock", {**msg.data, "answered_ns": answered_ns})

    def _on_restart(self, **_: Any) -> None:
        self.close()
        os.execv(
            sys.executable,
            [sys.executable, "-m", "bench.loadgen.locust.remote_worker_process", *sys.argv[1:]],
        )


def pieces(content: bytes) -> list[bytes]:
    """Cut for the wire; nothing is one empty piece."""
    return [content[i : i + PIECE_BYTES] for i in range(0, max(1, len(content)), PIECE_BYTES)]


def main() -> None:
    """`python -m bench.loadgen.locust.remote_worker_process HOST PORT`, which `bench worker` runs."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("locust").setLevel(logging.ERROR)
    runners.MASTER_HEARTBEAT_TIMEOUT = _MASTER_SILENT_S
    host, port = sys.argv[1], int(sys.argv[2])
    try:
        link = MasterLink(host, port)
    except ConnectionError:
        print(f"error: No Locust master answers at {host}:{port}.", file=sys.stderr)
        os._exit(EXIT_FAILED)
    gevent.spawn(TrialExecutor(link.commands, link.say, link.deliver).serve)
    try:
        link.runner.greenlet.join()  # until Locust's master says quit, or has been silent for too long
    finally:
        link.close()
    os._exit(EXIT_OK if link.was_told_to_quit else EXIT_FAILED)


if __name__ == "__main__":
    main()
