"""A load-generating process on this host: Locust with its own monkey patching, driven over pipes.

It reads commands and writes events, a JSON object a line (the parent's end is `local_workers`):

    {"prepare": {...WorkOrder...}} -> {"prepared": {...}}   payload built, users spawned and connected
    {"start_at": ns}                                        all workers of a trial open at one instant
                                  -> {"live": {...}}       a few times a second
    {"stop_at": ns}                                         no request intended from here on
                                  -> {"done": {...}}       samples lie in the file named in the order

It ends at the end of its input, so it never outlives the process that started it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import gevent
import locust  # patches the world; first, before sockets are made
import numpy as np
import psutil
from gevent.event import Event
from gevent.fileobject import FileObject
from gevent.queue import Queue
from locust.env import Environment

from bench.core import open_files
from bench.core.errors import ToolError
from bench.core.samples import Outcome, Samples
from bench.core.version import __version__
from bench.loadgen.arrivals import share, tape_ns
from bench.loadgen.locust.connections import ConnectionFactory
from bench.loadgen.locust.own_clock import OwnClock
from bench.loadgen.locust.request_loop import Session
from bench.loadgen.locust.users import Traffic, user_class
from bench.loadgen.locust.work_order import WorkOrder
from bench.loadgen.pacing import Alarm, Tape

_LIVE_EVERY_S = 0.25
_CONNECT_TIMEOUT_S = 60.0


Say = Callable[..., None]
Deliver = Callable[[WorkOrder, Samples], None]


class TrialExecutor:
    """Runs one trial after another. `say` sends an event, `deliver` a trial's samples before `done`."""

    def __init__(self, commands: Queue[dict[str, Any]], say: Say, deliver: Deliver) -> None:
        self._commands = commands
        self.say = say
        self._deliver = deliver
        self._process = psutil.Process()

    def serve(self) -> None:
        """Trials, one after another, until the input ends."""
        self.say(
            hello={
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "locust": locust.__version__,
                "bench": __version__,
            }
        )
        while True:
            command = self._commands.get()
            try:
                self._trial(WorkOrder.from_json(command["prepare"]))
            except Exception as error:  # the border of the process: the other end raises it
                self.say(
                    error={"message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
                )

    def _trial(self, order: WorkOrder) -> None:
        _refuse_what_cannot_fit(order)
        connections = ConnectionFactory(order)
        session = Session(check_every=order.check_every if connections.has_reference else 0)
        environment = Environment(user_classes=[user_class(order.protocol)])
        environment.triton = Traffic({order.protocol: connections}, session, order.model, whole_trial=True)
        runner = environment.create_local_runner()
        try:
            self._spawn(runner, order.users)
            gc.collect()
            gc.freeze()
            gc.disable()  # a collection would stop every user of the process at once
            self.say(
                prepared={
                    "users": order.users,
                    "request_bytes": connections.request_bytes,
                    **self._cost(),
                }
            )
            self._measure(runner, session, order)
        finally:
            gc.enable()
            gc.unfreeze()
            runner.quit()
            connections.close()

    def _spawn(self, runner: Any, users: int) -> None:
        complete = Event()
        runner.environment.events.spawning_complete.add_listener(lambda **_: complete.set())
        runner.start(users, spawn_rate=users)
        if not complete.wait(_CONNECT_TIMEOUT_S):
            raise TimeoutError(f"{users} users did not start within {_CONNECT_TIMEOUT_S:g} s")

    def _measure(self, runner: Any, session: Session, order: WorkOrder) -> None:
        start_ns = self._commands.get()["start_at"]
        session.tape = _tape(order, start_ns)
        alarm = Alarm()
        alarm.wait_until(start_ns)
        alarm.close()
        session.gate.set()
        cpu_start = time.process_time()
        live = gevent.spawn(self._tell, session)
        clock = OwnClock()
        watch = gevent.spawn(clock.watch)
        stop = self._commands.get()
        session.end_ns = stop["stop_at"]
        drained = self._drain(session, stop["drain_s"])
        self._work_off(session, order.timeout_s)
        live.kill()
        watch.kill()
        clock.look()
        clock.close()
        runner.stop()
        self._finish(session, order, drained, time.process_time() - cpu_start, clock)

    def _drain(self, session: Session, drain_s: float) -> bool:
        """Wait until every request due before the end is answered, or the time for that is over."""
        assert session.end_ns is not None
        alarm = Alarm()
        alarm.wait_until(session.end_ns)
        alarm.close()
        last_ns = time.monotonic_ns() + int(drain_s * 1e9)
        while not session.is_settled() and time.monotonic_ns() < last_ns:
            gevent.sleep(0.002)  # users end one by one; there is no single event
        return session.is_settled()

    def _work_off(self, session: Session, timeout_s: float) -> None:
        """Nothing more is sent, and what is in flight is waited for as long as it may take.

        A server goes on with requests that nobody waits for: they would be in the next trial's queue.
        """
        if session.tape is not None:
            session.tape.close()
        last_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while session.in_flight and time.monotonic_ns() < last_ns:
            gevent.sleep(0.01)

    def _finish(
        self, session: Session, order: WorkOrder, drained: bool, cpu_s: float, clock: OwnClock
    ) -> None:
        recorder = session.recorder
        if session.tape is not None and session.end_ns is not None:
            now_ns = time.monotonic_ns()
            for due_ns in session.tape.untaken_before(session.end_ns):
                recorder.add(due_ns, now_ns, now_ns, Outcome.UNFINISHED)
        self._deliver(order, recorder.samples())
        self.say(
            done={
                "errors": dict(recorder.errors),
                "values_checked": session.values_checked,
                "drained": drained,
                "cpu_s": cpu_s,
                "stalls": [astuple(stall) for stall in clock.stalls],
            }
        )

    def _tell(self, session: Session) -> None:
        """Live figures over what ended since the last line."""
        told = 0
        recorder = session.recorder
        while True:
            gevent.sleep(_LIVE_EVERY_S)  # as often as a progress line is worth reading
            now = len(recorder)
            fresh = np.array(recorder.done_ns[told:now]) - np.array(recorder.intended_ns[told:now])
            p50, p99 = np.percentile(fresh, [50, 99]) if now > told else (0.0, 0.0)
            self.say(
                live={
                    "requests": now,
                    "p50_ns": float(p50),
                    "p99_ns": float(p99),
                    **self._cost(),
                }
            )
            told = now

    def _cost(self) -> dict[str, Any]:
        """For a parent on another host, which cannot look."""
        try:
            rss_bytes = self._process.memory_info().rss
        except (OSError, psutil.Error):  # no open file is left to look with: the trial goes on
            rss_bytes = 0
        return {"at_ns": time.monotonic_ns(), "cpu_s": time.process_time(), "rss_bytes": rss_bytes}


def _refuse_what_cannot_fit(order: WorkOrder) -> None:
    """Raises ToolError where the users of this worker would have too few open files."""
    open_files.raise_limit()
    needed = open_files.needed(order.users, is_open_loop=order.rate_per_s is not None)
    if needed > open_files.most():
        raise ToolError(
            f"{order.users} users in one process need {needed} open files, and it may have "
            f"{open_files.most()}: use more --processes or --workers, or raise the hard limit (ulimit -Hn)"
        )


def _tape(order: WorkOrder, start_ns: int) -> Tape | None:
    if order.rate_per_s is None:
        return None
    offsets = tape_ns(order.arrival, order.rate_per_s, order.tape_s, order.seed)
    return Tape(share(offsets, order.worker, order.workers).tolist(), start_ns)


def main() -> None:
    commands: Queue[dict[str, Any]] = Queue()
    logging.getLogger("locust").setLevel(logging.ERROR)  # its advice on spawn rates is for web tests
    # Anything else that prints (Locust, a warning) must not break the line protocol.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    def deliver(order: WorkOrder, samples: Samples) -> None:
        samples.save(Path(order.samples))

    gevent.spawn(TrialExecutor(commands, say, deliver).serve)
    for line in FileObject(sys.stdin.fileno(), "r", closefd=False):
        commands.put(json.loads(line))
    os._exit(0)  # the other end is gone: nothing left is worth a clean exit


if __name__ == "__main__":
    main()
