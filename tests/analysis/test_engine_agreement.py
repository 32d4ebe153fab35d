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


def test_repeats_are_paired_by_their_round_where_one_failed(tmp_path: Path) -> None:
    """Each round is half as fast as the one before; the engines lack different rounds."""
    folder = synthetic.write(tmp_path / "run", Study(cells=BOTH, repeats=1))
    for of, lacks in zip(BOTH, (1, 3), strict=True):
        for repeat in {0, 1, 2, 3, 4} - {lacks}:
            folder.write_trial(synthetic.trial(of, repeat, World(slowdown=2.0**repeat)))
    row, _ = RunResults.of(folder).rows
    assert row.agreement_throughput_ratio == pytest.approx(1, abs=0.1)
