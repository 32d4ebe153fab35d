"""One row a cell: all trials of a cell folded into figures, tidy, units in the names.

Percentiles are of the pooled requests of all repeats (never means of percentiles); intervals are over
repeats. What has no number is None, an empty field in the CSV.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.cell import Cell
from bench.checks import judge, mean_of
from bench.findings import Finding, Severity, verdict
from bench.run import RunFolder, RunRecord
from bench.samples import Int64
from bench.stats import Interval, Percentile, estimate_under, geometric, nearest_rank, percentile, proves
from bench.summary import ServerTimes, TrialSummary, server_times, summarize
from bench.trial import Counters, Trial
from bench.units import Slo, parse_slo

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """Field names are the CSV's columns, but for the last few, which only views use."""

    cell: str
    model: str
    protocol: str
    batch: int
    instances: int | None
    concurrency: int | None
    rate_per_s: float | None
    arrival: str | None
    shared_memory: str
    engine: str
    max_batch: int | None
    max_queue_delay_us: int | None
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
    gpu_utilisation_percent: float | None
    gpu_power_w: float | None
    goodput_img_per_s: float | None
    slo_met: bool | None
    efficiency: float | None
    agreement: str | None
    verdict: str
    findings: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Finding, ...] = ()
    percentiles: tuple[Percentile, ...] = ()
    proved_ms: tuple[float | None, ...] = ()  # of each percentile: the smallest bound the samples prove
    throughputs: tuple[float, ...] = ()  # img/s of each repeat
    reason: str = ""  # why it was not measured


_VIEWS_ONLY = ("parameters", "remarks", "percentiles", "proved_ms", "throughputs", "reason")


def rows(folder: RunFolder) -> list[CellRow]:
    """A row for every cell that was asked for, in the order of the axes; measured or not."""
    record = folder.record
    return complete([row(trials, record) for trials in by_cell(folder.trials())], record)


def complete(measured: Sequence[CellRow], record: RunRecord) -> list[CellRow]:
    """The measured rows, and one for each planned cell without a trial; in the order of the axes."""
    found = {row.cell: row for row in measured}
    for cell in record.planned:
        if cell.key not in found:
            found[cell.key] = _absent(cell, record, record.failed.get(cell.key))
    order = {cell.key: index for index, cell in enumerate(record.planned)}
    return sorted(found.values(), key=lambda row: order.get(row.cell, len(order)))


def write_csv(table: Sequence[CellRow], path: Path) -> None:
    """Atomically."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    frame(table).to_csv(part, index=False)
    part.replace(path)


def frame(table: Sequence[CellRow]) -> pd.DataFrame:
    """Column order of CellRow; parameters of the server follow as columns of their own."""
    columns = [entry.name for entry in fields(CellRow) if entry.name not in _VIEWS_ONLY]
    parameters = sorted({name for row in table for name in row.parameters})
    data = [
        {**{name: getattr(row, name) for name in columns}, **{p: row.parameters.get(p) for p in parameters}}
        for row in table
    ]
    # Whole numbers stay whole beside empty fields.
    return pd.DataFrame(data, columns=[*columns, *parameters]).convert_dtypes()


def by_cell(trials: Iterable[Trial]) -> Iterator[list[Trial]]:
    """Trials come sorted by cell, so only one cell's samples are in memory at a time."""
    group: list[Trial] = []
    for trial in trials:
        if group and group[0].cell.key != trial.cell.key:
            yield group
            group = []
        group.append(trial)
    if group:
        yield group


def row(trials: Sequence[Trial], record: RunRecord) -> CellRow:
    """All trials of one cell, folded."""
    slo = parse_slo(record.slo) if record.slo else None
    cell, summaries = trials[0].cell, [summarize(trial, slo) for trial in trials]
    pooled = np.sort(np.concatenate([s.latencies_ns for s in summaries]))
    service = np.sort(np.concatenate([s.service_ns for s in summaries]))
    lateness = np.sort(np.concatenate([s.lateness_ns for s in summaries]))
    images = geometric([s.throughput_img_per_s for s in summaries])
    percentiles = tuple(percentile(pooled, p) for p in PERCENTS)
    values = {p.percent: p.value_ns for p in percentiles}
    p50, p99 = _over_repeats(summaries, 50.0), _over_repeats(summaries, 99.0)
    times = server_times(_sum([t.counters for t in trials]))
    remarks = _merged([finding for trial in trials for finding in judge(trial)])
    errors = sum(s.errors for s in summaries)
    return CellRow(
        **_identity(cell, record),
        repeats=len(trials),
        requests=sum(s.requests for s in summaries),
        errors=errors,
        throughput_img_per_s=images.value if images else None,
        throughput_img_per_s_low=images.low if images else None,
        throughput_img_per_s_high=images.high if images else None,
        throughput_req_per_s=images.value / cell.load.batch if images else None,
        achieved_rate_per_s=float(np.mean([s.sent_per_s for s in summaries]))
        if cell.load.is_open_loop
        else None,
        latency_p50_ms=_ms(values[50.0]),
        latency_p50_ms_low=_ms(p50.low if p50 else None),
        latency_p50_ms_high=_ms(p50.high if p50 else None),
        latency_p90_ms=_ms(values[90.0]),
        latency_p95_ms=_ms(values[95.0]),
        latency_p99_ms=_ms(values[99.0]),
        latency_p99_ms_low=_ms(p99.low if p99 else None),
        latency_p99_ms_high=_ms(p99.high if p99 else None),
        latency_p99_9_ms=_ms(values[99.9]),
        latency_mean_ms=float(pooled.mean()) / 1e6 if len(pooled) else None,
        latency_n=len(pooled),
        service_p50_ms=_ms(percentile(service, 50).value_ns),
        service_p99_ms=_ms(percentile(service, 99).value_ns),
        lateness_mean_ms=float(lateness.mean()) / 1e6 if len(lateness) and cell.load.is_open_loop else None,
        lateness_p99_ms=_ms(percentile(lateness, 99).value_ns) if cell.load.is_open_loop else None,
        **_server(times),
        client_cpu_cores=float(np.mean([sum(t.generator.cpu_s) / t.window.seconds for t in trials])),
        server_cpu_cores=_machine(trials, "server_cpu_cores"),
        gpu_utilisation_percent=_machine(trials, "gpu0_utilisation_percent"),
        gpu_power_w=_machine(trials, "gpu0_power_w"),
        goodput_img_per_s=_goodput(summaries),
        slo_met=_slo_met(pooled, errors, slo),
        efficiency=None,
        agreement=None,
        verdict=verdict(remarks),
        findings=" ".join(finding.code for finding in remarks if finding.severity is not Severity.NOTE),
        parameters=dict(cell.server.parameters),
        remarks=remarks,
        percentiles=percentiles,
        proved_ms=tuple(_ms(estimate_under(pooled, p)) for p in PERCENTS),
        throughputs=tuple(s.throughput_img_per_s for s in summaries),
    )


def _absent(cell: Cell, record: RunRecord, reason: str | None) -> CellRow:
    """A cell without a trial: it could not be measured, or the run ended before it."""
    known = _identity(cell, record)
    counts = {"repeats": 0, "requests": 0, "errors": 0, "latency_n": 0, "findings": ""}
    empty = {
        entry.name: None
        for entry in fields(CellRow)
        if entry.name not in known and entry.name not in counts and entry.name not in _VIEWS_ONLY
    }
    said = {"verdict": "NOT RUN" if reason is None else "FAILED"}
    return CellRow(
        **{**empty, **counts, **known, **said},
        parameters=dict(cell.server.parameters),
        reason=reason or "The run ended before it.",
    )


def _identity(cell: Cell, record: RunRecord) -> dict[str, Any]:
    served = record.served.get(cell.server.key, {})
    load, server = cell.load, cell.server
    instances = server.instances
    if instances is None and served:
        instances = sum(int(group.get("count", 1)) for group in served.get("instance_group", ()))
    max_batch = served.get("max_batch_size", server.max_batch)
    return {
        "cell": cell.key,
        "model": server.model,
        "protocol": str(load.protocol),
        "batch": load.batch,
        "instances": instances,
        "concurrency": load.concurrency,
        "rate_per_s": load.rate_per_s,
        "arrival": str(load.arrival) if load.is_open_loop else None,
        "shared_memory": str(load.shared_memory),
        "engine": str(cell.engine),
        "max_batch": int(max_batch) if max_batch is not None else None,
        "max_queue_delay_us": server.max_queue_delay_us,
    }


def _over_repeats(summaries: Sequence[TrialSummary], percent: float) -> Interval | None:
    """Of the percentile of each repeat; only where every repeat has samples enough."""
    values = [percentile(s.latencies_ns, percent).value_ns for s in summaries]
    known = [float(value) for value in values if value is not None]
    return geometric(known) if len(known) == len(summaries) else None


def _slo_met(pooled: Int64, errors: int, slo: Slo | None) -> bool | None:
    """Every percentile within its bound, and errors few enough; None where samples do not decide.

    Missed: the percentile itself is beyond. Met: proved at 99 %, by MLPerf's early stopping.
    """
    if slo is None or len(pooled) == 0:
        return None
    if errors / (errors + len(pooled)) > slo.error_fraction:
        return False
    met = True
    for percent, bound in slo.latencies:
        over = int((pooled > bound).sum())
        if nearest_rank(pooled, percent) > bound:
            return False
        met = met and proves(percent, over, len(pooled))
    return True if met else None


def _goodput(summaries: Sequence[TrialSummary]) -> float | None:
    values = [s.goodput_img_per_s for s in summaries if s.goodput_img_per_s is not None]
    return float(np.mean(values)) if values else None


def _server(times: ServerTimes | None) -> dict[str, Any]:
    return {
        "server_queue_ms": times.queue_ms if times else None,
        "server_compute_input_ms": times.compute_input_ms if times else None,
        "server_compute_infer_ms": times.compute_infer_ms if times else None,
        "server_compute_output_ms": times.compute_output_ms if times else None,
        "executed_batch_mean": times.executed_batch_mean if times else None,
    }


def _sum(counters: Sequence[Counters | None]) -> Counters | None:
    known = [c for c in counters if c is not None]
    if not known:
        return None
    names = [entry.name for entry in fields(Counters) if entry.name != "batches"]
    return Counters(**{name: sum(getattr(c, name) for c in known) for name in names})


def _machine(trials: Sequence[Trial], series: str) -> float | None:
    means = [mean for trial in trials if (mean := mean_of(trial, series)) is not None]
    return float(np.mean(means)) if means else None


def _merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One of each code, the first seen, the most severe first."""
    by_code: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        by_code.setdefault((finding.code, finding.severity), finding)
    order = list(Severity)
    return tuple(sorted(by_code.values(), key=lambda finding: order.index(finding.severity)))


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6
