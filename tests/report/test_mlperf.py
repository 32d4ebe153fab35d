"""Each scenario has its figure, in the terminal and in the page, and says so when it has none."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from pathlib import Path

import mlperf_loadgen as loadgen
import numpy as np
import pytest

from bench.analysis.results import RunResults
from bench.analysis.stats import estimate_under
from bench.core.cell import Cell
from bench.report import page, terminal
from bench.report.mlperf import headline
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell

OPEN = tuple(cell(batch=1, rate_per_s=rate) for rate in (20.0, 60.0))


@pytest.mark.parametrize(
    ("scenario", "of", "slo", "says"),
    [
        (
            "single-stream",
            (cell(batch=1, concurrency=1),),
            "",
            "In the manner of MLPerf single-stream: p90 latency ",
        ),
        ("multi-stream", (cell(batch=8, concurrency=1),), "", "p99 latency n/a, it needs 662 requests"),
        ("single-stream", (cell(batch=1, concurrency=1),), "", "early-stopping estimate "),
        ("single-stream", (cell(batch=1, concurrency=1),), "", "where LoadGen runs 600 s; no accuracy run."),
        (
            "offline",
            (cell(concurrency=16),),
            "",
            "samples, where LoadGen sends 24,576; 16 requests in flight",
        ),
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


@pytest.mark.parametrize(
    ("scenario", "percent", "queries"), [("SingleStream", 90.0, 300), ("MultiStream", 99.0, 1500)]
)
def test_the_estimate_is_the_one_that_loadgen_makes(
    tmp_path: Path, scenario: str, percent: float, queries: int
) -> None:
    """LoadGen itself, and the response times that its trace tells."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = queries
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(tmp_path)
    logs.enable_trace = True
    system = loadgen.ConstructSUT(_answer, lambda: None)
    library = loadgen.ConstructQSL(100, 100, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(system, library, settings, logs)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    of_queries: dict[int, int] = defaultdict(int)
    for line in (tmp_path / "mlperf_log_trace.json").read_text().splitlines():
        if '"complete_ns"' in line:
            known = json.loads(line.rstrip(","))["args"]
            of_queries[known["query_seq"]] = max(of_queries[known["query_seq"]], known["complete_ns"])
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    match = re.search(rf"Early stopping {percent}th percentile estimate: (\d+)", summary)
    assert match is not None
    assert len(of_queries) == queries
    ordered = np.array(sorted(of_queries.values()), dtype=np.int64)
    assert estimate_under(ordered, percent) == int(match[1])


def _answer(queries: list[loadgen.QuerySample]) -> None:
    loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0) for query in queries])
