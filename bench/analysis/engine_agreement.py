"""Two engines on the same cell: do they measure the same?

They differ where they are more than 10 % apart with intervals that do not overlap; that is a finding on both
rows (`checks/cell.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.stats import Interval, geometric, paired_ratio

# Two engines that are closer than this agree, whatever their intervals.
TOLERANCE = 0.10
MEASURES = ("throughput", "p50", "p99")


@dataclass(frozen=True, slots=True)
class Agreement:
    """perf_analyzer over Locust, measure by measure; None where one of them has no number."""

    base: CellRow
    other: CellRow
    ratios: tuple[Interval | None, ...]  # as MEASURES
    verdict: str  # agree, differ, unclear


def pairs(rows: Sequence[CellRow]) -> list[Agreement]:
    """Every cell that both engines measured, Locust's row first."""
    by_axes: dict[tuple[object, ...], dict[str, CellRow]] = {}
    for row in rows:
        if row.throughputs:
            by_axes.setdefault((row.model, *row.axes), {})[row.engine] = row
    return [
        _agreement(engines["locust"], engines["perf_analyzer"])
        for engines in by_axes.values()
        if {"locust", "perf_analyzer"} <= engines.keys()
    ]


def with_agreement(rows: Sequence[CellRow]) -> list[CellRow]:
    """The same rows, with the agreement columns filled."""
    changed: dict[str, CellRow] = {}
    for agreement in pairs(rows):
        for row in (agreement.base, agreement.other):
            changed[row.cell] = _filled(row, agreement)
    return [changed.get(row.cell, row) for row in rows]


def values_of(row: CellRow, measure: str) -> list[float] | None:
    """One number a repeat, of `throughput` or a percentile such as `p99`; None where a repeat lacks it."""
    if measure == "throughput":
        return list(row.throughputs)
    index = PERCENTS.index(float(measure.removeprefix("p")))
    known = [repeat[index] for repeat in row.repeat_latencies_ms]
    return [value for value in known if value is not None] if None not in known else None


def by_repeat(row: CellRow, measure: str) -> dict[int, float]:
    """The same by number of the repeat; empty where a repeat lacks it. A repeat that failed has no number."""
    values = values_of(row, measure)
    return dict(zip(row.repeat_numbers or range(len(values)), values, strict=True)) if values else {}


def _agreement(base: CellRow, other: CellRow) -> Agreement:
    both = [(by_repeat(base, measure), by_repeat(other, measure)) for measure in MEASURES]
    ratios = tuple(_ratio(a, b) if a and b else None for a, b in both)
    verdicts = {_verdict(list(a.values()), list(b.values())) for a, b in both if a and b}
    worst = next(word for word in ("differ", "unclear", "agree") if word in verdicts)
    return Agreement(base, other, ratios, worst)


def _ratio(a: Mapping[int, float], b: Mapping[int, float]) -> Interval | None:
    """Paired by round, since engines take turns within a round."""
    common = [number for number in a if number in b]
    return paired_ratio([a[number] for number in common], [b[number] for number in common])


def _verdict(a: Sequence[float], b: Sequence[float]) -> str:
    one, other = geometric(a), geometric(b)
    if one is None or other is None:
        return "unclear"
    if abs(other.value / one.value - 1) <= TOLERANCE:
        return "agree"
    return "unclear" if one.overlaps(other) else "differ"


def _filled(row: CellRow, agreement: Agreement) -> CellRow:
    throughput, p50, p99 = agreement.ratios
    return replace(
        row,
        agreement=agreement.verdict,
        agreement_throughput_ratio=throughput.value if throughput else None,
        agreement_throughput_ratio_low=throughput.low if throughput else None,
        agreement_throughput_ratio_high=throughput.high if throughput else None,
        agreement_p50_ratio=p50.value if p50 else None,
        agreement_p99_ratio=p99.value if p99 else None,
    )
