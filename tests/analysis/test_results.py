"""A run is read once, whoever shows or judges it, and what is kept of it is small."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.analysis import aggregate, cell_table, comparison
from bench.analysis.cell_row import PERCENTS
from bench.analysis.results import RunResults
from bench.analysis.stats import nearest_rank
from bench.analysis.summary import summarize
from bench.core.findings import verdict
from bench.core.samples import Samples
from bench.report import comparison as report_of_comparison
from bench.report import page, publish, terminal
from tests.support import synthetic
from tests.support.synthetic import Study, cell, grid


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each npz was read, and how often a trial was summarised and judged."""
    calls: Counter[str] = Counter()

    def counting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return real(*arguments)

        return call

    load = Samples.load

    def loaded(path: Path) -> Samples:
        calls[str(path)] += 1
        return load(path)

    monkeypatch.setattr(Samples, "load", loaded)
    for name in ("summarize", "findings_of"):
        monkeypatch.setattr(aggregate, name, counting(name, getattr(aggregate, name)))
    return calls


def test_each_trial_is_read_summarised_and_judged_once_for_all_views(
    tmp_path: Path, counted: Counter[str]
) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(), cell(batch=1)), slo="p90=100ms"))
    results = RunResults.of(folder)
    publish.write_files(results)
    terminal.show(results.rows, results.record, Console(file=io.StringIO()))
    terminal.markdown(results.rows, results.record)
    report_of_comparison.render(comparison.compare(results, results), "html")
    read = {name: times for name, times in counted.items() if name.endswith(".npz")}
    assert len(read) == 6
    assert set(read.values()) == {1}
    assert (counted["summarize"], counted["findings_of"]) == (6, 6)


def test_publishing_a_run_reads_it_once(tmp_path: Path, counted: Counter[str]) -> None:
    publish.publish(synthetic.write(tmp_path / "run", Study(cells=(cell(), cell(batch=1)))), as_json=True)
    assert sum(times for name, times in counted.items() if name.endswith(".npz")) == 6
    assert (counted["summarize"], counted["findings_of"]) == (6, 6)


def test_the_figures_of_each_trial_are_those_of_its_samples(tmp_path: Path) -> None:
    folder = synthetic.every_kind(tmp_path / "run")
    results = RunResults.of(folder)
    known = {cell.row.cell: cell for cell in results.cells}
    for trial in folder.trials():
        summary = summarize(trial)
        one = next(t for t in known[trial.cell.key].trials if t.repeat == trial.plan.repeat)
        assert one.requests == summary.requests
        assert one.throughput_img_per_s == summary.throughput_img_per_s
        p50 = one.latencies_ms[PERCENTS.index(50.0)]
        assert p50 is None or p50 == nearest_rank(summary.latencies_ns, 50) / 1e6
        assert one.verdict == verdict(one.findings)
    for result in results.cells:
        assert len(result.trials) == result.row.repeats
        assert (result.detail is None) == (not result.trials)
        codes = {finding.code for trial in result.trials for finding in trial.findings}
        assert codes <= {finding.code for finding in result.row.remarks}


def test_the_page_and_the_file_show_the_same_rows(tmp_path: Path) -> None:
    results = RunResults.of(synthetic.write(tmp_path / "run", Study(cells=grid(protocols=("http",)))))
    report_path = publish.write_files(results)
    text = (tmp_path / "run" / "cells.csv").read_text()
    assert text == cell_table.frame(results.rows).to_csv(index=False)
    assert report_path.read_text(encoding="utf-8") == page.render([results])


def test_nothing_as_long_as_the_samples_is_kept(tmp_path: Path) -> None:
    world = synthetic.World(requests=50_000)
    results = RunResults.of(synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1, world=world)))
    assert longest(results.cells) < 1_000


def longest(value: Any) -> int:
    """The longest sequence anywhere in a value."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return max([len(value), *map(longest, value.values())])
    if isinstance(value, list | tuple):
        return max([len(value), *map(longest, value)])
    slots = getattr(type(value), "__slots__", ())
    return max((longest(getattr(value, name)) for name in slots if isinstance(name, str)), default=0)
