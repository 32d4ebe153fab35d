"""A cell in words: the same in every view. A cell that is not measured yet has `core.spec.describe`."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.stats import LEAST_REPEATS
from bench.core.units import queue_delay, significant


def label(row: CellRow, *, with_max_batch: bool = False) -> str:
    """Short, for charts and tables: b8 · 2 inst · http · 4 users."""
    extra = [f"{name} {value}" for name, value in row.parameters.items()]
    extra += [f"max batch {row.max_batch}"] if with_max_batch else []
    extra += [] if row.max_queue_delay_us is None else [queue_delay(row.max_queue_delay_us)]
    extra += [] if row.shared_memory == "none" else [f"{row.shared_memory} shm"]
    extra += [] if row.via is None else [f"via {row.via}"]
    pods = [] if row.replicas is None else [f"{row.replicas} pods"]
    instances = [] if row.instances is None else [f"{row.instances} inst"]
    return " · ".join([f"b{row.batch}", *pods, *instances, row.protocol, load_text(row), *extra])


def load_text(row: CellRow) -> str:
    """The load alone: 4 users; 50/s."""
    if row.rate_per_s is not None:
        return f"{row.rate_per_s:g}/s"
    return _plural(row.concurrency or 0, "user")


def name_of(row: CellRow, among: Sequence[CellRow] = ()) -> str:
    """What to configure, without the load: 2 instances, batch 8, precision bf16.

    `among`: rows that it has to be told from. Every model has a maximum of its batch, so that is named only
    where it differs among them.
    """
    pods = [] if row.replicas is None else [_plural(row.replicas, "replica")]
    instances = [] if row.instances is None else [_plural(row.instances, "instance")]
    server = [f"{name} {value}" for name, value in row.parameters.items()]
    server += [f"max batch {row.max_batch}"] if len({other.max_batch for other in among}) > 1 else []
    server += [] if row.max_queue_delay_us is None else [queue_delay(row.max_queue_delay_us)]
    return ", ".join([*pods, *instances, f"batch {row.batch}", *server])


def full_name(row: CellRow, among: Sequence[CellRow] = ()) -> str:
    """Configuration and load: 2 instances, batch 8 over http at 4 users. `among`: as `name_of`."""
    via = "" if row.via is None else f" via {row.via}"
    memory = "" if row.shared_memory == "none" else f" with {row.shared_memory} shared memory"
    return f"{name_of(row, among)} over {row.protocol}{via}{memory} at {load_text(row)}"


def throughput(row: CellRow) -> str:
    """Images a second, with the interval where there is one: 25 (24.1-26)."""
    low, high = row.throughput_img_per_s_low, row.throughput_img_per_s_high
    return with_range(row.throughput_img_per_s or 0, low, high)


def with_range(value: float, low: float | None, high: float | None) -> str:
    """A figure with its interval where there is one: 25 (24.1-26)."""
    bounds = "" if low is None or high is None else f" ({significant(low)}-{significant(high)})"
    return f"{significant(value)}{bounds}"


def latency(row: CellRow, percent: float) -> str:
    """A percentile in ms: 12.3, or >= 500 where requests had no answer for so long; "" if not known."""
    value = row.latency_ms(percent)
    if value is None:
        return ""
    return f"{'>= ' if row.is_at_least(percent) else ''}{significant(value)}"


def lacks_proof(row: CellRow, percent: float) -> str:
    """What a cell whose bound is likely, but not proved, does prove, or what a proof would take."""
    at = PERCENTS.index(percent)
    proved, seconds = (values[at] if values else None for values in (row.proved_ms, row.proof_s))
    if seconds is not None:
        return f"a proof needs about {max(row.repeats, LEAST_REPEATS)} repeats of {significant(seconds, 2)} s"
    return "" if proved is None else f"the samples prove p{percent:g} <= {significant(proved)} ms"


def _plural(number: int, noun: str) -> str:
    """1 user, 1200 users: without separators, as it is typed in a command."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
