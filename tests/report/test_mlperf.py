"""Each scenario has its figure, in the terminal and in the page, and says so when it has none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.analysis.results import RunResults
from bench.core.cell import Cell
from bench.report import page, terminal
from bench.report.mlperf import headline
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell

OPEN = tuple(cell(batch=1, rate_per_s=rate) for rate in (20.0, 60.0))


@pytest.mark.parametrize(
    ("scenario", "of", "slo", "says"),
    [
        ("single-stream", (cell(batch=1, concurrency=1),), "", "MLPerf single-stream: p90 latency "),
        ("multi-stream", (cell(batch=8, concurrency=1),), "", "p99 latency n/a, it needs 662 requests"),
        ("offline", (cell(concurrency=16),), "", "img/s (1 instance, batch 8 over http)."),
        ("server", OPEN, "p50=1s", "60/s under p50=1s (1 instance, batch 1)."),
        ("server", OPEN, "p50=1ms", "no rate that was measured holds p50=1ms."),
        ("server", OPEN, "", "no --slo was given"),
        (None, OPEN, "", ""),
    ],
)
def test_the_figure_of_a_scenario_is_said(
    tmp_path: Path, scenario: str | None, of: tuple[Cell, ...], slo: str, says: str
) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=of, slo=slo, world=World()))
    record = dataclasses.replace(folder.record, spec={**folder.record.spec, "scenario": scenario})
    folder.write_record(record)
    rows = RunResults.of(folder).rows
    said = headline(rows, record)
    assert says in said
    assert bool(said) == bool(scenario)
    if said:
        assert said in terminal.summary(rows, record)
        assert said in page.render([RunResults.of(folder)])
