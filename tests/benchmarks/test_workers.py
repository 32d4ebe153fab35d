"""What the benchmark of workers makes of trials; its measuring is run by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.workers import COUNTS, FAST, KNOWN, Measured, Rows, goals, order, tables


def trials(*requests_per_s: float, busy: float = 50.0) -> list[Measured]:
    known = {"fullest_percent": 9.0, "busy_percent": busy, "failed": 0}
    return [Measured(requests_per_s=r, p50_ms=1e3 / r, p99_ms=2e3 / r, **known) for r in requests_per_s]  # type: ignore[arg-type]  # by name


def rows(known: Sequence[Sequence[float]], fast: Sequence[Sequence[float]], busy: Sequence[float]) -> Rows:
    found = {(KNOWN, count): trials(*values) for count, values in zip(COUNTS, known, strict=True)}
    return found | {
        (FAST, count): trials(*values, busy=percent)
        for count, values, percent in zip(COUNTS, fast, busy, strict=True)
    }


SAME = [(80, 79.9, 80.1)] * 4
GROWING = [(100, 101, 99), (190, 191, 189), (350, 352, 351), (600, 601, 603)]
FLAT = [(100, 101, 99)] * 4


@pytest.mark.parametrize(
    ("says", "found", "expected"),
    [
        ("the same figures, and growth", rows(SAME, GROWING, [50] * 4), "yes yes yes yes"),
        ("no growth with full cores is fine", rows(SAME, FLAT, [95] * 4), "yes yes yes yes"),
        ("no growth with idle cores is undecided", rows(SAME, FLAT, [50] * 4), "yes yes open yes"),
        ("falling with idle cores is not", rows(SAME, GROWING[::-1], [50] * 4), "yes yes no yes"),
        ("eight that lose some", rows([*SAME[:3], (70, 71, 70)], GROWING, [50] * 4), "no no yes yes"),
        ("too few rounds say nothing", rows([(80,)] * 4, [(100,)] * 4, [50] * 4), "open open open yes"),
    ],
)
def test_goals(says: str, found: Rows, expected: str) -> None:
    assert [goal.met for goal in goals(found)] == expected.split(" "), says


def test_each_row_is_measured_once_a_round_and_shown_once() -> None:
    assert sorted(order(3)) == sorted(3 * [(model, count) for model in (KNOWN, FAST) for count in COUNTS])
    assert [len(table.rows) for table in tables(rows(SAME, GROWING, [50] * 4))] == [4, 4]
