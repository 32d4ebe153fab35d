"""All that a load-generating process must know of one trial, as it travels to that process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.core.cell import Arrival, Protocol, SharedMemory
from bench.core.trial import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """All that a load-generating process must know of a trial; travels as one line of JSON."""

    http_url: str
    grpc_address: str
    spread_over: tuple[tuple[str, str], ...] = ()  # further such pairs; users take turns over all
    model: str
    metadata: Mapping[str, Any]
    max_batch: int
    protocol: Protocol
    batch: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    model_version: str = ""
    reference: Reference | None = None
    shared_memory: SharedMemory = SharedMemory.NONE
    image_height: int = 224
    image_width: int = 224
    payload_seed: int = 0
    timeout_s: float = 60.0
    check_every: int = 0
    rate_per_s: float | None = None
    arrival: Arrival = Arrival.POISSON
    tape_s: float = 0.0
    seed: int = 0
    users: int = 1
    worker: int = 0
    workers: int = 1
    samples: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkOrder:
        reference = data["reference"]
        return cls(
            **{
                **data,
                "headers": tuple((name, value) for name, value in data["headers"]),
                "spread_over": tuple((http, grpc) for http, grpc in data["spread_over"]),
                "reference": Reference(**reference) if reference else None,
                "protocol": Protocol(data["protocol"]),
                "shared_memory": SharedMemory(data["shared_memory"]),
                "arrival": Arrival(data["arrival"]),
            }
        )
