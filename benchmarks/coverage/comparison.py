"""Two runs compared.

Repeats are normal on logarithms; throughput and median of a cell share their noise. 60 cells of one server
configuration have two gates, 5 % each way. A start's luck is the same in all cells of a run, or one of each
cell. Exit 1 is a regression in any cell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.analysis.checks.cell import FALSE_ALARMS, p_of_drift
from bench.analysis.many_cells import (
    COMMON_LEVEL,
    LUCK_OF_A_START,
    SINGLE_LEVEL,
    Measured,
    evidence,
    holm,
)
from bench.analysis.stats import Change, change_of
from bench.core.gates import DEFAULT_GATES
from benchmarks.coverage.row import Row

CELLS = 60
MIXED = np.geomspace(0.01, 0.2, CELLS)  # a spread of its own for each cell
Spread = float | NDArray[np.float64]


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """At least 400 studies in each row."""
    found = []
    for paired, repeats, luck in itertools.product((False, True), (3, 5), (0.0, 0.02, 0.03)):
        worst = 0.0
        for spread, each in itertools.product((0.01, 0.02, 0.05, 0.1, 0.2, MIXED), (False, True)):
            if luck or not each:
                worst = max(worst, share_of_exits(studies, repeats, spread, luck, paired=paired, each=each))
        over = (
            f"{'paired' if paired else 'two runs'}, {repeats} repeats of sd 1-20 % and mixed, luck {luck:.0%}"
        )
        found.append(
            Row("equal servers: exit 1", over, "<= 5 %", f"{worst:.1%} at most", worst <= 0.05, studies)
        )
        say(f"{over}: {worst:.1%}")
    for paired in (False, True):
        caught = share_of_exits(studies, 5, 0.02, 0.0, paired=paired, slowdown=1.1)
        over = f"{'paired' if paired else 'two runs'}, 5 repeats of sd 2 %"
        found.append(
            Row("10 % slower in one cell: exit 1", over, ">= 95 %", f"{caught:.1%}", caught >= 0.95, studies)
        )
    for rounds in (3, 5, 10):
        alarms = max(false_alarms(studies, rounds, spread) for spread in (0.01, 0.03, 0.05, 0.1))
        over = f"{rounds} rounds, sd 1-10 %"
        holds = alarms <= FALSE_ALARMS + 2 * math.sqrt(FALSE_ALARMS / studies)
        found.append(Row("machine-drift without drift", over, "5 %", f"{alarms:.1%} at most", holds, studies))
    return found


def share_of_exits(
    studies: int, repeats: int, spread: Spread, luck: float,
    *, paired: bool, each: bool = False, slowdown: float = 1.0,
) -> float:  # fmt: skip
    """How often a comparison names a regression. `each`: each cell has a luck of its own."""
    random = np.random.default_rng(17)
    return (
        sum(_exits(random, repeats, spread, luck, paired, each, slowdown) for _ in range(studies)) / studies
    )


def _exits(
    random: np.random.Generator, repeats: int, spread: Spread, luck: float,
    paired: bool, each: bool, slowdown: float,
) -> bool:  # fmt: skip
    sizes = np.broadcast_to(np.asarray(spread), (CELLS,))[:, None]
    logs = random.normal(0, 1, (2, CELLS, repeats)) * sizes
    logs += random.normal(0, luck, (2, CELLS if each else 1, 1))
    logs[1, 0] += math.log(slowdown)
    single: list[float] = []
    common: list[float] = []
    beyond: list[list[bool]] = []
    for gate in DEFAULT_GATES:
        sign = 1 if gate.higher_is_worse else -1
        cells = [
            Measured(dict(enumerate(sign * base)), dict(enumerate(sign * new)))
            for base, new in zip(*logs, strict=True)
        ]
        found = evidence(cells, higher_is_worse=gate.higher_is_worse, paired=paired, luck=LUCK_OF_A_START)
        single += [one.p_single or 0.0 for one in found]
        common.append(found[0].p_common or 0.0)
        beyond.append(
            [
                change_of(one.one_sided, gate.limit, higher_is_worse=gate.higher_is_worse)
                is Change.REGRESSION
                for one in found
            ]
        )
    no_errors = [1.0] * CELLS  # the third gate, on errors
    sure = holm([*single, *no_errors], SINGLE_LEVEL)
    together = holm(common, COMMON_LEVEL)
    return any(
        is_beyond and (sure[gate * CELLS + cell] or together[gate])
        for gate, of_gate in enumerate(beyond)
        for cell, is_beyond in enumerate(of_gate)
    )


def false_alarms(studies: int, rounds: int, spread: float) -> float:
    """How often a steady machine is said to drift."""
    logs = np.random.default_rng(17).normal(0, spread, (studies, 2 * rounds))
    named = [p_of_drift(dict(enumerate(np.exp(study))), rounds) < FALSE_ALARMS for study in logs]
    return sum(named) / studies
