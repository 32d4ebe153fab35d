"""All that a load-generating process must know of one trial, as it travels to that process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cattrs

from bench.core.cell import Arrival, Protocol, SharedMemory
from bench.core.target import Target
from bench.core.trial import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """One worker's part of a trial; one line of JSON on its way."""

    targets: tuple[Target, ...]  # one or more; the users of all workers together take turns over them
    protocol: Protocol
    # The request.
    model: str
    metadata: Mapping[str, Any]  # GET /v2/models/M
    max_batch: int
    batch: int
    model_version: str = ""
    shared_memory: SharedMemory = SharedMemory.NONE
    image_height: int = 224
    image_width: int = 224
    payload_seed: int = 0
    # Its answer.
    reference: Reference | None = None
    timeout_s: float = 60.0
    max_answer_bytes: int | None = None  # None: what the model's outputs need
    check_every: int = 0  # the values of one answer in so many are compared; 0: of none
    # The load.
    users: int = 1  # of this worker
    worker: int = 0  # its number
    workers: int = 1
    rate_per_s: float | None = None  # of all workers together; None: a closed loop
    arrival: Arrival = Arrival.POISSON
    tape_s: float = 0.0  # how long the tape of arrivals is
    seed: int = 0  # of the tape
    samples: str = ""  # the file that the samples go to

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = cattrs.unstructure(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkOrder:
        return cattrs.structure(data, cls)
