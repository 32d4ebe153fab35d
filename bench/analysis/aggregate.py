"""The row of a cell, aggregated from all its trials.

Percentiles are of the pooled requests of all repeats (never means of percentiles), with the intervals of
`analysis.percentiles`; other intervals are over repeats. What has no number is None.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from bench.analysis.believable import believable
from bench.analysis.bottleneck import busy_share
from bench.analysis.cell_row import COLUMNS, PERCENTS, CellRow
from bench.analysis.checks import findings_of
from bench.analysis.checks.cell import codes, merged
from bench.analysis.failures import by_name
from bench.analysis.percentiles import PooledLatencies
from bench.analysis.slo import missed
from bench.analysis.stats import LEAST_REPEATS, Interval, arithmetic, estimate_under, percentile
from bench.analysis.summary import ServerTimes, TrialSummary, mean_of, server_times, summarize
from bench.core import vit_variants
from bench.core.cell import Cell, SharedMemory
from bench.core.datatypes import DTYPES, IMAGE
from bench.core.findings import Finding, verdict
from bench.core.run_folder import RunRecord
from bench.core.samples import Int64
from bench.core.slo import Slo, parse_slo
from bench.core.trial import Counters, Trial, total

_COUNTS = {"repeats": 0, "requests": 0, "errors": 0, "latency_n": 0, "findings": ""}


@dataclass(frozen=True, slots=True)
class MeasuredTrial:
    """A trial with its figures and its findings, each made once."""

    trial: Trial
    summary: TrialSummary
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, trial: Trial, slo: Slo | None) -> MeasuredTrial:
        """Summarise a trial and find what is wrong with it. `slo`: what its goodput counts by."""
        summary = summarize(trial, slo)
        return cls(believable(trial), summary, findings_of(trial, summary))


def slo_of(record: RunRecord) -> Slo | None:
    """The SLO that a run was measured under; None without one."""
    return parse_slo(record.slo) if record.slo else None


def aggregate(measured: Sequence[MeasuredTrial], record: RunRecord) -> CellRow:
    """The row of a cell. `measured`: at least one trial, all of the same cell."""
    trials, summaries = [one.trial for one in measured], [one.summary for one in measured]
    cell = trials[0].cell
    pooled = PooledLatencies.of([s.in_order_ns for s in summaries])
    remarks = merged([finding for one in measured for finding in one.findings])
    counters = _sum([trial.counters for trial in trials])
    known: dict[str, Any] = {
        **identity(cell, record),
        "way": ", ".join(sorted({trial.engine.get("way", "") for trial in trials})) or None,
        "repeats": len(trials),
        "requests": sum(s.requests for s in summaries),
        "errors": sum(s.errors for s in summaries),
        "asked": sum(s.asked for s in summaries),
        "repeat_numbers": tuple(trial.plan.repeat for trial in trials),
        "repeat_failures": tuple((s.errors, s.asked) for s in summaries),
        "failures": by_name(sum((Counter(s.failures) for s in summaries), Counter())),
        **_throughput(summaries, cell, too_short="window-too-short" in codes(remarks)),
        **_latency(summaries, pooled, sum(trial.window.seconds for trial in trials)),
        **_service(summaries, cell),
        **_server(server_times(counters)),
        "batches": counters.batches if counters else {},
        "busy": busy_share(trials, identity(cell, record)["instances"]),
        **_machine(trials),
        "slo_met": _slo_met(pooled, summaries, slo_of(record)),
        "verdict": str(verdict(remarks)),
        "findings": codes(remarks),
        "reason": record.failed.get(cell.key, ""),
    }
    images_per_s = known.get("throughput_img_per_s")
    known |= gpu_columns(trials, images_per_s)
    known |= _traffic(cell, record, images_per_s)
    return CellRow(**{**dict.fromkeys(COLUMNS), **known}, remarks=remarks)


def absent(cell: Cell, record: RunRecord) -> CellRow:
    """The row of a cell without a trial: it could not be measured, or the run ended before it."""
    reason = record.failed.get(cell.key)
    word = "NOT RUN" if reason is None else "FAILED"
    known = {**dict.fromkeys(COLUMNS), **_COUNTS, **identity(cell, record), "verdict": word}
    return CellRow(**known, reason=reason or "The run ended before it.")


def identity(cell: Cell, record: RunRecord) -> dict[str, Any]:
    """The axes; what was not asked for as the server reported it."""
    served = record.served.get(cell.server.key, {})
    load, server = cell.load, cell.server
    instances = server.instances
    if instances is None and served:
        instances = sum(int(group.get("count", 1)) for group in served.get("instance_group", ())) or None
    max_batch = served.get("max_batch_size", server.max_batch)
    return {
        "cell": cell.key,
        "model": server.model,
        "protocol": str(load.protocol),
        "batch": load.batch,
        "replicas": server.replicas,
        "instances": instances,
        "via": None if load.via is None else str(load.via),
        "concurrency": load.concurrency,
        "rate_per_s": load.rate_per_s,
        "arrival": str(load.arrival) if load.is_open_loop else None,
        "shared_memory": str(load.shared_memory),
        "engine": str(cell.engine),
        "max_batch": int(max_batch) if max_batch is not None else None,
        "max_queue_delay_us": server.max_queue_delay_us,
        **vit_variants.columns(served, server.parameters),
        "parameters": dict(server.parameters),
    }


def _throughput(summaries: Sequence[TrialSummary], cell: Cell, *, too_short: bool) -> dict[str, Any]:
    values = tuple(s.throughput_img_per_s for s in summaries)
    images = arithmetic(values, float(np.mean([s.edges_img_per_s for s in summaries])))
    if images and too_short:
        images = replace(images, low=None, high=None)
    sent = [s.sent_per_s for s in summaries]
    return {
        "goodput_img_per_s": _mean([s.goodput_img_per_s for s in summaries]),
        **_interval("throughput_img_per_s", images),
        "throughput_req_per_s": images.value / cell.load.batch if images else None,
        "achieved_rate_per_s": float(np.mean(sent)) if cell.load.is_open_loop else None,
        "throughputs": values,
    }


def _latency(summaries: Sequence[TrialSummary], pooled: PooledLatencies, seconds: float) -> dict[str, Any]:
    ordered = pooled.ordered
    waited_ns = min((s.waited_ns for s in summaries if s.waited_ns is not None), default=None)
    percentiles = tuple(percentile(ordered, percent, waited_ns) for percent in PERCENTS)
    of_repeats = tuple(
        tuple(_ms(percentile(s.latencies_ns, p).value_ns) for p in PERCENTS) for s in summaries
    )
    columns: dict[str, Any] = {
        f"latency_p{p.percent:g}_ms".replace(".", "_"): _ms(p.value_ns) for p in percentiles
    }
    for percent in (50.0, 99.0):
        low, high = pooled.interval_ns(percent) or (None, None)
        high = _known(high, waited_ns)
        columns |= {f"latency_p{percent:g}_ms_low": _ms(low), f"latency_p{percent:g}_ms_high": _ms(high)}
    return {
        **columns,
        "latency_mean_ms": float(ordered.mean()) / 1e6 if len(ordered) else None,
        "latency_n": len(ordered),
        "percentiles": percentiles,
        "proved_ms": tuple(_proved_ms(pooled, percent, waited_ns) for percent in PERCENTS),
        "proof_s": tuple(_proof_s(pooled, percent, seconds) for percent in PERCENTS) if len(ordered) else (),
        "early_stopping_ms": tuple(_ms(_known(estimate_under(ordered, p), waited_ns)) for p in PERCENTS),
        "repeat_latencies_ms": of_repeats,
    }


def _service(summaries: Sequence[TrialSummary], cell: Cell) -> dict[str, Any]:
    service = _pooled([s.service_ns for s in summaries])
    columns = {
        "service_p50_ms": _ms(percentile(service, 50).value_ns),
        "service_p99_ms": _ms(percentile(service, 99).value_ns),
    }
    lateness = _pooled([s.lateness_ns for s in summaries])
    if cell.load.is_open_loop and len(lateness):
        columns["lateness_mean_ms"] = float(lateness.mean()) / 1e6
        columns["lateness_p99_ms"] = _ms(percentile(lateness, 99).value_ns)
    return columns


def _known(bound_ns: float | None, waited_ns: int | None) -> float | None:
    """None where a bound from above rests on requests that were not waited for to their end."""
    return None if waited_ns is not None and bound_ns is not None and bound_ns >= waited_ns else bound_ns


def _proved_ms(pooled: PooledLatencies, percent: float, waited_ns: int | None) -> float | None:
    return _ms(_known(pooled.proved_ns(percent), waited_ns))


def _proof_s(pooled: PooledLatencies, percent: float, seconds: float) -> float | None:
    """About how many seconds each repeat must have to prove a bound; None where one is proved.

    `seconds`: how long all repeats took together.
    """
    if pooled.proved_ns(percent) is not None:
        return None
    repeats = max(len(pooled.repeats), LEAST_REPEATS)
    return pooled.needed(percent) / len(pooled.ordered) * seconds / repeats


def _slo_met(pooled: PooledLatencies, summaries: Sequence[TrialSummary], slo: Slo | None) -> bool | None:
    """None without an SLO, and where the samples do not decide."""
    if slo is None or len(pooled.ordered) == 0:
        return None
    errors, asked = sum(s.errors for s in summaries), sum(s.asked for s in summaries)
    if missed(pooled.ordered, errors, asked, slo):
        return False
    waited_ns = min((s.waited_ns for s in summaries if s.waited_ns is not None), default=None)
    proved = [(_known(pooled.proved_ns(percent), waited_ns), bound) for percent, bound in slo.latencies]
    return True if all(ns is not None and ns <= bound for ns, bound in proved) else None


def _server(times: ServerTimes | None) -> dict[str, Any]:
    if times is None:
        return {}
    return {
        "server_queue_ms": times.queue_ms,
        "server_compute_input_ms": times.compute_input_ms,
        "server_compute_infer_ms": times.compute_infer_ms,
        "server_compute_output_ms": times.compute_output_ms,
        "executed_batch_mean": times.executed_batch_mean,
    }


def _sum(counters: Sequence[Counters | None]) -> Counters | None:
    known = [c for c in counters if c is not None]
    return total(known) if known else None


def _machine(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means inside the window, over repeats."""
    plain = ("server_cpu_cores", "cpu_busy_percent", "cpu_pressure_some_percent", "cpu_steal_percent")
    return {
        "client_cpu_cores": float(np.mean([sum(t.generator.cpu_s) / t.window.seconds for t in trials])),
        **{name: _mean([mean_of(trial, name) for trial in trials]) for name in plain},
    }


def _traffic(cell: Cell, record: RunRecord, images_per_s: float | None) -> dict[str, float | None]:
    """Bytes of tensors a second, from their shapes; none over the wire where they lie in shared memory."""
    served = record.served.get(cell.server.key, {})
    height, width = (int(record.spec.get(f"image_{axis}", 224)) for axis in ("height", "width"))
    over_wire = 0 if cell.load.shared_memory is not SharedMemory.NONE else 1
    return {
        f"wire_{way}_bytes_per_s": None
        if size is None or images_per_s is None
        else over_wire * size * images_per_s
        for way, size in zip(("in", "out"), image_bytes(served, height, width), strict=True)
    }


def _pooled(parts: Sequence[Int64]) -> Int64:
    return np.sort(np.concatenate(parts))


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6


def gpu_columns(trials: Sequence[Trial], images_per_s: float | None) -> dict[str, float | None]:
    """Of several GPUs the mean or the sum, as the name says. A sensor that gave nothing: None, never 0."""
    power = _of_gpus(trials, "power_w", _mean_readings)
    drawn = _of_gpus(trials, "energy_j", _slope) or power
    watts = sum(drawn) if drawn else None
    return {
        "gpu_utilisation_percent": _averaged(_of_gpus(trials, "utilisation_percent", _mean_readings)),
        "gpu_memory_used_bytes": _summed(_of_gpus(trials, "memory_used_bytes", _mean_readings)),
        "gpu_power_w": _summed(power) if power else watts,
        "gpu_sm_clock_mhz": _averaged(_of_gpus(trials, "sm_clock_mhz", _mean_readings)),
        "gpu_temperature_c": _averaged(_of_gpus(trials, "temperature_c", _mean_readings)),
        "gpu_energy_j_per_img": watts / images_per_s if watts and images_per_s else None,
        "gpu_img_per_s_per_w": images_per_s / watts if watts and images_per_s else None,
    }


Rows = Sequence[tuple[int, float]]


def _of_gpus(trials: Sequence[Trial], reading: str, reduce: Callable[[Rows], float | None]) -> list[float]:
    """One number a GPU: the mean over repeats of what `reduce` makes of its readings in the window."""
    names = {
        name
        for trial in trials
        for name in trial.machine
        if name.startswith("gpu") and name.partition("_")[2] == reading
    }
    of_gpus = []
    for name in sorted(names):
        values = [reduce(_inside(trial, name)) for trial in trials]
        known = [value for value in values if value is not None]
        of_gpus += [float(np.mean(known))] if known else []
    return of_gpus


def _inside(trial: Trial, name: str) -> Rows:
    window = trial.window
    return [(at, value) for at, value in trial.machine.get(name, ()) if window.start_ns <= at < window.end_ns]


def _mean_readings(rows: Rows) -> float | None:
    return float(np.mean([value for _, value in rows])) if rows else None


def _slope(rows: Rows) -> float | None:
    """Of a growing counter, a second: between its first and its last step, lest one that moves seldom lie."""
    steps = [rows[0], *(b for a, b in itertools.pairwise(rows) if b[1] != a[1])] if rows else []
    if len(steps) < 3 or steps[-1][1] < steps[1][1]:
        return None
    (from_ns, low), (to_ns, high) = steps[1], steps[-1]
    return (high - low) / ((to_ns - from_ns) / 1e9)


def _averaged(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _summed(values: Sequence[float]) -> float | None:
    return sum(values) if values else None


def image_bytes(config: Mapping[str, Any], height: int, width: int) -> tuple[int | None, int | None]:
    """(in, out). None where an axis is open, or a size is the data's own (JPEG files, strings)."""
    return _total(config.get("input") or (), height, width), _total(config.get("output") or (), height, width)


def _total(section: Sequence[Mapping[str, Any]], height: int, width: int) -> int | None:
    sizes = [_bytes(entry, height, width) for entry in section]
    return None if not sizes or None in sizes else sum(size or 0 for size in sizes)


def _bytes(entry: Mapping[str, Any], height: int, width: int) -> int | None:
    datatype = str(entry.get("data_type", "")).removeprefix("TYPE_")
    dims = [int(axis) for axis in entry.get("dims") or ()]
    if entry.get("name") == IMAGE and len(dims) == 3:
        dims = [axis if axis > 0 else size for axis, size in zip(dims, (height, width, 3), strict=True)]
    if datatype not in DTYPES or any(axis < 0 for axis in dims):
        return None
    return prod(dims) * DTYPES[datatype].itemsize
