"""The table for a terminal and for a pull request, and the choice they and the page make."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.analysis.cell_row import CellRow
from bench.analysis.labels import full_name, label, throughput, with_range
from bench.analysis.recommendation import Limit, holds, recommend, stated
from bench.analysis.results import RunResults
from bench.analysis.slo import Holds
from bench.cli.verbs.sweep import exit_code
from bench.core.cell import SharedMemory
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_OK
from bench.core.run_folder import RunFolder
from bench.core.slo import parse_slo
from bench.report import terminal
from bench.report.exports import cells_as_json
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell, grid


def shown(folder: RunFolder) -> str:
    out = io.StringIO()
    terminal.show(RunResults.of(folder).rows, folder.record, Console(file=out))
    return out.getvalue()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return synthetic.every_kind(tmp_path_factory.mktemp("everything") / "run")


def test_without_a_terminal_it_is_plain_and_whole(everything: RunFolder) -> None:
    text = shown(everything)
    assert "\x1b" not in text
    assert "…" not in text
    assert len([line for line in text.splitlines() if line.startswith(("http ", "grpc "))]) == len(
        everything.record.planned
    )


def test_the_answer_comes_first_and_holds_the_limit(everything: RunFolder) -> None:
    text = shown(everything)
    best = recommend(RunResults.of(everything).rows, Limit(99.0, 100.0, 0.001)).best
    assert best is not None
    assert text.index("For p99 <= 100 ms run") < text.index("protocol")
    assert full_name(best) in text


def test_a_missing_percentile_says_what_it_needs(everything: RunFolder) -> None:
    assert "n/a: too few samples (n); p99 needs 662." in shown(everything)


def test_findings_end_with_what_to_do(everything: RunFolder) -> None:
    text = shown(everything)
    assert "INVALID client-bound" in text
    assert "Use --processes auto" in text
    assert text.index("FAILED (3 cells)") < text.index("INVALID client-bound") < text.index("WARNING")


def test_one_repeat_is_called_indicative(tmp_path: Path) -> None:
    assert "figures are indicative" in shown(synthetic.write(tmp_path / "r", Study(cells=grid(), repeats=1)))


def test_words_of_data_are_no_markup_of_a_terminal_or_of_markdown(tmp_path: Path) -> None:
    of = cell(parameters=(("note", "[red]x|y<b>"),))
    folder = synthetic.write(tmp_path / "r", Study(cells=(of,), failed={}, world=World(error_share=0.1)))
    assert "[red]x|y<b>" in shown(folder)
    text = terminal.markdown(RunResults.of(folder).rows, folder.record)
    assert "<b>" not in text
    assert "\\[red\\]x\\|y&lt;b&gt;" in text


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    of = cell()
    folder = synthetic.write(tmp_path / "r", Study(cells=(of,), failed={of.key: "no memory"}))
    text = shown(folder)
    assert "No valid cell was measured." in text
    assert "FAILED (1 cell): no memory" in text


def row_of(tmp_path: Path, **world: float) -> CellRow:
    study = Study(cells=(cell(batch=1, concurrency=1),), world=World(**world))  # type: ignore[arg-type]
    return RunResults.of(synthetic.write(tmp_path / "r", study)).rows[0]


def test_a_limit_is_proved_likely_missed_or_unknown(tmp_path: Path) -> None:
    row = row_of(tmp_path)
    value, proved = row.latency_ms(99.0), row.proved_ms[3]
    assert value is not None
    assert proved is not None
    assert value < proved
    assert holds(row, Limit(99.0, proved)) is Holds.YES
    assert holds(row, Limit(99.0, (value + proved) / 2)) is Holds.LIKELY
    assert holds(row, Limit(99.0, value * 0.99)) is Holds.NO
    assert holds(row, Limit(99.9, 1e9)) is Holds.UNKNOWN


def test_every_term_of_an_slo_has_to_hold(tmp_path: Path) -> None:
    row = row_of(tmp_path)
    p50, p99 = row.latency_ms(50.0), row.proved_ms[3]
    assert p50 is not None
    assert p99 is not None
    for bound_ms, expected in ((p50 * 0.99, Holds.NO), (p50 * 2, Holds.YES)):
        limit = Limit.of(parse_slo(f"p50={bound_ms:.6f}ms,p99={p99 + 1:.6f}ms"))
        assert holds(row, limit) is expected


def test_what_is_recommended_holds_the_whole_slo(tmp_path: Path) -> None:
    """The larger batch serves more, and its median is over what was asked."""
    study = Study(cells=grid((1, 32), (1,), ("http",), (1,)), slo="p50=20ms,p99=10s")
    folder = synthetic.write(tmp_path / "r", study)
    rows = RunResults.of(folder).rows
    assert {row.batch: row.slo_met for row in rows} == {1: True, 32: False}
    assert terminal.summary(rows, folder.record)[1].startswith(
        "For p99 <= 10 s and p50 <= 20 ms run 1 instance, batch 1 "
    )


def test_settings_that_set_cells_apart_are_shown(tmp_path: Path) -> None:
    base = cell()
    servers = [dataclasses.replace(base.server, max_queue_delay_us=us) for us in (-1, 0, 1000)]
    of = tuple(dataclasses.replace(base, server=server) for server in servers)
    memory = dataclasses.replace(base.load, shared_memory=SharedMemory.SYSTEM)
    folder = synthetic.write(tmp_path / "r", Study(cells=(*of, dataclasses.replace(of[0], load=memory))))
    rows = RunResults.of(folder).rows
    table = terminal.markdown(rows, folder.record).splitlines()
    (head,) = (line for line in table if line.startswith("| protocol"))
    assert "| queue | memory |" in head
    assert {tuple(line.split(" | ")[4:6]) for line in table if line.startswith("| http")} == {
        ("off", "none"), ("0 ms", "none"), ("1 ms", "none"), ("off", "system"),
    }  # fmt: skip
    decision = recommend(rows, None)
    assert decision.best is not None
    assert decision.next_best is not None
    names = {full_name(row, rows) for row in rows}
    assert len(names) == 4
    assert len({label(row) for row in rows}) == 4


def test_too_many_errors_hold_no_limit(tmp_path: Path) -> None:
    row = row_of(tmp_path, error_share=0.05)
    assert holds(row, Limit(99.0, 1e9, error_fraction=0.01)) is Holds.NO
    assert holds(row, Limit(99.0, 1e9, error_fraction=0.5)) is Holds.YES


@pytest.mark.parametrize(
    ("slo", "max_errors", "is_recommended", "code"),
    [
        ("", 0.01, False, EXIT_INCONCLUSIVE),
        ("", 0.5, True, EXIT_OK),
        ("p99=10s,errors=10%", 0.01, True, EXIT_OK),  # the SLO allows them
        ("p99=1ms", 0.01, False, EXIT_MISSED),
    ],
)
def test_a_cell_that_fails_its_requests_is_not_recommended(
    tmp_path: Path, slo: str, max_errors: float, is_recommended: bool, code: int
) -> None:
    study = Study(cells=(cell(batch=1),), world=World(error_share=0.05), slo=slo,
                  spec={"max_error_fraction": max_errors})  # fmt: skip
    folder = synthetic.write(tmp_path / "r", study)
    rows = RunResults.of(folder).rows
    assert bool(recommend(rows, None).valid) == is_recommended
    said = "\n".join(terminal.summary(rows, folder.record))
    assert ("too many requests failed" in said) == (not is_recommended)
    assert exit_code(rows, slo) == code
    assert rows[0].failures == {"server error": rows[0].errors}
    assert ("server error" in "\n".join(terminal.findings(rows))) == bool(rows[0].errors)


def test_an_invalid_cell_is_never_recommended(everything: RunFolder) -> None:
    rows = RunResults.of(everything).rows
    decision = recommend(rows, None)
    assert all(row.verdict == "VALID" for row in decision.valid)
    assert decision.best is max(decision.valid, key=lambda row: row.throughput_img_per_s or 0)


def equals(path: Path) -> RunFolder:
    """Three servers that nothing sets apart but the luck of their repeats."""
    base = cell()
    servers = [dataclasses.replace(base.server, max_queue_delay_us=us) for us in (-1, 0, 1000)]
    of = tuple(dataclasses.replace(base, server=server) for server in servers)
    return synthetic.write(path / "r", Study(cells=of))


def test_the_best_of_equals_is_said_to_be_corrected_and_json_has_the_same(tmp_path: Path) -> None:
    folder = equals(tmp_path)
    rows = RunResults.of(folder).rows
    answer, basis, *_ = terminal.summary(rows, folder.record)[1:]
    best = recommend(rows, None).best
    assert best is not None
    said = stated(best)
    assert f": {with_range(said.value, said.low, said.high)} img/s." in answer
    assert basis == f"Corrected for having been the best of 3; measured: {throughput(best)} img/s."
    recommended = {row["cell"]: row["recommended"] for row in cells_as_json(rows, folder.record)}
    assert {cell for cell, told in recommended.items() if told} == {best.cell}
    assert recommended[best.cell]["value"] == said.value
    assert recommended[best.cell]["basis"] == "corrected"
    assert recommended[best.cell]["best_of"] == 3


def test_the_best_with_fresh_trials_is_said_to_be_confirmed_by_them_alone(tmp_path: Path) -> None:
    folder = equals(tmp_path)
    before = RunResults.of(folder).rows
    best = recommend(before, None).best
    of = next(one for one in folder.record.planned if best and one.key == best.cell)
    for repeat in range(6, 9):
        folder.confirmation.write_trial(synthetic.trial(of, repeat, World(slowdown=1.25)))
    rows = RunResults.of(folder).rows
    after = next(row for row in rows if row.cell == of.key)
    assert best is not None
    assert after.throughputs == best.throughputs  # its own figures are of the trials it was picked by
    assert stated(after).value == pytest.approx(0.8 * (best.throughput_img_per_s or 0), rel=0.05)
    basis = terminal.summary(rows, folder.record)[2]
    assert basis == (
        "Confirmed: measured in 3 fresh trials after it was picked; "
        f"it was picked with {throughput(best)} img/s."
    )


def test_a_best_cell_whose_fresh_trials_miss_the_slo_says_so(tmp_path: Path) -> None:
    study = Study(cells=grid((1, 8), (1,), ("http",), (4,)), slo="p50=200ms")
    folder = synthetic.write(tmp_path / "r", study)
    best = recommend(RunResults.of(folder).rows, Limit(50.0, 200.0)).best
    of = next(one for one in folder.record.planned if best and one.key == best.cell)
    for repeat in range(6, 9):
        folder.confirmation.write_trial(synthetic.trial(of, repeat, World(slowdown=9.0)))
    told = terminal.summary(RunResults.of(folder).rows, folder.record)
    assert any(line.startswith("Its fresh trials miss the SLO") for line in told)
