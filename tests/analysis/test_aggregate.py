"""Rows of cells: what is pooled, what is over repeats, what is empty, and the CSV they make."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis import cell_table
from bench.analysis.aggregate import MeasuredTrial, aggregate
from bench.analysis.cell_row import COLUMNS, PERCENTS, CellRow
from bench.analysis.labels import lacks_proof, latency
from bench.analysis.results import RunResults
from bench.analysis.stats import arithmetic, nearest_rank
from bench.analysis.summary import measured_requests, summarize, throughput_req_per_s
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.samples import Outcome
from bench.core.trial import Trial
from tests.support import simulation, synthetic
from tests.support.simulation import Server, always
from tests.support.simulation import cell as simulated
from tests.support.synthetic import Study, World, cell

ASKED_COLUMNS = [
    "protocol",
    "batch",
    "instances",
    "concurrency",
    "engine",
    "requests",
    "errors",
    "throughput_img_per_s",
    "throughput_req_per_s",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_mean_ms",
    "server_queue_ms",
    "server_compute_input_ms",
    "server_compute_infer_ms",
    "server_compute_output_ms",
    "executed_batch_mean",
    "verdict",
]


def one_row(path: Path, study: Study) -> tuple[CellRow, list[Trial]]:
    folder = synthetic.write(path / "run", study)
    (row,) = RunResults.of(folder).rows
    return row, list(folder.trials())


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return synthetic.record(Study(cells=(simulated(concurrency=1),)))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return synthetic.every_kind(tmp_path_factory.mktemp("everything") / "run")


def test_percentiles_are_of_the_pooled_requests_of_all_repeats(tmp_path: Path) -> None:
    row, trials = one_row(tmp_path, Study(cells=(cell(batch=1),)))
    pooled = np.sort(np.concatenate([measured_requests(trial).good().response_ns for trial in trials]))
    assert row.latency_n == len(pooled)
    for percent, value in ((50, row.latency_p50_ms), (90, row.latency_p90_ms), (99, row.latency_p99_ms)):
        assert value == nearest_rank(pooled, percent) / 1e6
    assert row.latency_mean_ms == pytest.approx(pooled.mean() / 1e6)


def test_throughput_is_the_mean_over_repeats_with_its_interval(tmp_path: Path) -> None:
    row, trials = one_row(tmp_path, Study(cells=(cell(batch=8),), repeats=5))
    of_repeats = [throughput_req_per_s(trial) * 8 for trial in trials]
    plain = arithmetic(of_repeats)
    assert plain is not None
    assert plain.low is not None
    assert row.throughput_img_per_s == pytest.approx(np.mean(of_repeats))
    assert row.throughput_img_per_s_low is not None
    assert 0.9 * plain.low < row.throughput_img_per_s_low < plain.low  # the window's ends are in it too
    assert row.throughput_req_per_s == pytest.approx(np.mean(of_repeats) / 8)
    assert row.throughputs == tuple(of_repeats)


def test_repeats_that_agree_have_an_interval_with_width(record: RunRecord) -> None:
    """Windows that open in phase with the load agree; their ends are worth something still."""
    alternate = Server(lambda index: (400 if index % 2 else 200) * 1_000_000)
    trials = [
        simulation.trial(alternate, simulated(concurrency=1), seconds=3.1, warmup_s=0.5) for _ in range(3)
    ]
    row = aggregate([MeasuredTrial.of(one, None) for one in trials], record)
    assert len(set(row.throughputs)) == 1
    assert row.throughput_img_per_s_low is not None
    assert row.throughput_img_per_s_high is not None
    assert row.throughput_img_per_s_low < 1 / 0.3 < row.throughput_img_per_s_high


def test_a_window_that_is_too_short_to_say_gives_no_interval(record: RunRecord) -> None:
    trials = [simulation.trial(Server(always(2000)), simulated(concurrency=1), seconds=3.0) for _ in range(3)]
    row = aggregate([MeasuredTrial.of(one, None) for one in trials], record)
    assert "window-too-short" in row.findings.split()
    assert row.throughput_img_per_s == pytest.approx(0.5)
    assert (row.throughput_img_per_s_low, row.throughput_img_per_s_high) == (None, None)


def test_below_three_repeats_there_is_no_interval(tmp_path: Path) -> None:
    row, _ = one_row(tmp_path, Study(cells=(cell(batch=1),), repeats=2))
    assert row.throughput_img_per_s is not None
    assert row.throughput_img_per_s_low is None
    assert row.latency_p99_ms_low is None


def test_a_percentile_without_enough_samples_is_empty_in_the_csv(tmp_path: Path) -> None:
    row, _ = one_row(tmp_path, Study(cells=(cell(batch=32),), repeats=1))
    assert row.latency_p50_ms is not None
    assert row.latency_p99_ms is None
    text = cell_table.frame([row]).to_csv(index=False)
    (line,) = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).to_dict("records")
    assert line["latency_p99_ms"] == ""
    assert "nan" not in text.lower()


def test_an_invalid_trial_makes_the_cell_invalid(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(batch=1),)))
    spoiled = synthetic.trial(cell(batch=1), repeat=1)
    busy = dataclasses.replace(spoiled.generator, cpu_s=(4.99,))
    folder.write_trial(dataclasses.replace(spoiled, generator=busy))
    (row,) = RunResults.of(folder).rows
    assert row.verdict == "INVALID"
    assert "client-bound" in row.findings.split()


def test_every_planned_cell_has_a_row_in_the_order_of_the_axes(everything: RunFolder) -> None:
    table = RunResults.of(everything).rows
    record = everything.record
    assert [row.cell for row in table] == [of.key for of in record.planned]
    for row in table:
        if row.cell in record.failed:
            assert (row.verdict, row.reason) == ("FAILED", record.failed[row.cell])
            assert row.throughput_img_per_s is None
    assert sum(row.verdict == "NOT RUN" for row in table) == 1
    assert {row.verdict for row in table} == {"VALID", "INVALID", "FAILED", "NOT RUN"}


def timed_out(tmp_path: Path, seconds: float = 0.5) -> CellRow:
    """A row of a server that is outrun: 8 of 10 requests end at their timeout."""
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(rate_per_s=80.0, batch=1),)))
    for trial in list(folder.trials()):
        samples = trial.samples
        late = np.arange(len(samples)) % 10 < 8
        done_ns = np.where(late, samples.intended_ns + int(seconds * 1e9), samples.done_ns)
        outcome = np.where(late, int(Outcome.TIMEOUT), samples.outcome)
        folder.write_trial(
            dataclasses.replace(trial, samples=dataclasses.replace(samples, done_ns=done_ns, outcome=outcome))
        )
    return RunResults.of(folder).rows[0]


def test_a_request_without_an_answer_in_time_took_at_least_so_long(tmp_path: Path) -> None:
    row = timed_out(tmp_path)
    assert row.latency_p99_ms == 500.0
    assert row.is_at_least(99.0)
    assert latency(row, 99.0) == ">= 500"
    assert row.latency_p99_ms_low is not None
    assert row.latency_p99_ms_high is None  # nobody waited to see how long it took
    assert row.proved_ms[PERCENTS.index(99.0)] is None
    assert row.asked == row.latency_n > row.errors > 0.7 * row.asked
    assert "errors" in row.findings.split()


def test_requests_that_wait_on_each_other_prove_less_than_as_many_independent_ones(tmp_path: Path) -> None:
    """A trial's late requests follow each other: the count of requests alone would prove a bound."""
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(batch=1, concurrency=1),)))
    (alone,) = RunResults.of(folder).rows
    for trial in list(folder.trials()):
        samples = trial.samples
        order, response_ns = np.argsort(samples.intended_ns), np.sort(samples.response_ns)
        done_ns = samples.done_ns.copy()
        done_ns[order] = samples.intended_ns[order] + response_ns
        folder.write_trial(dataclasses.replace(trial, samples=dataclasses.replace(samples, done_ns=done_ns)))
    (clustered,) = RunResults.of(folder).rows
    assert alone.latency_p99_ms == pytest.approx(clustered.latency_p99_ms, rel=0.1)
    at = PERCENTS.index(99.0)
    assert alone.proved_ms[at] is not None
    assert alone.proof_s[at] is None
    assert clustered.proved_ms[at] is None
    assert clustered.latency_p99_ms_high is None
    assert (clustered.proof_s[at] or 0) > 10
    assert lacks_proof(clustered, 99.0).startswith("a proof needs about ")


def test_errors_that_say_nothing_of_time_are_counted_and_in_no_percentile(tmp_path: Path) -> None:
    row, trials = one_row(tmp_path, Study(cells=(cell(batch=1),), world=World(error_share=0.05)))
    failed = sum(len(t.samples.done_in(t.window).failed()) for t in trials)
    assert row.errors == failed > 0
    assert row.requests == row.latency_n == sum(len(t.samples.done_in(t.window).good()) for t in trials)
    assert "errors" in row.findings.split()


def test_an_slo_gives_goodput_and_a_verdict(tmp_path: Path) -> None:
    of = (cell(batch=1, concurrency=1), cell(batch=8, concurrency=16))
    quick, slow = RunResults.of(synthetic.write(tmp_path / "run", Study(cells=of, slo="p90=40ms"))).rows
    assert quick.slo_met is True
    assert slow.slo_met is False
    assert quick.goodput_img_per_s == pytest.approx(quick.throughput_img_per_s, rel=0.01)
    assert slow.goodput_img_per_s == 0


def test_goodput_is_at_most_the_throughput_however_far_apart_the_repeats(tmp_path: Path) -> None:
    study = Study(cells=(cell(batch=1),), slo="p90=60s", world=World(repeat_sigma=0.5))
    (row,) = RunResults.of(synthetic.write(tmp_path / "run", study)).rows
    assert row.goodput_img_per_s == pytest.approx(row.throughput_img_per_s)


def test_the_open_loop_counts_from_when_requests_were_due(tmp_path: Path) -> None:
    row, trials = one_row(tmp_path, Study(cells=(cell(batch=1, rate_per_s=60.0),)))
    pooled = np.sort(np.concatenate([summarize(trial).latencies_ns for trial in trials]))
    assert row.latency_p50_ms == nearest_rank(pooled, 50) / 1e6
    assert row.lateness_p99_ms is not None
    assert row.achieved_rate_per_s == pytest.approx(60, rel=0.15)


def test_gpu_power_gives_energy_an_image(tmp_path: Path) -> None:
    row, _ = one_row(tmp_path, Study(cells=(cell(batch=8),), world=World(gpu=True)))
    assert row.gpu_power_w is not None
    assert row.throughput_img_per_s is not None
    assert row.gpu_energy_j_per_img == pytest.approx(row.gpu_power_w / row.throughput_img_per_s, rel=0.02)


def test_the_csv_has_the_promised_columns_and_reads_back(everything: RunFolder, tmp_path: Path) -> None:
    table = RunResults.of(everything).rows
    cell_table.write_csv(table, tmp_path / "cells.csv")
    read = pd.read_csv(tmp_path / "cells.csv")
    assert set(ASKED_COLUMNS) <= set(read.columns)
    assert len(read) == len(table)
    assert [path.name for path in tmp_path.iterdir()] == ["cells.csv"]
    np.testing.assert_allclose(
        read["throughput_img_per_s"].astype(float),
        [np.nan if row.throughput_img_per_s is None else row.throughput_img_per_s for row in table],
    )


def test_server_parameters_are_columns_of_their_own(tmp_path: Path) -> None:
    of = tuple(cell(parameters=(("precision", p), ("batch", "x"))) for p in ("fp32", "bf16"))
    frame = cell_table.frame(
        RunResults.of(synthetic.write(tmp_path / "run", Study(cells=of, repeats=1))).rows
    )
    assert list(frame["precision"]) == ["fp32", "bf16"]
    assert list(frame["parameter_batch"]) == ["x", "x"]
    assert list(frame["batch"]) == [8, 8]
    assert [*COLUMNS] == list(frame.columns)[: len(COLUMNS)]


def reference_of(path: Path, slowdown: float) -> RunFolder:
    """Four cells; the first was measured twice in each of three rounds, the last `slowdown` times slower."""
    of = synthetic.grid(batches=(1, 8), instances=(1,))
    folder = synthetic.write(path, Study(cells=of))
    for repeat in range(6):
        slow = slowdown if repeat % 3 == 2 else 1.0
        folder.write_trial(synthetic.trial(of[0], repeat, World(slowdown=slow)))
    return folder


def test_the_reference_cell_shows_that_the_machine_drifted(tmp_path: Path) -> None:
    quiet, drifted = reference_of(tmp_path / "quiet", 1.0), reference_of(tmp_path / "drifted", 1.3)
    assert not any("machine-drift" in row.findings for row in RunResults.of(quiet).rows)
    first, *others = RunResults.of(drifted).rows
    assert "machine-drift" in first.findings
    assert first.verdict == "VALID"
    assert not any("machine-drift" in row.findings for row in others)


def test_a_rate_that_a_search_probed_often_is_no_reference(tmp_path: Path) -> None:
    """Its probes are short and of random arrivals: they differ without any drift."""
    folder = reference_of(tmp_path / "run", 1.3)
    folder.write_record(dataclasses.replace(folder.record, planned=()))
    assert not any("machine-drift" in row.findings for row in RunResults.of(folder).rows)
