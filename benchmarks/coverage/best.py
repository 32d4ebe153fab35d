"""The best of many cells.

The card and the terminal name the cell with the highest throughput, and state one. Without fresh trials it is
corrected for having been picked (`bench/analysis/winners_curse.py`); with them it is theirs alone. Each study
draws repeats of cells with known true throughputs, takes the cell that the report recommends, and asks
whether the stated interval contains its true throughput. "Plain" is the picked cell's own interval, which the
table of cells shows. The rule was chosen on other seeds than these.

The cells: all equal; a spread of 10 % (standard deviation of the logarithm); one of them 1.5 times the
others; one of them 5 % better; three groups at 10, 50 and 100 img/s. The noise of repeats: normal; Student's
t with three degrees of freedom; lognormal; stalls, which make one repeat in ten slower by three standard
deviations; cells that differ in their noise by up to seven times (0.3, 1 or 2 times the sd).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.cell_row import COLUMNS, CellRow, Confirmed
from bench.analysis.recommendation import recommend, stated
from bench.analysis.stats import arithmetic
from bench.analysis.winners_curse import with_if_best
from benchmarks.coverage.row import Row

Floats = NDArray[np.float64]
LEAST_COVERED = 0.90
SEED = 910_000


def _normal(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Floats:
    return 1 + sd * random.normal(size=shape)


def _student(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Floats:
    return 1 + sd * random.standard_t(3, size=shape) / math.sqrt(3)


def _lognormal(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Floats:
    return np.exp(sd * random.normal(size=shape) - sd * sd / 2)


def _stalls(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Floats:
    slower = np.where(random.random(shape) < 0.1, 1 - 3 * sd, 1.0)
    return (1 + sd / 2 * random.normal(size=shape)) * slower / (1 - 0.3 * sd)


def _uneven(random: np.random.Generator, shape: tuple[int, int], sd: float) -> Floats:
    return 1 + sd * random.choice([0.3, 1.0, 2.0], size=(shape[0], 1)) * random.normal(size=shape)


def _spread(random: np.random.Generator, cells: int) -> Floats:
    return 100 * np.exp(0.1 * random.normal(size=cells))


def _one(factor: float) -> Callable[[np.random.Generator, int], Floats]:
    return lambda _, cells: np.array([100 * factor, *[100.0] * (cells - 1)])


def _groups(random: np.random.Generator, cells: int) -> Floats:
    return random.choice([10.0, 50.0, 100.0], size=cells)


TRUTHS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "equal": _one(1.0),
    "a spread of 10 %": _spread,
    "one 1.5 x": _one(1.5),
    "one 5 % better": _one(1.05),
    "three groups": _groups,
}
NOISES: dict[str, Callable[[np.random.Generator, tuple[int, int], float], Floats]] = {
    "normal": _normal,
    "Student's t, 3 degrees": _student,
    "lognormal": _lognormal,
    "stalls": _stalls,
    "uneven": _uneven,
}


@dataclass(frozen=True, slots=True)
class Study:
    """`sd`: of a repeat, as a share of the throughput. `confirm`: with fresh trials of the best."""

    truth: str
    noise: str
    cells: int
    repeats: int
    sd: float
    confirm: bool = False

    def __str__(self) -> str:
        of = f"{self.cells} cells, {self.truth}; sd {self.sd:.0%}, {self.noise}"
        return f"{of}; {self.repeats} repeats"

    def drawn(self, random: np.random.Generator) -> Drawn:
        """One study: what is stated of the best cell, as a share of its true throughput."""
        truth = TRUTHS[self.truth](random, self.cells)
        values = self._values(random, truth)
        rows = with_if_best([row_of(str(number), some) for number, some in enumerate(values)])
        best = recommend(rows, None).best
        assert best is not None
        true = float(truth[int(best.cell)])
        if self.confirm:
            (fresh,) = self._values(random, np.array([true]))
            best = _confirmed(best, fresh)
        said = stated(best)
        own = (best.throughput_img_per_s_low or 0.0, best.throughput_img_per_s_high or math.inf)
        return Drawn(
            covers=(said.low or 0.0) <= true <= (said.high or math.inf),
            plain_covers=own[0] <= true <= own[1],
            value=said.value / true,
            plain_value=(best.throughput_img_per_s or 0.0) / true,
        )

    def _values(self, random: np.random.Generator, truth: Floats) -> Floats:
        noise = NOISES[self.noise](random, (len(truth), self.repeats), self.sd)
        return np.maximum(truth[:, None] * noise, 0.01 * truth[:, None])


@dataclass(frozen=True, slots=True)
class Drawn:
    covers: bool
    plain_covers: bool
    value: float
    plain_value: float


def row_of(cell: str, values: Floats) -> CellRow:
    """A VALID cell with nothing but repeats."""
    interval = arithmetic(values.tolist())
    assert interval is not None
    known: dict[str, Any] = dict.fromkeys(COLUMNS)
    known |= {
        "cell": cell, "engine": "locust", "verdict": "VALID", "batch": 1, "errors": 0,
        "findings": "",
        "throughput_img_per_s": interval.value,
        "throughput_img_per_s_low": interval.low, "throughput_img_per_s_high": interval.high,
        "throughputs": tuple(values.tolist()),
    }  # fmt: skip
    return CellRow(**known)


def _confirmed(row: CellRow, fresh: Floats) -> CellRow:
    of = arithmetic(fresh.tolist())
    assert of is not None
    said = Confirmed(
        value=of.value, low=of.low, high=of.high, repeats=len(fresh), verdict="VALID", findings=""
    )
    return replace(row, confirmed=said)


def studied() -> Iterator[Study]:
    for repeats in (3, 5):
        yield from (Study("equal", "normal", 60, repeats, sd) for sd in (0.05, 0.1))
    yield from (Study("equal", "normal", 60, 3, sd, confirm=True) for sd in (0.05, 0.1))
    yield from (Study(truth, "normal", 60, 3, 0.05) for truth in TRUTHS if truth != "equal")
    for cells in (3, 5):
        yield from (Study(truth, "normal", cells, 3, 0.1) for truth in ("equal", "one 1.5 x"))
    yield from (Study("equal", noise, 60, 3, 0.05) for noise in NOISES if noise != "normal")
    yield from (Study("equal", noise, 5, 3, 0.05) for noise in ("stalls", "uneven"))


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """`studies` runs of each row."""
    made = []
    for number, study in enumerate(studied()):
        made.append(measured(study, studies, SEED + number))
        say(f"  {made[-1].over}: {made[-1].measured}")
    return made


def measured(study: Study, studies: int, seed: int) -> Row:
    """How often what is stated of the best cell contains its true throughput."""
    random = np.random.default_rng(seed)
    drawn = [study.drawn(random) for _ in range(studies)]
    covers = float(np.mean([one.covers for one in drawn]))
    plain = float(np.mean([one.plain_covers for one in drawn]))
    bias, plain_bias = (
        float(np.mean([value - 1 for value in values]))
        for values in ([one.value for one in drawn], [one.plain_value for one in drawn])
    )
    basis = "of the best's fresh trials" if study.confirm else "stated of the best, corrected,"
    return Row(
        f"the interval {basis} contains its true throughput",
        str(study),
        f">= {LEAST_COVERED:.0%}",
        f"{covers:.1%}, bias {bias:+.1%}; plain: {plain:.1%}, bias {plain_bias:+.1%}",
        covers >= LEAST_COVERED,
        studies,
    )
