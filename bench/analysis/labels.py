"""A cell in words, the same in every view."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cell_row import CellRow
from bench.core.units import queue_delay


def label(row: CellRow, *, with_max_batch: bool = False) -> str:
    """b8 · 2 inst · http · 4 users."""
    instances = [] if row.instances is None else [f"{row.instances} inst"]
    extra = [f"{name} {value}" for name, value in row.parameters.items()]
    extra += [f"max batch {row.max_batch}"] if with_max_batch else []
    extra += [] if row.max_queue_delay_us is None else [queue_delay(row.max_queue_delay_us)]
    extra += [] if row.shared_memory == "none" else [f"{row.shared_memory} shm"]
    extra += [] if row.via is None else [f"via {row.via}"]
    pods = [] if row.replicas is None else [f"{row.replicas} pods"]
    return " · ".join([f"b{row.batch}", *pods, *instances, row.protocol, load_text(row), *extra])


def load_text(row: CellRow) -> str:
    """4 users; 50/s."""
    if row.rate_per_s is not None:
        return f"{row.rate_per_s:g}/s"
    return f"{row.concurrency} user{'' if row.concurrency == 1 else 's'}"


def name_of(row: CellRow, among: Sequence[CellRow] = ()) -> str:
    """2 instances, batch 8, precision bf16: what to configure, without the load. `among`: rows that it has
    to be told from; every model has a maximum of its batch, so that is said where it differs."""
    count = "" if row.instances is None else f"{row.instances} instance{'' if row.instances == 1 else 's'}"
    pods = "" if row.replicas is None else f"{row.replicas} replica{'' if row.replicas == 1 else 's'}"
    server = [f"{k} {v}" for k, v in row.parameters.items()]
    server += [f"max batch {row.max_batch}"] if len({other.max_batch for other in among}) > 1 else []
    server += [] if row.max_queue_delay_us is None else [queue_delay(row.max_queue_delay_us)]
    return ", ".join([*filter(None, (pods, count)), f"batch {row.batch}", *server])
