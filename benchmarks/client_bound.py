"""A generator at its limit: many users of a small model, answered by Python, and from Triton's own cache.

The cache answers without the model: only then is Triton fast enough for one process, and only when the
process compares every answer's values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

from bench.analysis import checks
from bench.analysis.summary import summarize
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.target import Target
from bench.core.trial import Plan, Served, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.sensors.host import usable_cores
from bench.server.control import Triton
from bench.server.embedded import Tritonserver, find_tritonserver, start
from bench.server.reference_answers import refer
from bench.server.repository import SHIPPED
from bench.server.serving import Serving
from benchmarks.findings import Goal, Table
from benchmarks.rig import IMAGE

USERS, MODEL, WARMUP_S = 64, "null_small", 0.5
CACHE_BYTES = 16 << 20

ABOUT = (
    f"Client-bound: {USERS} users on the 64-byte model. A load generator at its limit must be labelled "
    "`client-bound`, and no other one may be. `python`: the model answers and 1 % of the answers are "
    "compared; Triton uses most of the machine, and one process is not the limit. `cache`: Triton "
    "answers from its response cache and every answer is compared. Then, over HTTP, one process is at "
    "its limit, and `--processes auto` must start another one. (Over gRPC, on two cores, Triton itself "
    "is slower than one process.)"
)


@dataclass(frozen=True, slots=True)
class Bound:
    """One trial. `asked`: processes, 0 for auto."""

    protocol: Protocol
    answered_by: str
    asked: int
    processes: int
    rate_per_s: float
    busiest: float  # cores
    labelled: bool


def measure(seconds: float, say: Callable[[str], None]) -> list[Bound]:
    """From Python with one process, over both protocols; from the cache with one, and with `auto`."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        return [
            *_served(
                Path(folder), "python", 0.01, tuple((protocol, 1) for protocol in Protocol), seconds, say
            ),
            *_served(Path(folder), "cache", 1.0, ((Protocol.HTTP, 1), (Protocol.HTTP, 0)), seconds, say),
        ]


def _served(
    scratch: Path,
    by: str,
    check_fraction: float,
    asked: Sequence[tuple[Protocol, int]],
    seconds: float,
    say: Callable[[str], None],
) -> Iterator[Bound]:
    with server(scratch, cached=by == "cache") as (target, served), LocustEngine() as engine:
        for protocol, count in asked:
            say(f"{USERS} users, {protocol}, answered by {by}, {count or 'auto'} processes")
            trial = engine.measure(_plan(protocol, count, check_fraction, seconds), target, served)
            yield _bound(protocol, by, count, trial)


@contextmanager
def server(scratch: Path, *, cached: bool) -> Iterator[tuple[Target, Served]]:
    """The 64-byte model; `cached`: Triton answers from its response cache, but for the first request."""
    repository = scratch / f"repository-{cached}"
    copytree(SHIPPED / MODEL, repository / MODEL)
    binary = find_tritonserver()
    if cached:
        binary = _caching(binary, scratch)
        with (repository / MODEL / "config.pbtxt").open("a") as config:
            config.write("response_cache { enable: true }\n")
    with start(repository, log=scratch / "server.log", server=binary, models=[MODEL]) as triton:
        control = Triton(triton.target)
        try:
            served = Serving(control, MODEL).configure(ServerConfiguration(model=MODEL))
            yield triton.target, refer(served, IMAGE, IMAGE, scratch)
        finally:
            control.close()


def _caching(binary: Tritonserver, scratch: Path) -> Tritonserver:
    """The same server with its cache (nvidia-pytriton's lies beside the backends), and no more HTTP threads
    than cores: it answers from the cache in them."""
    caches = binary.binary.parent.parent / "caches"
    flags = [f"--http-thread-count={usable_cores()}", f"--cache-config=local,size={CACHE_BYTES}"]
    flags += [f"--cache-directory={caches}"] if caches.is_dir() else []
    script = scratch / "tritonserver"
    script.write_text(f'#!/bin/sh\nexec {binary.binary} "$@" {" ".join(flags)}\n')
    script.chmod(0o755)
    return replace(binary, binary=script)


def _plan(protocol: Protocol, asked: int, check_fraction: float, seconds: float) -> Plan:
    load = Load(protocol=protocol, batch=1, concurrency=USERS)
    cell = Cell(server=ServerConfiguration(model=MODEL), load=load)
    return Plan(
        cell=cell,
        repeat=0,
        seed=1,
        warmup_s=WARMUP_S,
        duration_s=seconds,
        workers=asked,
        check_fraction=check_fraction,
    )


def _bound(protocol: Protocol, by: str, asked: int, trial: Trial) -> Bound:
    return Bound(
        protocol=protocol,
        answered_by=by,
        asked=asked,
        processes=trial.generator.workers,
        rate_per_s=summarize(trial).throughput_req_per_s,
        busiest=checks.busiest_worker(trial),
        labelled=any(finding.code == "client-bound" for finding in checks.findings_of(trial)),
    )


def table(bound: Sequence[Bound]) -> Table:
    head = ("protocol", "answered by", "--processes", "processes", "requests/s",
            "busiest process, % of a core", "client-bound")  # fmt: skip
    rows = tuple(
        (
            each.protocol.value,
            each.answered_by,
            str(each.asked or "auto"),
            str(each.processes),
            f"{each.rate_per_s:,.0f}",
            f"{each.busiest * 100:.0f}",
            "yes" if each.labelled else "no",
        )
        for each in bound
    )
    return Table(f"{USERS} users on the 64-byte model, {usable_cores()} cores", head, rows)


def goal(bound: Sequence[Bound]) -> Goal:
    """Not labelled where Triton is the limit; labelled where the process is, and then `auto` takes more."""
    held = [_is_right(each, limited=each.answered_by == "cache") for each in bound]
    return Goal(
        "only a load generator at its limit is labelled client-bound; --processes auto changes it",
        f"{sum(held)} of {len(held)} trials as expected",
        "yes" if all(held) else "no",
    )


def _is_right(bound: Bound, *, limited: bool) -> bool:
    if bound.asked == 0:
        return bound.processes > 1
    return bound.labelled is limited
