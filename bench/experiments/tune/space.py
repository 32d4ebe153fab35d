"""The space that `bench tune` searches: axes as asked, or defaults for the model and the machine. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from bench.core.cell import Cell, Load, ServerConfiguration
from bench.core.mistakes import Mistakes
from bench.core.spec import SweepSpec
from bench.experiments.tune.history import BATCH, INSTANCES, MAX_BATCH, QUEUE_DELAY, Point, Space, Value

# Users to look through, unless --concurrency or --rate is given.
USERS = (1, 2, 4, 8, 16, 32, 64)
# Instances on a server elsewhere, whose cores are not known.
ELSEWHERE = (1, 2, 4)
# No more instances than this are tried by default, however many cores there are.
_MOST_INSTANCES = 8
# Maximum batch sizes beside the model's own.
_BATCHES = (8, 32)
# Queue delays of the dynamic batcher in microseconds; -1 switches it off.
_DELAYS_US = (-1, 0, 1000)


def instances_for(cores: int, gpus: int) -> tuple[int, ...]:
    """Instance counts to try: 1, 2, 4... up to the cores, or up to 4 on a GPU, whose memory they share."""
    most = 4 if gpus else min(max(1, cores), _MOST_INSTANCES)
    return tuple(n for n in (1, 2, 4, 8) if n <= most)


def with_defaults(
    spec: SweepSpec, asked: Collection[str], config: Mapping[str, Any], instances: tuple[int, ...]
) -> SweepSpec:
    """Give axes that are not in `asked` values to choose from.

    A model without a batch axis has no batching to vary.
    """
    most = int(config.get("max_batch_size", 0))
    largest = max(spec.batches)
    spec = spec if "instances" in asked else replace(spec, instances=instances)
    if most and "max_batch" not in asked:
        spec = replace(
            spec, max_batches=tuple(sorted({b for b in _BATCHES if largest <= b <= most} | {most}))
        )
    if most and "max_queue_delay" not in asked:
        spec = replace(spec, queue_delays_us=_DELAYS_US)
    return spec


def check(spec: SweepSpec, flags: Mistakes) -> None:
    """Leave a mistake in `flags` for each axis that a tuning cannot vary and that has several values."""
    if spec.concurrencies and spec.rates_per_s:
        flags.wrong("--rate", "", "goes without --concurrency: users, or arrivals a second")
    if len(spec.protocols) > 1:
        flags.wrong("--protocol", ",".join(spec.protocols), "give one")
    if len(spec.shared_memory) > 1:
        flags.wrong("--shared-memory", ",".join(spec.shared_memory), "give one")
    if len(spec.replicas) > 1:
        flags.wrong("--replicas", ",".join(map(str, spec.replicas)), "give one: what is tuned is a pod")
    if len(spec.vias) > 1:
        flags.wrong("--via", ",".join(map(str, spec.vias)), "give one")
    if any(name in (INSTANCES, MAX_BATCH, QUEUE_DELAY, BATCH) for name, _ in spec.parameters):
        flags.wrong("--parameter", "", "is named as an axis of the server; that axis has its own flag")


def space_of(spec: SweepSpec) -> Space:
    """The axes of a spec. Model parameters come first: they matter most, and all else depends on them."""
    numbers: tuple[tuple[str, tuple[Value, ...]], ...] = (
        (INSTANCES, _ascending(spec.instances)),
        (MAX_BATCH, _ascending(spec.max_batches)),
        (QUEUE_DELAY, _ascending(spec.queue_delays_us)),
        (BATCH, _ascending(spec.batches)),
    )
    levels = spec.rates_per_s or tuple(map(float, spec.concurrencies))
    return Space((*spec.parameters, *numbers), tuple(sorted(levels)), is_open_loop=bool(spec.rates_per_s))


def _ascending(values: tuple[int | None, ...]) -> tuple[Value, ...]:
    return tuple(sorted(values, key=lambda value: -2 if value is None else value))


def cell_of(space: Space, spec: SweepSpec, point: Point) -> Cell:
    """The cell that measures a point."""
    named, level = space.named(point.configuration), space.levels[point.level]
    load = Load(
        protocol=spec.protocols[0],
        batch=space.batch(point.configuration),
        concurrency=None if space.is_open_loop else int(level),
        rate_per_s=level if space.is_open_loop else None,
        arrival=spec.arrival,
        shared_memory=spec.shared_memory[0],
        via=spec.vias[0],
    )
    delay_us = _number(named[QUEUE_DELAY])
    server = ServerConfiguration(
        model=spec.model,
        replicas=spec.replicas[0],
        instances=_number(named[INSTANCES]),
        max_batch=_number(named[MAX_BATCH]),
        max_queue_delay_us=delay_us,
        preferred_batches=() if delay_us == -1 else spec.preferred_batches,  # nothing batches, or prefers
        parameters=tuple((name, str(named[name])) for name, _ in spec.parameters),
    )
    return Cell(server=server, load=load)


def _number(value: Value) -> int | None:
    return None if value is None else int(value)
