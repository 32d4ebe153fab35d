"""Does the generator's memory grow with time? One longer trial a protocol and size, in a fresh process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from bench.core.cell import Load, Protocol
from bench.core.trial import Live
from bench.loadgen.locust.engine import LocustEngine
from benchmarks.findings import Goal, Table
from benchmarks.rig import LABELS, Rig, plan

RECORD_BYTES = 32  # the four columns of a request: kept by design, until the trial is over
USERS = 4
WARMUP_S = 3.0  # buffers have met the largest answer, and the heap its size
ALLOWED_BYTES = 2 << 20  # the allocator's steps
_CASES = (("null_small", 1), ("null_vit", 1), ("null_vit", 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    model: str
    batch: int
    protocol: Protocol
    seconds: float
    requests: int
    start_bytes: int
    end_bytes: int

    @property
    def beyond_record_bytes(self) -> int:
        """What grew besides the record of the requests."""
        return self.end_bytes - self.start_bytes - RECORD_BYTES * self.requests


class _Watch:
    """Resident memory and requests, at the first look after the warm-up and at the last one."""

    def __init__(self, engine: LocustEngine) -> None:
        self._engine = engine
        self.looks: list[tuple[float, int, int]] = []

    def __call__(self, live: Live) -> None:
        if live.seconds >= WARMUP_S:
            rss = sum(rss_bytes(pid) for pid in self._engine.pids)
            self.looks.append((time.monotonic(), live.requests, rss))


def rss_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def run(server: Rig, seconds: float, say: Callable[[str], None]) -> list[Growth]:
    found = []
    for model, batch in _CASES:
        for protocol in Protocol:
            say(f"memory over {seconds:g} s: {model} {batch} {LABELS[protocol]}")
            found.append(_grow(server, model, batch, protocol, seconds))
    return found


def _grow(server: Rig, model: str, batch: int, protocol: Protocol, seconds: float) -> Growth:
    load = Load(protocol=protocol, batch=batch, concurrency=USERS)
    asked = plan(model, load, seconds=seconds, warmup_s=WARMUP_S)
    with LocustEngine() as engine:
        watch = _Watch(engine)
        engine.measure(asked, server.target, server.served[model], watch)
    first, last = watch.looks[0], watch.looks[-1]
    return Growth(
        model=model,
        batch=batch,
        protocol=protocol,
        seconds=last[0] - first[0],
        requests=last[1] - first[1],
        start_bytes=first[2],
        end_bytes=last[2],
    )


def table(found: Sequence[Growth]) -> Table:
    return Table(
        "Memory over time",
        (
            "model",
            "batch",
            "protocol",
            "seconds",
            "requests",
            "RSS MB, start",
            "RSS MB, end",
            "beyond records MB",
        ),
        tuple(
            (
                entry.model,
                str(entry.batch),
                LABELS[entry.protocol],
                f"{entry.seconds:.1f}",
                f"{entry.requests:,}",
                f"{entry.start_bytes / 1e6:.1f}",
                f"{entry.end_bytes / 1e6:.1f}",
                f"{entry.beyond_record_bytes / 1e6:+.2f}",
            )
            for entry in found
        ),
        f"{USERS} users, one process. The record of a request takes {RECORD_BYTES} bytes until the trial "
        "ends. The last column is the growth beyond these records.",
    )


def goal(found: Sequence[Growth]) -> Goal:
    worst = max(found, key=lambda entry: entry.beyond_record_bytes)
    figure = f"at most {worst.beyond_record_bytes / 1e6:+.2f} MB in {worst.seconds:.0f} s"
    said = "yes" if worst.beyond_record_bytes <= ALLOWED_BYTES else "no"
    return Goal(f"memory: no growth beyond the records (up to {ALLOWED_BYTES >> 20} MiB)", figure, said)
