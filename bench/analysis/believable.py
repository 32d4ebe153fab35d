"""A trial as far as its numbers can be, without counters that fell and readings that are no numbers."""

from __future__ import annotations

import math
from dataclasses import fields, replace

from bench.core.trial import Counters, Trial

# Nanoseconds of all requests of three centuries; a counter beyond it is garbage.
MOST_COUNTED = 10**19
# No sensor reads more: a card's energy in joules has 10 digits, memory in bytes 13.
_MOST_READ = 1e18
_MAPPINGS = ("batches", "pods")


def believable(trial: Trial) -> Trial:
    """`trial` with no counters where they are impossible, and without impossible readings of sensors."""
    counters = trial.counters if trial.counters is None or are_possible(trial.counters) else None
    machine = {
        name: tuple((at_ns, value) for at_ns, value in rows if _is_reading(value))
        for name, rows in trial.machine.items()
    }
    return replace(trial, counters=counters, machine={name: rows for name, rows in machine.items() if rows})


def are_possible(counters: Counters) -> bool:
    """Whether each of them only went up: a model that is reloaded counts from zero again."""
    plain = [getattr(counters, entry.name) for entry in fields(Counters) if entry.name not in _MAPPINGS]
    batches = [
        number
        for size, (count, ns) in counters.batches.items()
        for number in (size - 1, count - 1, ns)  # what was not executed is not among them
    ]
    return all(0 <= number <= MOST_COUNTED for number in (*plain, *batches)) and all(
        are_possible(pod) for pod in counters.pods.values()
    )


def _is_reading(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= _MOST_READ
