"""What a planned comparison would see: a sentence for each gate, and the same for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, stdev
from typing import Any

from bench.analysis.engine_agreement import values_of
from bench.analysis.many_cells import LUCK_OF_A_START
from bench.analysis.power import MOST_REPEATS, POWER, Design, Spread, repeats_to_see, smallest_change
from bench.analysis.results import RunResults
from bench.core.gates import Gate, with_errors
from bench.core.spec import Reload, SweepSpec
from bench.core.units import percent

# Throughput and medians of a quiet machine differ by about so much from repeat to repeat; tails by more.
ASSUMED_SPREAD = 0.02
# Three repeats know their spread poorly. A plan with fewer repeats than this says what so many would see.
MORE_REPEATS = 5


@dataclass(frozen=True, slots=True)
class GatePlan:
    """One gate. `smallest`: the change of one cell that POWER of such comparisons see; None: none is seen.

    `with_more`: the same with MORE_REPEATS, where the plan has fewer. `repeats`: what `detect` needs in each
    run; None where nothing was asked, or no number is enough.
    """

    gate: Gate
    spread: float
    source: str
    smallest: float | None
    with_more: float | None
    detect: float | None
    repeats: int | None

    def __str__(self) -> str:
        seen = "no change" if self.smallest is None else f"a change of {percent(self.smallest)} or more"
        sentence = (
            f"{self.gate}: {POWER:.0%} of such comparisons see {seen} of a single cell, with repeats that "
            f"spread by {percent(self.spread)} ({self.source})."
        )
        more = "" if self.with_more is None else f"With {MORE_REPEATS} repeats: {percent(self.with_more)}."
        return " ".join(filter(None, (sentence, more, self._needs())))

    def _needs(self) -> str:
        if self.detect is None:
            return ""
        if self.detect <= abs(self.gate.limit - 1):
            return f"A change of {percent(self.detect)} is allowed by this gate."
        if self.repeats is None:
            return f"A change of {percent(self.detect)} is not seen with {MOST_REPEATS} repeats either."
        return f"A change of {percent(self.detect)} needs {self.repeats} repeats of each."

    @property
    def record(self) -> dict[str, Any]:
        return {
            "gate": str(self.gate),
            "spread": self.spread,
            "spread_from": self.source,
            "power": POWER,
            "smallest_change": self.smallest,
            f"smallest_change_with_{MORE_REPEATS}_repeats": self.with_more,
            "detect": self.detect,
            "repeats_to_detect": self.repeats,
        }


def power_plan(
    spec: SweepSpec,
    gates: Sequence[Gate] = (),
    *,
    is_interleaved: bool = False,
    base: RunResults | None = None,
    assumed: float | None = None,
    detect: float | None = None,
) -> list[GatePlan]:
    """Of each gate on a ratio. `base`: a run that tells how much repeats spread; `assumed`: instead.

    A sweep by itself is planned as one of two such runs.
    """
    gates = with_errors(gates)
    design = Design(
        repeats=spec.repeats,
        paired=is_interleaved,
        alternates=is_interleaved,
        cells=len(spec.cells()),
        starts=len(spec.configurations()),
        gates=len(gates),
        luck=0.0 if spec.reload is Reload.REPEAT else LUCK_OF_A_START,
    )
    return [_of_gate(gate, design, base, assumed, detect) for gate in gates if not gate.is_difference]


def about(spec: SweepSpec, *, is_interleaved: bool = False) -> str:
    """What the sentences are about."""
    how = "interleaved" if is_interleaved else "this run against another like it"
    luck = "" if spec.reload is Reload.REPEAT else (
        f", a luck of {LUCK_OF_A_START:.0%} a start allowed for, which --reload repeat would measure"
    )  # fmt: skip
    return f"Compared, {how}, with {spec.repeats} repeats{luck}:"


def _of_gate(
    gate: Gate, design: Design, base: RunResults | None, assumed: float | None, detect: float | None
) -> GatePlan:
    spread, source = _spread(gate, base, assumed)
    sign = 1 if gate.higher_is_worse else -1
    limit, known = sign * math.log(gate.limit), Spread(spread)
    least = smallest_change(design, limit, known)
    more = replace(design, repeats=MORE_REPEATS)
    with_more = smallest_change(more, limit, known) if design.repeats < MORE_REPEATS else None
    wanted = None if detect is None else sign * math.log1p(sign * detect)
    return GatePlan(
        gate,
        spread,
        source,
        _share(least, sign),
        _share(with_more, sign),
        detect,
        None if wanted is None else repeats_to_see(design, limit, wanted, known),
    )


def _share(logarithm: float | None, sign: int) -> float | None:
    return None if logarithm is None else abs(math.expm1(sign * logarithm))


def _spread(gate: Gate, base: RunResults | None, assumed: float | None) -> tuple[float, str]:
    """Standard deviation of a repeat's logarithm, and where it is from."""
    if assumed is not None:
        return assumed, "--assume-spread"
    values = [values_of(row, gate.measure) or [] for row in base.rows] if base else []
    known = [stdev(map(math.log, of_cell)) for of_cell in values if len(of_cell) > 1 and min(of_cell) > 0]
    if known and base:
        return median(known), f"the typical cell of {base.record.name}"
    return ASSUMED_SPREAD, "assumed; --assume-spread says another"
