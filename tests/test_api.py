"""The public Python API: what docs/python.md shows runs as written; each part says what the folder holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.analysis.cell_row import COLUMNS
from bench.core.errors import RunFolderError, WrongUse
from bench.report.charts import CHARTS
from tests.support import synthetic
from tests.support.synthetic import Study, grid

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bench.Run:
    study = Study(cells=tuple(grid(batches=(1, 8), levels=(1, 4))), repeats=3)
    return bench.load(synthetic.write(tmp_path_factory.mktemp("api") / "run", study).path)


@pytest.mark.e2e
def test_the_examples_of_the_docs_run_in_their_order(tmp_path: Path) -> None:
    """In a folder that has the example run and nothing else, as a notebook would run them."""
    shutil.copytree(ROOT / "reports" / "example", tmp_path / "reports" / "example")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(EXAMPLES)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(EXAMPLES) > 5
    assert "throughput_req_per_s" in done.stdout
    for name in ("before", "after"):
        assert {"cells.csv", "report.html", "run.json"} <= {
            path.name for path in (tmp_path / "reports" / name).iterdir()
        }


def test_cells_are_the_columns_of_cells_csv(run: bench.Run) -> None:
    assert list(run.cells.columns)[: len(COLUMNS)] == list(COLUMNS)
    assert len(run.cells) == run.cells["cell"].nunique() == 16
    assert run.is_valid == (set(run.cells["verdict"]) == {"VALID"})


def test_trials_make_the_throughput_of_their_cell(run: bench.Run) -> None:
    of_trials = run.trials.groupby("cell")["throughput_img_per_s"].agg(["min", "max", "count"])
    for cell in run.cells.itertuples():
        low, high, count = of_trials.loc[cell.cell]
        assert low * 0.999 <= cell.throughput_img_per_s <= high * 1.001
        assert count == cell.repeats == 3


def test_samples_are_every_request_and_the_window_has_those_that_count(run: bench.Run) -> None:
    trial = run.trials.iloc[0]
    samples = run.samples(trial["cell"], trial["repeat"])
    assert set(samples.columns) == {"intended_ns", "sent_ns", "done_ns", "outcome", "in_window"}
    assert samples["done_ns"].dtype == np.int64
    assert (samples["in_window"] & (samples["outcome"] == "OK")).sum() == trial["requests"]
    with pytest.raises(KeyError, match=r"run\.trials lists"):
        run.samples("no such cell", 0)


def test_findings_are_those_of_the_cells(run: bench.Run) -> None:
    named = {code for codes in run.cells["findings"] for code in codes.split()}
    listed = run.findings[run.findings["severity"] != "NOTE"]
    assert set(listed["code"]) == named
    assert (run.findings[["seen", "cause", "next_step"]].map(len) > 0).all(axis=None)


@pytest.mark.parametrize("name", ["throughput", "repeats", "throughput-by-batch"])
def test_a_figure_is_plotlys_own(run: bench.Run, name: str) -> None:
    figure = run.figure(name)
    assert type(figure).__module__.startswith("plotly.")
    assert json.loads(figure.to_json())["data"]


def test_a_figure_that_is_none_names_those_there_are(run: bench.Run) -> None:
    with pytest.raises(ValueError, match="throughput") as caught:
        run.figure("no such chart")
    assert all(name in str(caught.value) for name in CHARTS)


def test_a_run_compared_with_itself_is_no_regression(run: bench.Run) -> None:
    compared = run.compare(run.path)
    assert compared.verdict != "regression"
    assert len(compared.changes) == 3 * len(run.cells), "throughput, p50 and errors"
    ratios = compared.changes["ratio"].dropna()
    assert len(ratios) == 2 * len(run.cells), "errors are compared by difference"
    assert ratios.to_numpy() == pytest.approx(1.0)
    assert "| cell |" in compared.markdown()


def test_what_is_no_run_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        bench.load(tmp_path)


def test_an_option_that_there_is_not_is_named_beside_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"no option batches: give some of .*\bbatch\b"):
        bench.sweep(batches=[1])


def test_wrong_values_are_told_together_and_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(WrongUse) as caught:
        bench.sweep(batch=0, rate="fast", out=tmp_path / "run")
    assert len(caught.value.mistakes) == 2
    assert not (tmp_path / "run").exists()


def test_the_api_is_what_the_package_names() -> None:
    assert {"load", "sweep", "Run", "Comparison"} <= set(bench.__all__) <= set(dir(bench))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bench.nothing
