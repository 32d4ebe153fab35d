"""Power of a comparison: what a plan would see, and how many repeats settle an open verdict.

Repeats are normal on logarithms. One cell of one or of 60 is slower by the change that the plan is said to
see in 80 %; the gate allows 5 %. "Sees" counts the studies that name a regression of that cell. Two runs have
a start's luck of 3 % allowed for, interleaved ones do not. "Settled" counts new runs with the advised number
of repeats, after a run whose verdict was open, that had a verdict. Its truth lies so many standard errors of
the first run from the gate; a truth on the gate itself is settled by no number of repeats. The largest misfit
is that of 60 cells interleaved with 3 repeats, where 81 to 87 % are seen (1000 studies).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from bench.analysis.many_cells import (
    COMMON_LEVEL,
    LUCK_OF_A_START,
    SINGLE_LEVEL,
    Evidence,
    Measured,
    evidence,
    holm,
)
from bench.analysis.power import (
    POWER,
    Design,
    Spread,
    measured_spread,
    power,
    repeats_to_settle,
    smallest_change,
)
from bench.analysis.stats import Change, change_of
from benchmarks.coverage.row import Row

LIMIT = math.log(1.05)
# Claim and simulation may differ by this, beyond two standard errors of the simulation.
TOLERANCE = 0.02


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """Power of plans with 1 and 60 cells, and new runs that were advised by old ones."""
    table = []
    for cells, paired in itertools.product((1, 60), (False, True)):
        # A study of one cell is quick.
        measured, each = [], studies if cells > 1 else 5 * studies
        for repeats, spread in itertools.product((3, 5, 12), (0.01, 0.05, 0.2)):
            design = design_of(repeats, cells, paired)
            change = smallest_change(design, LIMIT, Spread(spread))
            if change is not None:
                measured.append(seen(design, spread, change, each) - power_of(design, spread, change))
        worst = max(measured, key=abs)
        over = f"{'interleaved' if paired else 'two runs'}, {cells} cells, 3, 5, 12 repeats, sd 1, 5, 20 %"
        noise = 2 * math.sqrt(POWER * (1 - POWER) / each)
        said = f"{np.mean(measured):+.1%} on average, {worst:+.1%} at most"
        say(f"{over}: {said}")
        holds = abs(worst) <= TOLERANCE + 1.5 * noise and abs(float(np.mean(measured))) <= TOLERANCE
        table.append(Row("sees the smallest change in 80 %", over, "2 points on average", said, holds, each))
    for paired, repeats in itertools.product((False, True), (3, 5)):
        shares = {}
        for away in (-2, -1, 0, 1, 2):
            open_runs = settled(design_of(repeats, 1, paired, luck=0.0), 0.05, away, studies)
            shares[away] = float(np.mean(open_runs)) if open_runs else math.nan
        over = f"{'interleaved' if paired else 'two runs'}, first run of {repeats} repeats, sd 5 %"
        said = ", ".join(f"{away:+d} errors: {share:.0%}" for away, share in shares.items())
        say(f"{over}: {said}")
        holds = all(share >= POWER for away, share in shares.items() if away)
        table.append(Row("the advised repeats settle", over, ">= 80 % off the gate", said, holds, studies))
    return table


def design_of(repeats: int, cells: int, paired: bool, luck: float | None = None) -> Design:
    allowed = (0.0 if paired else LUCK_OF_A_START) if luck is None else luck
    return Design(repeats=repeats, paired=paired, alternates=paired, cells=cells, luck=allowed)


def power_of(design: Design, spread: float, change: float) -> float:
    return power(design, LIMIT, change, Spread(spread))


def seen(design: Design, spread: float, change: float, studies: int) -> float:
    """How often a regression of the first cell is named, which alone changed."""
    random = np.random.default_rng([11, design.repeats, design.cells, round(1000 * spread)])
    found = [_compared(random, design, spread, change) for _ in range(studies)]
    return sum(_verdict(one, design) is Change.REGRESSION for one in found) / studies


def settled(design: Design, spread: float, away: float, studies: int) -> list[bool]:
    """Of each study whose first run was open: whether a run with the advised repeats was not."""
    random = np.random.default_rng([13, design.repeats])
    change = LIMIT + away * spread * math.sqrt(2 / design.repeats)
    results = []
    for _ in range(studies):
        first = _compared(random, design, spread, change)
        one = first[0]
        if _verdict(first, design) is not Change.INCONCLUSIVE or one.error is None:
            continue
        known = measured_spread(design, one.error, one.degrees)
        repeats = repeats_to_settle(design, LIMIT, math.log(one.interval.value), known)
        again = design_of(repeats or design.repeats, 1, design.paired, design.luck)
        results.append(_verdict(_compared(random, again, spread, change), again) is not Change.INCONCLUSIVE)
    return results


def _compared(random: np.random.Generator, design: Design, spread: float, change: float) -> list[Evidence]:
    logs = random.normal(0, spread, (2, design.cells, design.repeats))
    logs[1, 0] += change
    cells = [Measured(dict(enumerate(a)), dict(enumerate(b))) for a, b in zip(*logs, strict=True)]
    return evidence(
        cells,
        higher_is_worse=True,
        paired=design.paired,
        luck=design.luck,
        is_reversed=lambda number: design.alternates and number % 2 == 1,
    )


def _verdict(found: list[Evidence], design: Design) -> Change:
    """Of the first cell, as `comparison` judges: the other gates saw no change at all."""
    first, others = found[0], [1.0] * design.cells * (design.gates - 1)
    limit = math.exp(LIMIT)
    sure = (
        holm([*(one.p_single or 0.0 for one in found), *others], SINGLE_LEVEL)[0]
        or holm([first.p_common or 0.0, *[1.0] * (design.gates - 2)], COMMON_LEVEL)[0]
    )
    if change_of(first.one_sided, limit, higher_is_worse=True) is Change.REGRESSION:
        return Change.REGRESSION if sure else Change.INCONCLUSIVE
    change = change_of(first.interval, limit, higher_is_worse=True)
    return Change.INCONCLUSIVE if change is Change.REGRESSION and not sure else change
