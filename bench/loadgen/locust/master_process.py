"""Locust's master in a process of its own, driven over pipes like a worker, a JSON object a line.

It stands between the parent (`remote_workers`), which is not monkey-patched and keeps the clock of a trial,
and workers (`remote_worker_process`) that share neither files nor clock with it: paths in an order become
bytes on the wire and bytes become files again here, and each `prepared` and `done` is passed on with a fresh
reading of that worker's clock.

    in   {"to": id, "command": {...}}     one worker's command; {"to": id, "restart": true}
    out  {"listening": {"port": n}}
         {"from": id, "event": {...}}     one worker's event; {"ended": {...}} when it is lost

It tells the workers to quit and ends when its input ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import gevent
import locust  # noqa: F401  # patches the world; first, before sockets are made
from gevent.event import AsyncResult
from gevent.fileobject import FileObject
from locust.env import Environment
from locust.runners import STATE_MISSING

from bench.loadgen.locust.remote_worker_process import pieces

# A worker's clock is asked for so many times; the quickest answer counts.
_EXCHANGES = 16
_EXCHANGE_TIMEOUT_S = 1.0
_LOOK_EVERY_S = 0.25


class WorkerState:
    """What the master knows of one worker."""

    def __init__(self) -> None:
        self.has: set[str] = set()  # digests of files that it was sent
        self.samples_path = ""  # where this trial's samples go, on this host
        self.arrived: list[bytes] = []
        self.answer: AsyncResult[dict[str, int]] | None = None
        self.is_lost = False


class Relay:
    def __init__(self, host: str, port: int, out: TextIO) -> None:
        self._out = out
        self._workers: dict[str, WorkerState] = {}
        self._runner = Environment().create_master_runner(host, port)
        self._runner.register_message("bench", self._on_event)
        self._runner.register_message("bench_samples", self._on_samples)
        self._runner.register_message("bench_clock", self._on_clock)
        self._say(listening={"port": self._runner.server.port})
        gevent.spawn(self._watch)

    def take(self, line: dict[str, Any]) -> None:
        """A line of the parent's."""
        to = line["to"]
        worker = self._workers.get(to)
        if worker is None:
            return  # lost, and the parent has been told
        if "restart" in line:
            self._runner.send_message("bench_restart", None, to)
            return
        command = line["command"]
        if order := command.get("prepare"):
            worker.samples_path, worker.arrived = order["samples"], []
            if order["reference"]:
                order["reference"]["path"] = self._send_file(to, worker, Path(order["reference"]["path"]))
        self._runner.send_message("bench", {"command": command}, to)

    def quit(self) -> None:
        for name in self._workers:
            self._runner.send_message("bench", {"command": {"goodbye": True}}, name)
            self._runner.send_message("quit", None, name)
        gevent.sleep(0.3)  # ZeroMQ sends on its own thread, and cannot be asked whether it has

    def _send_file(self, to: str, worker: WorkerState, path: Path) -> str:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest not in worker.has:
            parts = pieces(content)
            for i, part in enumerate(parts):
                data = {"digest": digest, "data": part, "last": i == len(parts) - 1}
                self._runner.send_message("bench_file", data, to)
                gevent.sleep(0)  # heartbeats go between the pieces of a large file
            worker.has.add(digest)
        return digest

    def _on_event(self, msg: Any, **_: Any) -> None:
        event = msg.data["event"]
        if "hello" in event:
            self._workers[msg.node_id] = WorkerState()
        worker = self._workers.get(msg.node_id)
        if worker is None or worker.is_lost:
            return
        if "done" in event:
            Path(worker.samples_path).write_bytes(b"".join(worker.arrived))
            worker.arrived = []
        if "prepared" in event or "done" in event:
            gevent.spawn(self._pass_on_with_clock, msg.node_id, worker, event)
        else:
            self._pass_on(msg.node_id, event)

    def _on_samples(self, msg: Any, **_: Any) -> None:
        if worker := self._workers.get(msg.node_id):
            worker.arrived.append(msg.data["data"])

    def _on_clock(self, msg: Any, **_: Any) -> None:
        returned_ns = time.monotonic_ns()
        worker = self._workers.get(msg.node_id)
        if worker is not None and worker.answer is not None:
            worker.answer.set({**msg.data, "returned_ns": returned_ns})

    def _pass_on_with_clock(self, name: str, worker: WorkerState, event: dict[str, Any]) -> None:
        (body,) = event.values()
        body["clock"] = self._exchanges(name, worker)
        self._pass_on(name, event)

    def _exchanges(self, name: str, worker: WorkerState) -> list[dict[str, int]]:
        """One after another; fewer, perhaps none, from a worker that stops answering."""
        found: list[dict[str, int]] = []
        for _ in range(_EXCHANGES):
            worker.answer = AsyncResult()
            self._runner.send_message("bench_clock", {"sent_ns": time.monotonic_ns()}, name)
            try:
                found.append(worker.answer.get(timeout=_EXCHANGE_TIMEOUT_S))
            except gevent.Timeout:
                break
        return found

    def _watch(self) -> None:
        """Locust misses a worker after three heartbeats, about four seconds; so does the parent."""
        while True:
            gevent.sleep(_LOOK_EVERY_S)  # Locust keeps a state and tells nobody when it changes
            for name, worker in list(self._workers.items()):
                node = self._runner.clients.get(name)
                is_missing = node is None or node.state == STATE_MISSING
                if is_missing and not worker.is_lost:
                    worker.is_lost = True
                    self._pass_on(name, {"ended": {}})
                elif worker.is_lost and not is_missing:
                    del self._workers[name]  # back, but in no known state: it joins as a new one
                    self._runner.send_message("bench_restart", None, name)

    def _pass_on(self, name: str, event: dict[str, Any]) -> None:
        self._say(**{"from": name, "event": event})

    def _say(self, **line: Any) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def main() -> None:
    """`python -m bench.loadgen.locust.master_process HOST PORT`; port 0: any free one."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Anything else that prints must not break the line protocol.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    relay = Relay(sys.argv[1], int(sys.argv[2]), out)
    for line in FileObject(sys.stdin.fileno(), "r", closefd=False):
        relay.take(json.loads(line))
    relay.quit()
    os._exit(0)


if __name__ == "__main__":
    main()
