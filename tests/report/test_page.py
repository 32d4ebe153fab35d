"""The page as a file: its numbers are those of the samples, it is closed to the network, and small."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs_version

from bench.analysis import cell_table, results
from bench.analysis.cell_row import PERCENTS
from bench.analysis.results import RunResults
from bench.analysis.stats import nearest_rank
from bench.analysis.summary import measured_requests, throughput_req_per_s
from bench.cli.verbs import report
from bench.core.errors import WrongUse
from bench.core.run_folder import RunFolder
from bench.report import index, page, templates
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell, grid

ROOT = Path(__file__).parents[2]

EVIL = "<script>alert(1)</script><!-- \u2028 \"'&"


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def rows_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return synthetic.every_kind(tmp_path_factory.mktemp("everything") / "run")


@pytest.fixture(scope="module")
def html(everything: RunFolder) -> str:
    return page.write(RunResults.of(everything)).read_text(encoding="utf-8")


def test_figures_in_the_page_equal_those_recomputed_from_the_samples(
    everything: RunFolder, html: str
) -> None:
    rows = {row["cell"]: row for row in rows_of(data_of(html))}
    throughput = data_of(html)["figures"]["throughput"]
    at = PERCENTS.index(99.0)
    drawn = {
        i: (x, y)
        for trace in throughput["variants"][at]["data"]
        for i, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True)
    }
    order = [row["cell"] for row in rows.values()]
    for trials in results.by_cell(everything.trials()):
        key, batch = trials[0].cell.key, trials[0].cell.load.batch
        pooled = np.sort(np.concatenate([measured_requests(t).good().response_ns for t in trials]))
        rates = [throughput_req_per_s(trial) * batch for trial in trials]
        assert rows[key]["throughput_img_per_s"] == pytest.approx(np.mean(rates))
        if len(pooled) >= 662:
            p99 = nearest_rank(pooled, 99) / 1e6
            assert rows[key]["latency_p99_ms"] == rows[key]["latencies_ms"][at] == p99
            assert drawn[order.index(key)] == (p99, rows[key]["throughput_img_per_s"])
        else:
            assert rows[key]["latency_p99_ms"] is None
            assert order.index(key) not in drawn


def test_the_csv_in_the_page_is_the_file_beside_it(everything: RunFolder, html: str, tmp_path: Path) -> None:
    cell_table.write_csv(RunResults.of(everything).rows, tmp_path / "cells.csv")
    assert data_of(html)["csv"] == (tmp_path / "cells.csv").read_text()
    assert len(pd.read_csv(io.StringIO(data_of(html)["csv"]))) == len(everything.record.planned)


def test_the_bundle_is_the_one_plotly_speaks_and_as_written_down() -> None:
    text = templates.asset(page.PLOTLY)
    assert f"v{get_plotlyjs_version()}" in text[:200]
    noted = (Path(page.__file__).parents[2] / "docs" / "third-party.md").read_text()
    assert hashlib.sha256(text.encode()).hexdigest() in noted


def test_it_asks_nothing_of_the_network(html: str) -> None:
    head = html[: html.index('<script type="application/json"')]
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", head)
    assert "@import" not in head
    assert "url(" not in head
    assert html.count("plotly.js (cartesian - minified)") == 1


def test_words_of_data_never_become_markup(tmp_path: Path) -> None:
    of = cell(model=EVIL, parameters=((EVIL, EVIL),))
    study = Study(
        cells=(of, cell(model=EVIL, batch=1)), failed={of.key: EVIL}, name=EVIL, machine={EVIL: EVIL},
        weights=EVIL, world=World(error_share=0.1),
    )  # fmt: skip
    html = page.render([RunResults.of(synthetic.write(tmp_path / "run", study))])
    assert "<script>alert" not in html
    assert html.count("<!--") == templates.asset(page.PLOTLY).count("<!--")
    start = html.index('id="data">')
    assert not re.search("[<>&\u2028\u2029]", html[start + 10 : html.index("</script>", start)])
    assert {row["model"] for row in rows_of(data_of(html))} == {EVIL}


@pytest.mark.parametrize("text", ["</script>", "<!--", "\u2028", "\u2029", "&lt;", 'a"b\\c'])
def test_embedded_json_reads_back_equal(text: str) -> None:
    embedded = page.embed({text: [text, 1.5, None]})
    assert json.loads(embedded) == {text: [text, 1.5, None]}
    assert not set(embedded) & set("<>&\u2028\u2029")


def test_numbers_that_are_none_cannot_slip_in_as_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.embed({"x": float("nan")})


def test_each_cell_has_the_command_that_repeats_it(html: str) -> None:
    data = data_of(html)
    for row, command in zip(rows_of(data), data["commands"], strict=True):
        assert f"--batch {row['batch']} " in command
        assert f"--instances {row['instances']}" in command
        assert ("--rate" in command) == (row["rate_per_s"] is not None)
        assert ("--engine perf_analyzer" in command) == (row["engine"] == "perf_analyzer")


def test_the_slo_of_the_run_is_where_the_slider_starts(html: str, tmp_path: Path) -> None:
    limit = {"percent": 99.0, "bound_ms": 100.0, "error_fraction": 0.001, "others": []}
    assert data_of(html)["limit"] == limit
    plain = synthetic.write(tmp_path / "run", Study(cells=(cell(batch=32),), repeats=1))
    assert data_of(page.render([RunResults.of(plain)]))["limit"] is None
    assert data_of(page.render([RunResults.of(plain)]))["percent"] == 50.0


def test_several_runs_lie_over_each_other_the_newest_judged(tmp_path: Path) -> None:
    of = grid(protocols=("http",))
    old = synthetic.write(tmp_path / "old", Study(cells=of, repeats=1, name="old", created_at="2026-01-01"))
    new = synthetic.write(tmp_path / "new", Study(cells=of, repeats=1, name="new", created_at="2026-02-01"))
    html = page.render([RunResults.of(new), RunResults.of(old)])
    data = data_of(html)
    assert [run["name"] for run in data["runs"]] == ["old", "new"]
    assert [row["run"] for row in rows_of(data)] == [0] * len(of) + [1] * len(of)
    assert "<h1>new</h1>" in html
    assert len(data["details"]) == 2 * len(of)


def test_a_run_without_any_trial_still_has_a_report(tmp_path: Path) -> None:
    of = cell()
    data = data_of(
        page.render(
            [
                RunResults.of(
                    synthetic.write(tmp_path / "run", Study(cells=(of,), failed={of.key: "no memory"}))
                )
            ]
        )
    )
    assert data["figures"] == {}
    assert rows_of(data)[0]["reason"] == "no memory"


def test_sixty_cells_of_five_repeats_render_in_little_space(tmp_path: Path) -> None:
    """Goals: 500 MB, 2.5 MB. How long it takes is `python -m benchmarks report`."""
    of = grid(batches=(1, 4, 8, 16, 32), levels=(1, 4, 16))
    assert len(of) == 60
    folder = synthetic.write(
        tmp_path / "run", Study(cells=of, repeats=5, world=World(requests=5_000, gpu=True))
    )
    command = [sys.executable, "-m", "benchmarks.report_cost", str(folder.path)]
    cost = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=120).stdout)
    assert cost["page_bytes"] < 2_500_000
    assert cost["peak_bytes"] < 500e6


def test_many_samples_take_no_more_room_than_a_thousand(tmp_path: Path) -> None:
    few = Study(cells=(cell(),), repeats=1, world=World(requests=1_000))
    many = Study(cells=(cell(),), repeats=1, world=World(requests=300_000))
    sizes = [
        len(page.render([RunResults.of(synthetic.write(tmp_path / name, s))]))
        for name, s in (("few", few), ("many", many))
    ]
    assert abs(sizes[1] - sizes[0]) < 10_000


def test_a_search_shows_its_answer_and_every_probe(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1, slo="p99=100ms"))
    assert 'id="search"' not in page.render([RunResults.of(folder)])
    probes = [
        {"rate_per_s": 40.0, "outcome": "holds", "why": "p99 is 80 ms"},
        {"rate_per_s": 60, "outcome": EVIL},
    ]
    found = [
        {
            "what": EVIL,
            "rate_per_s": 41.5,
            "edge_per_s": 42,
            "edge_per_s_low": 40,
            "edge_per_s_high": 43,
            "probes": probes,
            "doubts": ["client-bound", EVIL],
        },
        {"what": "m", "rate_per_s": None, "probes": [], "doubts": [], "failed": f"no memory {EVIL}"},
    ]
    (folder.path / "search.json").write_text(json.dumps(found))
    html = page.render([RunResults.of(folder)])
    assert "41.5 req/s" in html
    assert "INVALID: client-bound" in html
    assert "FAILED: no memory" in html
    assert "40–43)" in html
    assert "p99 is 80 ms" in html
    assert "<script>alert" not in html


def test_the_index_lists_runs_the_newest_first_with_a_trend(tmp_path: Path) -> None:
    for name, created, slowdown in (
        ("a", "2026-01-01", 1.0),
        ("b", "2026-01-02", 1.2),
        (EVIL[:12], "2026-01-03", 1.1),
    ):
        study = Study(
            cells=(cell(),), repeats=1, name=name, created_at=created, world=World(slowdown=slowdown)
        )
        folder = synthetic.write(tmp_path / f"run-{created}", study)
        cell_table.write_csv(RunResults.of(folder).rows, folder.path / "cells.csv")
        (folder.path / "report.html").write_text("")
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    html = index.write(tmp_path).read_text()
    assert html.index('href="run-2026-01-02/report.html"') < html.index('href="run-2026-01-01/report.html"')
    assert html.count("<circle") == 3
    assert "<script" not in html


@pytest.mark.parametrize(
    "content", ["", "cell,verdict\n1,VALID\n", "cell,verdict,throughput_img_per_s\na,VALID,x\n"]
)
def test_a_table_of_another_make_is_made_anew_for_the_index(tmp_path: Path, content: str) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    (folder.path / "cells.csv").write_text(content)
    (line,) = index.lines(tmp_path)
    assert line.counts["VALID"] == 1
    assert line.best_img_per_s


def test_a_run_with_broken_samples_is_in_the_index_as_failed(tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        folder = synthetic.write(tmp_path / name, Study(cells=(cell(),), repeats=1, name=name))
    for samples in folder.path.rglob("*.npz"):
        samples.unlink()
    counts = {line.record.name: line.counts for line in index.lines(tmp_path)}
    assert counts["whole"]["VALID"] == counts["broken"]["FAILED"] == 1


def test_a_torn_trial_blocks_no_report_and_is_named_on_the_page(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=3))
    torn = next((folder.path / "trials").glob("*/1.npz"))
    torn.write_bytes(torn.read_bytes()[:-40])
    report.report_of([folder.path], None, "html")
    html = (folder.path / "report.html").read_text()
    assert "1 trial unreadable, and left out." in html
    results = RunResults.of(folder)
    assert [trial.repeat for trial in results.cells[0].trials] == [0, 2]
    assert "unreadable-trial" in results.rows[0].findings
    assert str(torn) in next(one.seen for one in results.rows[0].remarks if one.code == "unreadable-trial")


def test_an_unreadable_run_does_not_hide_the_others_from_their_index(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"schema_version": 0}')
    assert report.report_of([tmp_path], None, "html") == 0
    assert "example" in (tmp_path / "index.html").read_text()


def test_the_index_groups_runs_that_took_turns_and_joins_only_runs_of_the_same_cells(tmp_path: Path) -> None:
    one, other = Study(cells=(cell(),), repeats=1), Study(cells=grid(), repeats=1)
    runs = {"a": one, "b": one, "c": other, "turns/old": one, "turns/new": other}
    for place, study in runs.items():
        synthetic.write(tmp_path / place, dataclasses.replace(study, name=place.split("/")[-1]))
    for name in ("report", "compare-new"):
        (tmp_path / "turns" / f"{name}.html").write_text("")
    html = index.write(tmp_path).read_text()
    assert html.count("<circle") == 5
    assert sorted(len(line.split()) for line in re.findall('<polyline points="([^"]*)"', html)) == [2, 3]
    assert "turns</b> · 2 runs, interleaved" in html
    assert 'href="turns/report.html"' in html
    assert 'href="turns/compare-new.html">compare new' in html
    assert html.count('class="nested"') == 2


def test_several_runs_leave_each_others_pages_alone_and_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        page.write(
            RunResults.of(synthetic.write(tmp_path / name, Study(cells=(cell(),), repeats=1, name=name)))
        )
    runs, own = [tmp_path / "a", tmp_path / "b"], (tmp_path / "a" / "report.html").read_bytes()
    assert report.report_of(runs, None, "html") == 0
    assert (tmp_path / "a" / "report.html").read_bytes() == own
    assert "laid over <b>a</b>" in (tmp_path / "overlay.html").read_text()
    capsys.readouterr()
    report.report_of(runs, None, "md")
    assert "### b" in capsys.readouterr().out
    report.report_of(runs, tmp_path / "rows.json", "json")
    assert [row["run"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["a", "b"]
    with pytest.raises(WrongUse, match="name those you mean"):
        report.report_of([tmp_path], None, "md")
