"""The command that measures one cell of a run again."""

from __future__ import annotations

import shlex
from dataclasses import replace

from bench.analysis.cell_row import CellRow
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory, Via
from bench.core.command_line import LOAD_MAKERS, TARGET, flags_of, repeated_words, spec_of, words
from bench.core.run_folder import RunRecord
from bench.core.spec import SweepSpec


def repeat_command(row: CellRow, record: RunRecord) -> str:
    """The command that measures one cell again, as it was measured here."""
    target, makers = repeated_words(record, TARGET), repeated_words(record, LOAD_MAKERS)
    return shlex.join(["bench", "sweep", *words(flags_of(cell_spec(row, record))), *target, *makers])


def cell_spec(row: CellRow, record: RunRecord) -> SweepSpec:
    """The run's spec with the axes of one cell."""
    spec = spec_of(record)
    return replace(
        spec,
        model=row.model,
        batches=(row.batch,),
        replicas=(row.replicas,),
        instances=(row.instances,),
        max_batches=(row.max_batch or None,),  # 0 of a model without a batch axis: nothing to ask for
        queue_delays_us=(row.max_queue_delay_us,),
        parameters=tuple((name, (value,)) for name, value in row.parameters.items()),
        concurrencies=() if row.concurrency is None else (row.concurrency,),
        rates_per_s=() if row.rate_per_s is None else (row.rate_per_s,),
        arrival=Arrival(row.arrival) if row.arrival else spec.arrival,
        protocols=(Protocol(row.protocol),),
        engines=(Engine(row.engine),),
        shared_memory=(SharedMemory(row.shared_memory),),
        vias=(None if row.via is None else Via(row.via),),
    )
