"""Two engines on the same cell: agree, differ, unclear."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.analysis.cell_row import CellRow
from bench.analysis.results import RunResults
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell

BOTH = (cell(batch=1), cell(batch=1, engine="perf_analyzer"))


def two(path: Path, other: World, repeats: int = 5) -> list[CellRow]:
    study = Study(cells=BOTH, worlds={BOTH[1].key: other}, repeats=repeats)
    return RunResults.of(synthetic.write(path / "run", study)).rows


def test_the_same_server_makes_them_agree_on_both_rows(tmp_path: Path) -> None:
    rows = two(tmp_path, World())
    assert [row.agreement for row in rows] == ["agree", "agree"]
    assert rows[0].agreement_throughput_ratio == pytest.approx(1, abs=0.05)
    low, high = rows[0].agreement_throughput_ratio_low, rows[0].agreement_throughput_ratio_high
    assert low is not None
    assert high is not None
    assert low < rows[0].agreement_throughput_ratio < high


def test_beyond_ten_percent_with_intervals_apart_is_a_finding_on_both(tmp_path: Path) -> None:
    for row in two(tmp_path, World(slowdown=1.3)):
        assert row.agreement == "differ"
        assert "engines-differ" in row.findings.split()
        assert row.verdict == "VALID"


def test_without_repeats_a_difference_is_unclear(tmp_path: Path) -> None:
    assert {row.agreement for row in two(tmp_path, World(slowdown=1.3), repeats=1)} == {"unclear"}


def test_a_cell_of_one_engine_has_no_agreement(tmp_path: Path) -> None:
    (row,) = RunResults.of(synthetic.write(tmp_path / "run", Study(cells=BOTH[:1]))).rows
    assert row.agreement is None
    assert row.agreement_throughput_ratio is None
