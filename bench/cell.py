"""A cell: one server configuration x one load x one engine. The unit of every table and plot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    HTTP = "http"
    GRPC = "grpc"


class Engine(StrEnum):
    LOCUST = "locust"
    PERF_ANALYZER = "perf_analyzer"


class Arrival(StrEnum):
    """How an open loop spaces its requests."""

    POISSON = "poisson"
    CONSTANT = "constant"


class SharedMemory(StrEnum):
    NONE = "none"
    SYSTEM = "system"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfiguration:
    """What needs a model reload. None: left as the server has it."""

    model: str
    instances: int | None = None
    max_batch: int | None = None
    max_queue_delay_us: int | None = None  # of the dynamic batcher; None leaves it, -1 switches it off
    parameters: tuple[tuple[str, str], ...] = ()  # model parameters: precision, compile, wire, output...

    @property
    def key(self) -> str:
        parts = [self.model]
        parts += [f"i{self.instances}"] if self.instances is not None else []
        parts += [f"m{self.max_batch}"] if self.max_batch is not None else []
        parts += [f"q{self.max_queue_delay_us}us"] if self.max_queue_delay_us is not None else []
        parts += [f"{name}={value}" for name, value in self.parameters]
        return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Either a concurrency (closed loop: that many requests always in flight) or a rate (open loop)."""

    protocol: Protocol
    batch: int
    concurrency: int | None = None
    rate_per_s: float | None = None
    arrival: Arrival = Arrival.POISSON
    shared_memory: SharedMemory = SharedMemory.NONE

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate_per_s is None):
            raise ValueError("a load has either a concurrency or a rate")

    @property
    def is_open_loop(self) -> bool:
        return self.rate_per_s is not None

    @property
    def key(self) -> str:
        level = f"r{self.rate_per_s:g}{self.arrival[:1]}" if self.is_open_loop else f"c{self.concurrency}"
        memory = "" if self.shared_memory is SharedMemory.NONE else f"-{self.shared_memory}shm"
        return f"{self.protocol}-b{self.batch}-{level}{memory}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    server: ServerConfiguration
    load: Load
    engine: Engine = Engine.LOCUST

    @property
    def key(self) -> str:
        """Names the cell in run folders; equal cells have equal keys, and only they."""
        return f"{self.server.key}-{self.load.key}-{self.engine}"
