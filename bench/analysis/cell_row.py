"""A row per cell: the figures of all its trials, tidy, units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from bench.analysis.stats import Percentile
from bench.core.findings import Finding

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class IfBest:
    """Throughput in img/s to state of a cell if it is picked for being the best of all that serve no more.

    The bounds are at 95 %. `rivals`: how many cells it could have been picked from by luck, itself among
    them.
    """

    value: float
    low: float
    high: float
    rivals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """Throughput in img/s of a cell's fresh trials alone, which were made after it was picked."""

    value: float
    low: float | None
    high: float | None
    repeats: int
    verdict: str  # VALID or INVALID
    findings: str  # codes; notes left out
    slo_met: bool | None = None  # as of a cell: None without an SLO, and where the samples do not decide


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """Field names are the CSV's columns, but for `VIEWS_ONLY`. None: there is no such number.

    `_low` and `_high` bound a figure at 95 %; percentiles are of the pooled requests of all repeats,
    `latency_n` of them. A percentile with a `_low` and no `_high`: nothing bounds it from above.
    """

    cell: str
    model: str
    protocol: str
    batch: int
    replicas: int | None  # pods; None: not on a cluster, or as found
    instances: int | None  # on each
    via: str | None  # platform, pod: the way to a service on a cluster that was asked for
    way: str | None  # the one that was taken, in words; None: not on a cluster
    concurrency: int | None
    rate_per_s: float | None
    arrival: str | None
    shared_memory: str
    engine: str
    max_batch: int | None
    max_queue_delay_us: int | None
    precision: str | None  # as served; None for a model without variants, as the next three fields
    compile: str | None
    wire: str | None
    output: str | None
    repeats: int
    requests: int
    errors: int
    throughput_img_per_s: float | None
    throughput_img_per_s_low: float | None
    throughput_img_per_s_high: float | None
    throughput_req_per_s: float | None
    achieved_rate_per_s: float | None
    latency_p50_ms: float | None
    latency_p50_ms_low: float | None
    latency_p50_ms_high: float | None
    latency_p90_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    latency_p99_ms_low: float | None
    latency_p99_ms_high: float | None
    latency_p99_9_ms: float | None
    latency_mean_ms: float | None
    latency_n: int
    service_p50_ms: float | None
    service_p99_ms: float | None
    lateness_mean_ms: float | None
    lateness_p99_ms: float | None
    server_queue_ms: float | None
    server_compute_input_ms: float | None
    server_compute_infer_ms: float | None
    server_compute_output_ms: float | None
    executed_batch_mean: float | None
    client_cpu_cores: float | None
    server_cpu_cores: float | None
    cpu_busy_percent: float | None
    cpu_pressure_some_percent: float | None
    cpu_steal_percent: float | None
    gpu_utilisation_percent: float | None  # mean over GPUs
    gpu_memory_used_bytes: float | None  # sum
    gpu_power_w: float | None  # sum
    gpu_sm_clock_mhz: float | None  # mean over GPUs
    gpu_temperature_c: float | None  # mean over GPUs
    gpu_energy_j_per_img: float | None
    gpu_img_per_s_per_w: float | None
    goodput_img_per_s: float | None
    slo_met: bool | None
    efficiency: float | None  # served over bare: the same network at that batch without a server
    bare_img_per_s: float | None
    roofline_img_per_s: float | None  # at most, by the device's peak rates
    wire_in_bytes_per_s: float | None  # of tensors; 0: they travel in shared memory
    wire_out_bytes_per_s: float | None
    wall: str | None  # the bottleneck, inferred: compute, wire, client, queue, load
    agreement: str | None  # of the two engines: agree, differ, unclear
    agreement_throughput_ratio: float | None  # perf_analyzer over locust, as all agreement ratios
    agreement_throughput_ratio_low: float | None
    agreement_throughput_ratio_high: float | None
    agreement_p50_ratio: float | None
    agreement_p99_ratio: float | None
    verdict: str  # VALID, INVALID, FAILED, NOT RUN
    findings: str  # codes; notes left out
    asked: int = 0  # requests that latencies are about, failed ones among them
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the server: columns of their own
    remarks: tuple[Finding, ...] = ()
    percentiles: tuple[Percentile, ...] = ()  # as PERCENTS
    proved_ms: tuple[float | None, ...] = ()  # of each percentile: the smallest bound the samples prove
    # Of each percentile: about how many seconds a repeat needs before any bound is proved; None: it has them.
    proof_s: tuple[float | None, ...] = ()
    early_stopping_ms: tuple[float | None, ...] = ()  # of each percentile: what MLPerf LoadGen would report
    throughputs: tuple[float, ...] = ()  # img/s of each repeat
    repeat_latencies_ms: tuple[tuple[float | None, ...], ...] = ()  # of each repeat: its own percentiles
    batches: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # as Counters.batches
    # The share of the window in which instances execute. None: the server does not say.
    busy: float | None = None
    repeat_numbers: tuple[int, ...] = ()  # of each repeat: which one it is; the same in all runs of a family
    repeat_failures: tuple[tuple[int, int], ...] = ()  # of each repeat: failed requests, and all of them
    failures: Mapping[str, int] = field(default_factory=dict)  # of `errors`: how many of each kind
    reason: str = ""  # why it was not measured
    wall_reason: str = ""  # `wall` in a sentence
    if_best: IfBest | None = None  # None: no interval to correct
    confirmed: Confirmed | None = None  # None: no fresh trials

    @property
    def is_open_loop(self) -> bool:
        return self.rate_per_s is not None

    @property
    def fails_too_often(self) -> bool:
        """Whether more of its requests failed than --max-errors allows."""
        return "too-many-errors" in self.findings.split()

    @property
    def is_candidate(self) -> bool:
        """Whether it may be recommended: VALID, measured, and answering its requests."""
        return self.verdict == "VALID" and bool(self.throughput_img_per_s) and not self.fails_too_often

    @property
    def level(self) -> float:
        """Of the load: users, or requests a second."""
        return self.rate_per_s if self.rate_per_s is not None else float(self.concurrency or 0)

    @property
    def axes(self) -> tuple[object, ...]:
        """What was asked of the server and of the load; neither the model's name nor the engine."""
        load = (
            self.protocol,
            self.batch,
            self.concurrency,
            self.rate_per_s,
            self.arrival,
            self.shared_memory,
            self.via,
        )
        pods = (self.replicas, self.instances)
        return (*load, *pods, self.max_batch, self.max_queue_delay_us, str(self.parameters))

    def latency_ms(self, percent: float) -> float | None:
        """The pooled percentile; None with too few samples."""
        value = next((p.value_ns for p in self.percentiles if p.percent == percent), None)
        return None if value is None else value / 1e6

    def is_at_least(self, percent: float) -> bool:
        """Whether the percentile is a bound: of requests that were not waited for to their end."""
        return any(p.at_least for p in self.percentiles if p.percent == percent)


VIEWS_ONLY = (
    "asked",
    "parameters",
    "remarks",
    "percentiles",
    "proved_ms",
    "proof_s",
    "early_stopping_ms",
    "throughputs",
    "repeat_latencies_ms",
    "batches",
    "busy",
    "repeat_numbers",
    "repeat_failures",
    "failures",
    "reason",
    "wall_reason",
    "if_best",
    "confirmed",
)
COLUMNS = tuple(entry.name for entry in fields(CellRow) if entry.name not in VIEWS_ONLY)
