"""What a sweep is asked to measure: axes, durations, seeds; and the cells and order that follow.

`SweepSpec.of` reads every flag and reports all mistakes at once, before anything starts.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.core.cell import Arrival, Cell, Engine, Load, Protocol, ServerConfiguration, SharedMemory, Via
from bench.core.units import percent, plural, queue_delay

QUICK_REPEATS = 1
DEFAULT_REPEATS = 3
# A service that fails more of its requests is not what anybody wants to run.
DEFAULT_MAX_ERRORS = 0.01
# Connections, counters and files take about so long between two trials.
SETTLE_S = 0.3
AUTO_SHORTEST_S, AUTO_LONGEST_S = 2.0, 60.0
# The window of a closed loop is planned so long that it holds about so many answers of each user.
WINDOW_ANSWERS = 8
# `--duration auto` aims at throughput that is known to this share of itself, at 95 %, within the trial.
AUTO_WITHIN = 0.03
# A reference cell is worth its time where there are other cells whose order it watches.
_REFERENCE_FROM = 4
# Fresh trials of the best cell are made unasked where they are at most this share of all trials.
CONFIRM_SHARE = 0.1


class Scenario(StrEnum):
    """The four questions of MLPerf LoadGen, as loads in its manner."""

    SINGLE_STREAM = "single-stream"  # one request of one image in flight; p90 of latency
    MULTI_STREAM = "multi-stream"  # one request of 8 images in flight; p99 of latency
    SERVER = "server"  # Poisson arrivals; does a percentile hold
    OFFLINE = "offline"  # as much as it takes; throughput


class Reload(StrEnum):
    """When a model is loaded again that is loaded as it should be."""

    NEVER = "never"
    REPEAT = "repeat"  # before each repeat, so that the luck of a start is in the interval


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One trial to be measured. `is_reference`: measured again in each round, to show drift."""

    cell: Cell
    repeat: int
    is_reference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """Axes multiply. `parameters` are axes of model parameters: (name, values)."""

    model: str
    batches: tuple[int, ...]
    replicas: tuple[int | None, ...] = (None,)
    instances: tuple[int | None, ...] = (None,)
    max_batches: tuple[int | None, ...] = (None,)
    queue_delays_us: tuple[int | None, ...] = (None,)
    preferred_batches: tuple[int, ...] = ()  # one setting for all, no axis
    parameters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    concurrencies: tuple[int, ...] = ()
    rates_per_s: tuple[float, ...] = ()
    arrival: Arrival = Arrival.POISSON
    protocols: tuple[Protocol, ...] = (Protocol.HTTP,)
    engines: tuple[Engine, ...] = (Engine.LOCUST,)
    shared_memory: tuple[SharedMemory, ...] = (SharedMemory.NONE,)
    vias: tuple[Via | None, ...] = (None,)
    duration_s: float = 5.0
    auto_duration: bool = False
    scenario: Scenario | None = None
    warmup_s: float = 1.0
    repeats: int = DEFAULT_REPEATS
    seed: int = 1
    image_height: int = 224
    image_width: int = 224
    check_fraction: float = 0.01
    timeout_s: float = 60.0
    max_answer_bytes: int | None = None  # None: what the model's outputs need
    processes: int = 0  # 0: as many as the load needs
    workers: int = 0  # of Locust's master, instead of processes; 0: none
    trial_timeout_s: float | None = None  # None: by the engine's own rule
    max_error_fraction: float = DEFAULT_MAX_ERRORS  # a cell with more failed requests is not recommended
    reload: Reload = Reload.NEVER

    def configurations(self) -> tuple[ServerConfiguration, ...]:
        """Each is loaded once, or once a repeat."""
        names = [name for name, _ in self.parameters]
        values = [values for _, values in self.parameters]
        axes = itertools.product(self.replicas, self.instances, self.max_batches, self.queue_delays_us)
        return tuple(
            ServerConfiguration(
                model=self.model,
                replicas=replicas,
                instances=instances,
                max_batch=max_batch,
                max_queue_delay_us=delay,
                preferred_batches=self.preferred_batches,
                parameters=tuple(zip(names, chosen, strict=True)),
            )
            for replicas, instances, max_batch, delay in axes
            for chosen in itertools.product(*values)
        )

    def loads(self) -> tuple[Load, ...]:
        levels: list[dict[str, float | int]] = [{"concurrency": c} for c in self.concurrencies]
        levels += [{"rate_per_s": r} for r in self.rates_per_s]
        return tuple(
            Load(protocol=protocol, batch=batch, shared_memory=memory, via=via, arrival=self.arrival, **level)  # type: ignore[arg-type]  # either key of `levels`
            for protocol, via, memory, batch, level in itertools.product(
                self.protocols, self.vias, self.shared_memory, self.batches, levels
            )
        )

    def cells(self) -> tuple[Cell, ...]:
        """In the order of the axes."""
        return tuple(
            Cell(server=server, load=load, engine=engine)
            for server in self.configurations()
            for load in self.loads()
            for engine in self.engines
        )

    def rounds(self, server: ServerConfiguration) -> Iterator[tuple[PlannedTrial, ...]]:
        """Every cell of a configuration once a round, in seeded random order: drift of the machine
        then spreads over all cells instead of sitting in the last ones."""
        cells = [cell for cell in self.cells() if cell.server == server]
        for repeat in range(self.repeats):
            order = random.Random(f"{self.seed}/{server.key}/{repeat}")
            trials = [PlannedTrial(cell, repeat) for cell in cells]
            order.shuffle(trials)
            # The first cell once more at the end of each round, as a further repeat of it: its spread
            # over the rounds is the machine's, not the load's. Rounds of several loads of the model differ
            # by the luck of each, which would look like drift.
            watched = (
                self.reload is Reload.NEVER
                and self.repeats >= DEFAULT_REPEATS
                and len(cells) >= _REFERENCE_FROM
            )
            trials += [PlannedTrial(cells[0], self.repeats + repeat, is_reference=True)] if watched else []
            yield tuple(trials)

    def trials(self) -> tuple[PlannedTrial, ...]:
        """Every trial of the sweep, in the order it is measured."""
        return tuple(
            trial for server in self.configurations() for trials in self.rounds(server) for trial in trials
        )

    def confirms(self, asked: bool | None) -> bool:
        """Whether the best cell gets fresh trials after all others. `asked`: None where nobody said."""
        can = self.repeats >= DEFAULT_REPEATS and len(self.cells()) > 1
        return can and (self.repeats <= CONFIRM_SHARE * len(self.trials()) if asked is None else asked)

    def fresh(self, cell: Cell) -> tuple[PlannedTrial, ...]:
        """As many trials of a cell again as it had repeats, with arrivals that no repeat of it had."""
        return tuple(PlannedTrial(cell, 2 * self.repeats + number) for number in range(self.repeats))

    def seed_of(self, trial: PlannedTrial) -> int:
        """Of a trial's arrivals: the same for the same load in the same round, so engines and
        configurations meet the same tape; different between rounds."""
        return random.Random(f"{self.seed}/{trial.cell.load.key}/{trial.repeat}").getrandbits(31)

    def windows(self) -> str:
        """What the plan says of the length of windows."""
        grows = f" (grows where a window of it holds fewer than about {WINDOW_ANSWERS} answers per user)"
        return f"windows of {self.duration_s:g} s{grows if self.concurrencies else ''}"

    def errors_rule(self) -> str:
        """What the plan says of cells whose requests fail."""
        share = percent(self.max_error_fraction)
        return (
            f"a cell with more than {share} failed requests is not recommended, and its other repeats are "
            "left out"
        )

    def trial_s(self) -> float:
        return self.warmup_s + self.duration_s + SETTLE_S

    def model_loads(self) -> int:
        """How often a model is loaded for it."""
        return len(self.configurations()) * (self.repeats if self.reload is Reload.REPEAT else 1)

    def estimate_s(self, load_s: float) -> float:
        """About how long it takes, with `load_s` a model load."""
        return len(self.trials()) * self.trial_s() + self.model_loads() * load_s


def columns(cell: Cell) -> Mapping[str, str]:
    """A cell as a person reads it."""
    load = cell.load
    level = (
        f"{load.rate_per_s:g}/s {load.arrival}"
        if load.is_open_loop
        else plural(load.concurrency or 0, "user")
    )
    return {
        "protocol": load.protocol,
        "batch": str(load.batch),
        "instances": "as served" if cell.server.instances is None else str(cell.server.instances),
        "load": level,
        "engine": cell.engine,
        **({} if cell.server.replicas is None else {"replicas": str(cell.server.replicas)}),
        **({} if load.via is None else {"via": str(load.via)}),
        **dict(cell.server.parameters),
    }


def settings(cell: Cell) -> list[str]:
    """What else was asked of the server, and of the way tensors take to it."""
    server, memory = cell.server, cell.load.shared_memory
    return [
        *([] if server.max_batch is None else [f"max batch {server.max_batch}"]),
        *([] if server.max_queue_delay_us is None else [queue_delay(server.max_queue_delay_us)]),
        *(f"{name} {value}" for name, value in server.parameters),
        *([] if memory is SharedMemory.NONE else [f"{memory} shared memory"]),
    ]


def describe(cell: Cell) -> str:
    """One line: batch 8, 2 instances, http, 4 users."""
    said = columns(cell)
    count = said["instances"]
    instances = f"{count} instance{'' if count == '1' else 's'}" if count != "as served" else "as served"
    extra = [f"{k} {said[k]}" for k in ("replicas", "via") if k in said]
    extra += settings(cell)
    engine = [] if cell.engine is Engine.LOCUST else [cell.engine.value]
    return ", ".join([f"batch {said['batch']}", instances, said["protocol"], said["load"], *extra, *engine])
