"""Change over the study.

`machine-drift` on the reference cells, each measured twice in every round. Without drift it may be named in
5 % of runs; a row counts runs in which any reference cell is. The noise of repeats: normal; Student's t with
three degrees of freedom; skewed (lognormal); stalls of ten times the usual spread in one repeat of twelve.
In the open loop the noise is that of a queue: medians of M/G/1 at 70 % load, lognormal cv 1, windows of 5 s.
With drift one reference cell gets slower, linearly over the rounds or in one step in the middle, by so many
standard deviations of a repeat; 80 % of such runs are to be named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bench.analysis.checks.cell import FALSE_ALARMS, p_of_drift
from benchmarks.coverage.row import Row

Floats = NDArray[np.float64]
SD, SEED = 0.05, 820_000
# A row holds up to here: 5 %, and what 400 studies may show by chance beyond it.
MOST_ALARMS, LEAST_FOUND = 0.07, 0.80
SERVICE_S, LOAD, WINDOW_S, WARMUP_S = 0.02, 0.7, 5.0, 1.0


def _stalls(random: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return np.asarray(0.3 * random.normal(size=shape) - np.where(random.random(shape) < 1 / 12, 3.0, 0.0))


# Logarithms of repeats in units of SD.
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "Student's t, 3 degrees": lambda random, shape: random.standard_t(3, size=shape) / math.sqrt(3),
    "skewed": lambda random, shape: (random.lognormal(0, 1, shape) - 1.65) / 2.16,
    "stalls": _stalls,
}
# The drift in SDs, by the number of rounds: with one reference cell, and with four.
DRIFTS = {3: (6.0, 14.0), 5: (4.0, 6.0), 8: (3.0, 4.0)}


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    made = [*_steady(studies), *_queues(studies), *_drifting(studies)]
    for row in made:
        say(f"  {row.over}: {row.measured}")
    return made


def _steady(studies: int) -> Iterator[Row]:
    for number, (name, noise) in enumerate(NOISES.items()):
        for cells in (1, 4):
            random = np.random.default_rng(SEED + number)
            shares = [
                _named(SD * noise(random, (cells * studies, 2 * rounds)), cells) for rounds in (3, 5, 8)
            ]
            yield _alarms(f"{name}; {_cells(cells)}; 3, 5, 8 rounds", max(shares), studies)


def _queues(studies: int) -> Iterator[Row]:
    random = np.random.default_rng(SEED + 50)
    for rounds in (3, 5):
        medians = np.log(queue_medians(random, studies * 2 * rounds)).reshape(studies, 2 * rounds)
        yield _alarms(f"medians of an open loop; {_cells(1)}; {rounds} rounds", _named(medians, 1), studies)


def _drifting(studies: int) -> Iterator[Row]:
    for rounds, sizes in DRIFTS.items():
        for cells, size in zip((1, 4), sizes, strict=True):
            random = np.random.default_rng(SEED + 100 + rounds)
            at = np.arange(2 * rounds) % rounds
            found = []
            for drift in (at / (rounds - 1), at >= (rounds + 1) // 2):
                logs = random.normal(size=(cells * studies, 2 * rounds))
                logs[::cells] += size * drift
                found.append(_named(SD * logs, cells))
            yield Row(
                f"a drift or step of {size:g} standard deviations is named",
                f"normal; {_cells(cells)}; {rounds} rounds",
                f">= {LEAST_FOUND:.0%}",
                f"drift {found[0]:.1%}, step {found[1]:.1%}",
                min(found) >= LEAST_FOUND,
                studies,
            )


def _cells(count: int) -> str:
    return f"{count} reference cell{'' if count == 1 else 's'}"


def _alarms(over: str, share: float, studies: int) -> Row:
    holds = share <= MOST_ALARMS
    return Row(
        "machine-drift without drift", over, f"{FALSE_ALARMS:.0%}", f"{share:.1%} at most", holds, studies
    )


def _named(logs: Floats, cells: int) -> float:
    """The share of runs in which a cell is named; `cells` consecutive rows are one run."""
    rounds, named = logs.shape[1] // 2, 0
    for first in range(0, len(logs), cells):
        peers = [dict(enumerate(np.exp(row))) for row in logs[first : first + cells]]
        named += any(p_of_drift(peer, rounds, peers) < FALSE_ALARMS / cells for peer in peers)
    return named * cells / len(logs)


def queue_medians(random: np.random.Generator, trials: int) -> Floats:
    """The median response time in s of each trial's window (Lindley's recursion, from an empty queue)."""
    count = int((WARMUP_S + WINDOW_S) * LOAD / SERVICE_S * 1.5)
    gaps = random.exponential(SERVICE_S / LOAD, (trials, count))
    sigma = math.sqrt(math.log(2))
    services = SERVICE_S * np.exp(sigma * random.normal(size=(trials, count)) - sigma**2 / 2)
    due, response = np.cumsum(gaps, axis=1), np.zeros((trials, count))
    wait = np.zeros(trials)
    for n in range(count):
        response[:, n] = wait + services[:, n]
        if n + 1 < count:
            wait = np.maximum(0.0, response[:, n] - gaps[:, n + 1])
    inside = (due >= WARMUP_S) & (due < WARMUP_S + WINDOW_S)
    return np.nanmedian(np.where(inside, response, np.nan), axis=1)
