"""MLPerf LoadGen itself as the oracle of the Poisson tape."""

from __future__ import annotations

import json
from pathlib import Path

import mlperf_loadgen as loadgen
import numpy as np
import pytest

from bench.loadgen.arrivals import poisson


@pytest.mark.parametrize(("seed", "rate"), [(1, 2000.0), (16159082839903944936, 5000.0)])
def test_the_tape_is_loadgens_schedule_to_the_nanosecond(tmp_path: Path, seed: int, rate: float) -> None:
    scheduled = _schedule_ns(tmp_path, seed, rate, queries=501)
    tape = poisson(rate, 2 * 501 / rate, seed)
    np.testing.assert_array_equal(np.diff(scheduled), np.diff(tape[:500], prepend=0))


def _schedule_ns(folder: Path, seed: int, rate: float, queries: int) -> list[int]:
    """When LoadGen wanted each query sent, as its trace tells."""
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate
    settings.min_duration_ms = 0
    settings.min_query_count = settings.max_query_count = queries
    settings.schedule_rng_seed = seed
    logs = loadgen.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.enable_trace = True
    system = loadgen.ConstructSUT(_answer_at_once, lambda: None)
    library = loadgen.ConstructQSL(100, 100, lambda _: None, lambda _: None)
    loadgen.StartTestWithLogSettings(system, library, settings, logs)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(system)
    lines = (folder / "mlperf_log_trace.json").read_text().splitlines()
    rows = [json.loads(line.rstrip(",")) for line in lines if '"Latency"' in line]
    return sorted(round(row["ts"] * 1000) for row in rows)  # microseconds with three digits


def _answer_at_once(queries: list[loadgen.QuerySample]) -> None:
    loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query.id, 0, 0) for query in queries])
