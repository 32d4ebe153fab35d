"""How far each cell is from the hardware, and what its bottleneck is: compute, wire, client, queue or load.

Inferred, not proved: from what the server counted, from what travels, and from the same cell measured over
shared memory where there is one. Each sentence says from what. cells.csv calls the bottleneck `wall`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.analysis.capacity_models import BatchModel, fit_batches
from bench.analysis.ceiling import Ceiling
from bench.analysis.cell_row import CellRow
from bench.core.trial import Counters, Trial
from bench.core.units import significant

# Instances that execute for this share of the time are the bottleneck: the rest is the hand-over between two
# executions.
BUSY = 0.85
# A request that spends more than this share of its time in one place has its bottleneck there.
MOST_OF_IT = 0.4
# Moving tensors in and out is mentioned when it takes more than this share of an execution.
MOVING = 0.3
# A cell that shared memory makes this many times as fast has its bottleneck in the bytes on the connection.
FASTER = 1.1


def with_bottlenecks(rows: Sequence[CellRow], ceiling: Ceiling | None) -> list[CellRow]:
    """The rows with the bottleneck of each, and with efficiency where the bare model was measured."""
    models = _batch_models(rows)
    known = [_with_ceiling(row, ceiling) if ceiling else row for row in rows]
    by_memory = {(_way(row), row.shared_memory): row for row in known if row.throughput_img_per_s}
    return [
        _with_bottleneck(row, models.get(_server(row)), by_memory.get((_way(row), "system"))) for row in known
    ]


def _with_ceiling(row: CellRow, ceiling: Ceiling) -> CellRow:
    variant = {"precision": row.precision, "compile": row.compile, "output": row.output}
    bare = ceiling.of({k: v for k, v in variant.items() if v}, row.parameters.get("weights"), row.batch)
    if bare is None or row.precision is None:
        return row
    limit = ceiling.roofline_per_s(bare)
    served, reached = row.throughput_img_per_s, bare.interval.value
    return replace(
        row,
        efficiency=served / reached if served else None,
        bare_img_per_s=reached,
        roofline_img_per_s=limit[0] if limit else None,
    )


def _with_bottleneck(row: CellRow, model: BatchModel | None, shared: CellRow | None) -> CellRow:
    inferred = bottleneck(row, model, shared)
    return replace(row, wall=inferred[0], wall_reason=inferred[1]) if inferred else row


def bottleneck(
    row: CellRow, model: BatchModel | None = None, shared: CellRow | None = None
) -> tuple[str, str] | None:
    """What limits a cell's throughput, in a word and in a sentence; None where nothing tells.

    `model`: time over batch of its server configuration. `shared`: the same cell over shared memory.
    """
    busy, mean = row.busy, row.latency_mean_ms
    if busy is None or not mean or row.verdict == "FAILED":
        return None
    executing = f"instances executed {busy:.0%} of the time"
    if "client-bound" in row.findings.split():
        return "client", f"The load generator: a process of it was at its limit; {executing}."
    if busy >= BUSY:
        return "compute", f"Compute: {executing}{_of_an_execution(row, model)}."
    if row.is_open_loop and "saturated" not in row.findings.split():
        return "load", f"Nothing: the rate asked for is below what the server can do; {executing}."
    queue_ms = row.server_queue_ms or 0.0
    if queue_ms > MOST_OF_IT * mean:
        waited = f"requests waited {significant(queue_ms)} of {significant(mean)} ms although {executing}"
        return "queue", f"The queue: {waited}: a batcher that waits for more, or instances that wait in turn."
    outside_ms = mean - (row.lateness_mean_ms or 0.0) - _server_ms(row)
    if outside_ms > MOST_OF_IT * mean:
        return _outside(row, outside_ms / mean, executing, shared)
    return "load", f"The load: too few requests in flight to keep instances busy; {executing}."


def busy_share(trials: Sequence[Trial], instances: int | None) -> float | None:
    """The share of the windows that instances execute: time of all executions / windows / (instances x pods).

    Executions are counted once each, whatever their batch: means per request would weigh large batches more.
    Pods are those that the counters are of, or else those that were asked for. None without counters.
    """
    known = [(trial.counters, trial) for trial in trials if trial.counters and trial.counters.batches]
    room_s = sum(
        trial.window.seconds * (instances or 1) * (len(counters.pods) or trial.cell.server.replicas or 1)
        for counters, trial in known
    )
    return sum(_executing_ns(counters) for counters, _ in known) / 1e9 / room_s if known else None


def _executing_ns(counters: Counters) -> float:
    """As recorded; in older runs the time in the model, and moving tensors in proportion to it."""
    if counters.executing_ns:
        return counters.executing_ns
    infer_ns = sum(ns for _, ns in counters.batches.values())
    moving_ns = counters.compute_input_ns + counters.compute_output_ns
    return infer_ns * (1 + moving_ns / counters.compute_infer_ns) if counters.compute_infer_ns else infer_ns


def _outside(row: CellRow, share: float, executing: str, shared: CellRow | None) -> tuple[str, str]:
    seen = f"{share:.0%} of a request passes between client and server; {executing}"
    if row.shared_memory != "none":
        return "client", f"The load generator and the protocol: {seen}, and no tensor travels."
    moved = [way / 1e6 for way in (row.wire_in_bytes_per_s, row.wire_out_bytes_per_s) if way is not None]
    text = f"The wire: {seen}" + (f", {significant(sum(moved))} MB/s both ways" if len(moved) == 2 else "")
    if shared is None:
        return "wire", f"{text}. --shared-memory system would tell bytes from the rest."
    ratio = (shared.throughput_img_per_s or 0.0) / (row.throughput_img_per_s or 1.0)
    if ratio >= FASTER:
        return "wire", f"{text}. Over shared memory it is {ratio:.2f} x as fast."
    return "client", f"The load generator and the protocol: {seen}; shared memory is {ratio:.2f} x as fast."


def _of_an_execution(row: CellRow, model: BatchModel | None) -> str:
    moving = (row.server_compute_input_ms or 0.0) + (row.server_compute_output_ms or 0.0)
    whole = moving + (row.server_compute_infer_ms or 0.0)
    moved = f", {moving / whole:.0%} of it moving tensors in and out" if moving > MOVING * whole else ""
    batch = round(row.executed_batch_mean or row.batch)
    fixed = model.fixed_s / model.execution_s(batch) if model else 0.0
    return moved + (f", {fixed:.0%} of it the same at any batch, by s(b)" if fixed > MOVING else "")


def _server_ms(row: CellRow) -> float:
    parts = (
        row.server_queue_ms,
        row.server_compute_input_ms,
        row.server_compute_infer_ms,
        row.server_compute_output_ms,
    )
    return sum(part or 0.0 for part in parts)


def _way(row: CellRow) -> tuple[object, ...]:
    """What names a cell, but for how its tensors travel."""
    load = (row.protocol, row.batch, row.concurrency, row.rate_per_s, row.arrival, row.via, row.engine)
    return (*load, _server(row))


def _server(row: CellRow) -> tuple[object, ...]:
    limits = (row.max_batch, row.max_queue_delay_us, str(sorted(row.parameters.items())))
    return (row.model, row.replicas, row.instances, *limits)


def _batch_models(rows: Sequence[CellRow]) -> Mapping[tuple[object, ...], BatchModel | None]:
    """s(b) of each server configuration, from all its cells."""
    executions: dict[tuple[object, ...], dict[int, tuple[int, int]]] = {}
    for row in rows:
        sizes = executions.setdefault(_server(row), {})
        for size, (count, ns) in row.batches.items():
            before = sizes.get(size, (0, 0))
            sizes[size] = (before[0] + count, before[1] + ns)
    return {server: fit_batches(sizes) for server, sizes in executions.items()}
