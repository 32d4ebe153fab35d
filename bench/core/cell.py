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


class Via(StrEnum):
    """Which way requests take to a service on a cluster."""

    PLATFORM = "platform"  # the service's own address: gateway, proxies and all
    POD = "pod"  # each pod by itself, users spread over them


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfiguration:
    """What needs a model reload. None: left as the server has it."""

    model: str
    replicas: int | None = None  # pods of a service on a cluster
    instances: int | None = None  # on each of them
    max_batch: int | None = None
    max_queue_delay_us: int | None = None  # of the dynamic batcher; None leaves it, -1 switches it off
    preferred_batches: tuple[int, ...] = ()  # of the dynamic batcher; (): left
    parameters: tuple[tuple[str, str], ...] = ()  # model parameters: precision, compile, wire, output...

    @property
    def key(self) -> str:
        parts = [self.model]
        parts += [f"replicas{self.replicas}"] if self.replicas is not None else []
        parts += [f"i{self.instances}"] if self.instances is not None else []
        parts += [f"m{self.max_batch}"] if self.max_batch is not None else []
        parts += [f"q{self.max_queue_delay_us}us"] if self.max_queue_delay_us is not None else []
        parts += [f"p{'+'.join(map(str, self.preferred_batches))}"] if self.preferred_batches else []
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
    via: Via | None = None  # None: the target has one way only

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
        way = "" if self.via is None else f"-via-{self.via}"
        return f"{self.protocol}-b{self.batch}-{level}{memory}{way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    server: ServerConfiguration
    load: Load
    engine: Engine = Engine.LOCUST

    @property
    def key(self) -> str:
        """Names the cell in run folders; equal cells have equal keys, and only they."""
        return f"{self.server.key}-{self.load.key}-{self.engine}"
