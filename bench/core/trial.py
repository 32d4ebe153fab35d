"""A trial: one measured repeat of a cell, as an engine hands it over and a run folder keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bench.core.cell import Cell
from bench.core.findings import Finding
from bench.core.samples import Samples, Window
from bench.core.target import Target


@dataclass(frozen=True, slots=True)
class Reference:
    """Right answers to the seeded payload, computed without Triton."""

    path: str  # .npz: output name -> array, first axis the batch
    origin: str  # one sentence
    relative: float  # tolerance, as numpy.allclose counts it
    absolute: float
    distance: float | None = None  # relative L2 an item may be off; None: not judged


@dataclass(frozen=True, slots=True)
class Served:
    """A model as a target serves it, read back after loading."""

    metadata: Mapping[str, Any]  # GET /v2/models/M
    config: Mapping[str, Any]  # GET /v2/models/M/config
    reference: Reference | None = None
    target: Target | None = None  # where, if configuring moved it: a scaled service has other pods

    @property
    def max_batch(self) -> int:
        """0: the model knows no batch axis."""
        return int(self.config.get("max_batch_size", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one trial asks of an engine."""

    cell: Cell
    repeat: int
    seed: int
    warmup_s: float
    duration_s: float
    longest_s: float | None = None  # the window grows up to this until it says enough; None: it does not
    percent: float = 99.0  # then: the percentile that has to have its samples
    drain_s: float = 10.0
    model_version: str = ""
    image_height: int = 224
    image_width: int = 224
    timeout_s: float = 60.0
    max_answer_bytes: int | None = None  # None: what the model's outputs need
    check_fraction: float = 0.01
    workers: int = 0  # load-generating processes; 0: the engine decides
    limit_s: float | None = None  # the longest that the trial may take; None: by the engine's own rule


@dataclass(frozen=True, slots=True)
class Live:
    """A trial under way: what a progress line shows, and nothing that is kept."""

    seconds: float
    requests: int
    rate_per_s: float
    p99_ns: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Differences of Triton's per-model counters over the window. Times are sums, in nanoseconds."""

    inference_count: int
    execution_count: int
    success_count: int
    fail_count: int
    success_ns: int
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int
    # executed batch size -> (executions, compute_infer_ns per those executions)
    batches: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    executing_ns: int = 0  # of all executions: input, infer and output; 0 in runs before it was recorded
    pods: Mapping[str, Counters] = field(default_factory=dict)  # each pod's own, where there are several
    uncertain_ns: int = 0  # of the window they are of: how long the two calls for them took


def total(parts: Iterable[Counters]) -> Counters:
    """What several servers, or several windows, counted together."""
    parts = tuple(parts)
    apart = ("batches", "pods", "uncertain_ns")
    names = [entry.name for entry in fields(Counters) if entry.name not in apart]
    batches: dict[int, tuple[int, int]] = {}
    for size, (count, ns) in (item for part in parts for item in part.batches.items()):
        before = batches.get(size, (0, 0))
        batches[size] = (before[0] + count, before[1] + ns)
    sums = {name: sum(getattr(part, name) for part in parts) for name in names}
    uncertain_ns = max((part.uncertain_ns for part in parts), default=0)
    return Counters(**sums, batches=dict(sorted(batches.items())), uncertain_ns=uncertain_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """What making the load cost the machine that made it, over the window."""

    workers: int
    cpu_s: tuple[float, ...]  # one per worker
    max_rss_bytes: int
    lost_workers: int = 0
    waited_s: tuple[float, ...] = ()  # runnable, and waiting for a core: one per worker, where the host tells
    stalled_s: tuple[float, ...] = ()  # frozen, or asleep with the machine: one per worker that reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    plan: Plan
    window: Window  # warm-up before it, drain after it
    samples: Samples  # everything: warm-up, window and drain
    errors: Mapping[str, int]  # message -> how often, of failed requests
    generator: Generator
    counters: Counters | None = None  # None: the server does not tell
    planned: int | None = None  # open loop: arrivals on the tape
    values_checked: int = 0  # answers compared value by value with the reference
    reference: str = ""  # where the reference came from; "": none could be had, and why is a finding
    machine: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)  # (at_ns, value)
    findings: tuple[Finding, ...] = ()  # only what the engine itself saw; checks add theirs when judging
    engine: Mapping[str, str] = field(default_factory=dict)  # command, version, stdout, stderr

    @property
    def cell(self) -> Cell:
        return self.plan.cell
