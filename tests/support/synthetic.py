"""Run folders with plausible, seeded trials in virtual time: what views and comparisons are tested on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.cell import Arrival, Cell, Engine, Load, Protocol, ServerConfiguration
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.samples import Outcome, Samples, Window
from bench.core.trial import Counters, Generator, Plan, Trial

START_NS = 1_000_000_000_000
MACHINE = {"cpu": "Example CPU @ 2.0 GHz", "cores": "8", "memory_bytes": str(32 << 30), "os": "Example OS 12"}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A server whose execution takes `fixed_ms + image_ms * batch`, times `slowdown`."""

    fixed_ms: float = 6.0
    image_ms: float = 2.5
    overhead_ms: float = 0.8  # client and network
    sigma: float = 0.12  # of the logarithm of a request's time
    repeat_sigma: float = 0.01  # of the logarithm of a repeat's speed
    slowdown: float = 1.0
    cores: int = 4  # instances beyond this do not help
    error_share: float = 0.0
    gpu: bool = False
    requests: int | None = None  # a trial; None: as many as the window holds
    seed: int = 1


def cell(
    *, batch: int = 8, instances: int | None = 1, protocol: str = "http", concurrency: int | None = 4,
    rate_per_s: float | None = None, engine: str = "locust", model: str = "python_vit",
    parameters: tuple[tuple[str, str], ...] = (),
) -> Cell:  # fmt: skip
    load = Load(
        protocol=Protocol(protocol),
        batch=batch,
        concurrency=None if rate_per_s else concurrency,
        rate_per_s=rate_per_s,
        arrival=Arrival.POISSON,
    )
    server = ServerConfiguration(model=model, instances=instances, parameters=parameters)
    return Cell(server=server, load=load, engine=Engine(engine))


def trial(
    of: Cell, repeat: int = 0, world: World | None = None, *, duration_s: float = 5.0, warmup_s: float = 1.0
) -> Trial:
    """One trial of `of` in `world`, the same for the same arguments."""
    world = world or World()
    seed = np.random.SeedSequence([world.seed, repeat, *of.key.encode()])
    random = np.random.default_rng(seed)
    speed = world.slowdown * float(np.exp(random.normal(0, world.repeat_sigma)))
    service_ms = (world.fixed_ms + world.image_ms * of.load.batch) * speed
    window = Window(START_NS + round(warmup_s * 1e9), START_NS + round((warmup_s + duration_s) * 1e9))
    end_ns = window.end_ns + round(0.2 * 1e9)
    make = _open_loop if of.load.is_open_loop else _closed_loop
    samples = make(of, world, service_ms, end_ns, random)
    return Trial(
        plan=Plan(cell=of, repeat=repeat, seed=repeat, warmup_s=warmup_s, duration_s=duration_s),
        window=window,
        samples=samples,
        errors=_errors(samples),
        generator=Generator(workers=1, cpu_s=(0.3 * duration_s,), max_rss_bytes=120 << 20),
        counters=_counters(of, samples, window, service_ms),
        planned=len(samples) if of.load.is_open_loop else None,
        values_checked=10,
        reference="transformers on the CPU",
        machine=_machine(world, of, window, random),
        engine={"name": str(of.engine)},
    )


def _servers(of: Cell, world: World) -> int:
    return min(of.server.instances or 1, world.cores)


def _closed_loop(
    of: Cell, world: World, service_ms: float, end_ns: int, random: np.random.Generator
) -> Samples:
    users, batch_limit = of.load.concurrency or 1, _servers(of, world)
    mean_ms = max(service_ms, users * service_ms / batch_limit) + world.overhead_ms
    count = int((end_ns - START_NS) / 1e6 / mean_ms * 1.2) + 20
    if world.requests is not None:
        count = max(2, world.requests // users)
        mean_ms = (end_ns - START_NS) / 1e6 / count
    took = np.exp(random.normal(0, world.sigma, (users, count))) * mean_ms * 1e6
    done = START_NS + np.cumsum(took, axis=1)
    sent = done - took
    kept = sent < end_ns  # what is in flight at the end is waited for
    return _samples(sent[kept], sent[kept], done[kept], world, random)


def _open_loop(
    of: Cell, world: World, service_ms: float, end_ns: int, random: np.random.Generator
) -> Samples:
    """Arrivals of a Poisson process; waits as of M/M/1 below capacity, a growing queue above it."""
    rate = of.load.rate_per_s or 1.0
    due = START_NS + np.cumsum(
        random.exponential(1e9 / rate, int(rate * (end_ns - START_NS) / 1e9 * 1.3) + 50)
    )
    due = due[due < end_ns]
    busy = rate * service_ms / 1e3 / _servers(of, world)
    took = np.exp(random.normal(0, world.sigma, len(due))) * (service_ms + world.overhead_ms) * 1e6
    if busy < 1:
        waits = random.exponential(busy / (1 - busy) * service_ms * 1e6, len(due)) * (
            random.random(len(due)) < busy
        )
    else:
        waits = (due - START_NS) * (busy - 1)
    late = random.exponential(1.5e5, len(due))
    return _samples(due, due + late, due + late + took + waits, world, random)


def _samples(intended: Any, sent: Any, done: Any, world: World, random: np.random.Generator) -> Samples:
    outcome = np.where(random.random(len(done)) < world.error_share, Outcome.SERVER_ERROR, Outcome.OK)
    columns = [np.asarray(c).astype(np.int64) for c in (intended, sent, done, outcome)]
    return Samples.merge([Samples(*columns)])


def _errors(samples: Samples) -> dict[str, int]:
    failed = len(samples.failed())
    return {"Failed to process the request: <b>out of memory</b>": failed} if failed else {}


def _counters(of: Cell, samples: Samples, window: Window, service_ms: float) -> Counters:
    failed = len(samples.done_in(window).failed())
    done = samples.done_in(window).good()
    n, batch = len(done), of.load.batch
    mean_ns = float(done.service_ns.mean()) if n else 0.0
    parts = [0.03 * service_ms * 1e6, 0.9 * service_ms * 1e6, 0.07 * service_ms * 1e6]
    total = max(sum(parts), mean_ns - 0.7e6)
    queue = total - sum(parts)
    return Counters(
        inference_count=n * batch,
        execution_count=n,
        success_count=n,
        fail_count=failed,
        success_ns=int(total * n),
        queue_ns=int(queue * n),
        compute_input_ns=int(parts[0] * n),
        compute_infer_ns=int(parts[1] * n),
        compute_output_ns=int(parts[2] * n),
        batches={batch: (n, int(parts[1] * n))},
    )


def _machine(
    world: World, of: Cell, window: Window, random: np.random.Generator
) -> dict[str, tuple[tuple[int, float], ...]]:
    at = range(START_NS, window.end_ns + 200_000_000, 250_000_000)
    levels = {"cpu_busy_percent": 60.0, "server_cpu_cores": 3.0, "client_cpu_cores": 0.3}
    levels |= {"cpu_pressure_some_percent": 2.0, "cpu_steal_percent": 0.1}
    if world.gpu:
        busy = min(98.0, 35.0 * (of.server.instances or 1) + of.load.batch)
        levels |= {
            "gpu0_utilisation_percent": busy,
            "gpu0_power_w": 120 + 3 * busy,
            "gpu0_sm_clock_mhz": 1755.0,
        }
        levels |= {"gpu0_memory_used_bytes": 3.2e9, "gpu0_temperature_c": 58.0}
    series = {
        name: tuple((t, float(level * (1 + random.normal(0, 0.05)))) for t in at)
        for name, level in levels.items()
    }
    if world.gpu:
        power = levels["gpu0_power_w"]
        series["gpu0_energy_j"] = tuple((t, 1e6 + (t - START_NS) / 1e9 * power) for t in at)
    return series


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a folder is made of. `spoiled`: cell key -> changes to each of its trials."""

    cells: tuple[Cell, ...]
    world: World = World()
    repeats: int = 3
    slo: str = ""
    name: str = "example"
    failed: Mapping[str, str] = field(default_factory=dict)
    not_run: frozenset[str] = frozenset()
    duration_s: float = 5.0
    worlds: Mapping[str, World] = field(default_factory=dict)  # cell key -> its own
    machine: Mapping[str, str] = field(default_factory=lambda: MACHINE)
    created_at: str = "2026-01-02T03:04:05+00:00"
    weights: str = "random weights from seed 0, architecture tiny"
    spec: Mapping[str, Any] = field(default_factory=dict)  # of it, what differs


def record(study: Study) -> RunRecord:
    servers = {of.server.key: of.server for of in study.cells}
    served = {
        key: {
            "name": s.model,
            "max_batch_size": 64,
            "instance_group": [{"count": s.instances or 1, "kind": "KIND_CPU"}],
        }
        for key, s in servers.items()
    }
    return RunRecord(
        name=study.name,
        created_at=study.created_at,
        command=("bench", "sweep", "--batch", "1,8,32", "--instances", "1,2"),
        seed=1,
        spec={"model": study.cells[0].server.model, "duration_s": study.duration_s, "warmup_s": 1.0,
              "repeats": study.repeats, **study.spec},
        machine=dict(study.machine),
        versions={"bench": "0.1.0", "tritonserver": "2.51.0", "locust": "2.47.0"},
        target="embedded tritonserver on this machine",
        weights=study.weights,
        served=served,
        slo=study.slo,
        failed=dict(study.failed),
        planned=study.cells,
        finished_at="" if study.not_run else "2026-01-02T03:24:05+00:00",
    )  # fmt: skip


def write(path: Path, study: Study) -> RunFolder:
    """The folder of a study: failed and not-run cells have no trials."""
    folder = RunFolder.create(path, record(study))
    for of in study.cells:
        if of.key in study.failed or of.key in study.not_run:
            continue
        for repeat in range(study.repeats):
            world = study.worlds.get(of.key, study.world)
            folder.write_trial(trial(of, repeat, world, duration_s=study.duration_s))
    return folder


def grid(
    batches: Iterable[int] = (1, 8, 32), instances: Iterable[int] = (1, 2),
    protocols: Iterable[str] = ("http", "grpc"), levels: Iterable[int] = (4,),
    engines: Iterable[str] = ("locust",), rates_per_s: Iterable[float] = (), model: str = "python_vit",
) -> tuple[Cell, ...]:  # fmt: skip
    loads: list[dict[str, Any]] = [{"concurrency": level} for level in levels]
    loads += [{"rate_per_s": rate} for rate in rates_per_s]
    return tuple(
        cell(batch=b, instances=i, protocol=p, engine=e, model=model, **load)
        for i in instances for p in protocols for b in batches for load in loads for e in engines
    )  # fmt: skip


def every_kind(path: Path, **changes: Any) -> RunFolder:
    """Closed and open loop, two engines, a failed, a not-run, an INVALID and an erring cell, and an SLO."""
    cells = (
        *grid(levels=(1, 4, 16)),
        *grid(batches=(8,), levels=(4,), engines=("perf_analyzer",)),
        *grid(batches=(1, 8), protocols=("http",), levels=(), rates_per_s=(20.0, 60.0, 200.0)),
    )
    failed = {of.key: "out of memory: <script>alert(1)</script>" for of in cells
              if of.load.batch == 32 and of.server.instances == 2 and of.load.protocol == "grpc"}  # fmt: skip
    slow_client = cell(batch=1, instances=2, protocol="grpc", concurrency=16)
    erring = cell(batch=8, instances=2, protocol="grpc", concurrency=16)
    base = Study(
        cells=cells,
        world=World(gpu=True),
        slo="p99=100ms,errors=0.1%",
        failed=failed,
        not_run=frozenset({cell(batch=32, instances=1, protocol="grpc", concurrency=16).key}),
        worlds={erring.key: World(gpu=True, error_share=0.02), slow_client.key: World(gpu=True, sigma=0.9)},
    )
    folder = write(path, dataclasses.replace(base, **changes))
    spoiled = trial(slow_client, 0, World(gpu=True, sigma=0.9))
    folder.write_trial(
        dataclasses.replace(spoiled, generator=dataclasses.replace(spoiled.generator, cpu_s=(4.95,)))
    )
    return folder
