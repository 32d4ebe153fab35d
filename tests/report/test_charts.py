"""Figures: every point is a row's own number, and one meaning for colour, marker and dash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

from bench.analysis.cell_row import CellRow
from bench.analysis.labels import label
from bench.analysis.results import RunResults
from bench.report import charts
from bench.report.charts import per_cell
from bench.report.charts.style import Entry, Keys, dash, line, plotly_figure, with_throughput
from tests.support import synthetic
from tests.support.synthetic import Study, cell, grid


def entries_of(rows: list[CellRow], run: int = 0) -> list[Entry]:
    return [Entry(index, run, row) for index, row in enumerate(rows)]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return entries_of(RunResults.of(synthetic.every_kind(tmp_path_factory.mktemp("all") / "run")).rows)


def all_charts(entries: list[Entry]) -> dict[str, Any]:
    return charts.for_page(entries, Keys.of(entries))


def notes_of(chart: dict[str, Any]) -> list[str]:
    return [note["text"] for note in chart["variants"][0]["layout"]["meta"]["notes"]]


def points(
    entries: list[Entry], name: str, variant: int = 0
) -> Iterator[tuple[dict[str, Any], int, float, float]]:
    """(trace, row number, x, y) of every point with a meaning."""
    for trace in all_charts(entries)[name]["variants"][variant]["data"]:
        if trace.get("hoverinfo") != "skip":
            yield from zip(
                [trace] * len(trace["x"]), trace["customdata"], trace["x"], trace["y"], strict=True
            )


def test_every_figure_is_there_when_there_is_something_to_draw(entries: list[Entry]) -> None:
    assert list(all_charts(entries)) == list(charts.CHARTS)


def test_the_first_chart_shows_each_rows_own_throughput_and_percentile(entries: list[Entry]) -> None:
    for variant, percent in ((0, 50.0), (3, 99.0)):
        seen = {}
        for _, index, x, y in points(entries, "throughput", variant):
            row = entries[index].row
            assert (x, y) == (row.latency_ms(percent), row.throughput_img_per_s)
            seen[index] = row
        with_both = [e.index for e in entries if e.row.throughput_img_per_s and e.row.latency_ms(percent)]
        assert sorted(seen) == with_both


def test_colour_is_instances_marker_is_batch_dash_is_protocol_hollow_is_invalid(entries: list[Entry]) -> None:
    keys = Keys.of(entries)
    for trace, index, _, _ in points(entries, "throughput", 3):
        row = entries[index].row
        at = trace["customdata"].index(index)
        assert trace["line"]["color"] == keys.colour(row.instances)
        assert trace["line"]["dash"] == dash(row.protocol)
        assert trace["marker"]["symbol"][at].startswith(keys.shape(row.batch))
        assert trace["marker"]["symbol"][at].endswith("-open") == (row.verdict == "INVALID")
        assert (trace["opacity"] < 1) == (row.engine == "perf_analyzer")


def test_the_best_load_stands_for_a_configuration_and_valid_ones_come_first(entries: list[Entry]) -> None:
    for _, index, x, y in points(entries, "throughput-by-batch"):
        row = entries[index].row
        assert (x, y) == (row.batch, row.throughput_img_per_s)
        same = [
            e.row for e in entries
            if (e.row.batch, e.row.instances, e.row.protocol, e.row.engine, e.row.is_open_loop)
            == (row.batch, row.instances, row.protocol, row.engine, row.is_open_loop)
            and e.row.verdict == "VALID"
        ]  # fmt: skip
        assert row.throughput_img_per_s == max(other.throughput_img_per_s or 0 for other in same)


def test_the_parts_of_a_request_add_up_to_its_mean(entries: list[Entry]) -> None:
    for entry in entries:
        if entry.row.latency_mean_ms:
            parts = per_cell.time_parts(entry.row)
            assert min(parts.values()) >= 0
            if parts["client_and_network_ms"] > 0:
                assert sum(parts.values()) == pytest.approx(entry.row.latency_mean_ms)


def test_percent_bars_add_up_to_a_hundred(entries: list[Entry]) -> None:
    total: dict[int, float] = {}
    for _, index, x, _ in points(entries, "time-parts", 0):
        total[index] = total.get(index, 0) + x
    assert total
    assert all(value == pytest.approx(100) for value in total.values())


def test_repeats_are_dots_around_their_mean(entries: list[Entry]) -> None:
    by_row: dict[int, list[float]] = {}
    for _, index, x, _ in points(entries, "repeats"):
        by_row.setdefault(index, []).append(x)
    for index, offsets in by_row.items():
        row = entries[index].row
        expected = [100 * (v / (row.throughput_img_per_s or 1) - 1) for v in row.throughputs]
        assert offsets == pytest.approx(expected)


def test_whiskers_reach_the_bounds_of_the_interval(entries: list[Entry]) -> None:
    for trace, index, _, y in points(entries, "throughput-by-batch"):
        row, at = entries[index].row, trace["customdata"].index(index)
        assert y + trace["error_y"]["array"][at] == pytest.approx(row.throughput_img_per_s_high)
        assert y - trace["error_y"]["arrayminus"][at] == pytest.approx(row.throughput_img_per_s_low)


def test_execution_time_finds_the_servers_own_law(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The synthetic server takes 6 + 2.5 b ms, of which nine tenths are compute infer."""
    study = Study(cells=grid(instances=(1,), protocols=("http",)), world=synthetic.World(repeat_sigma=0.0))
    found = entries_of(RunResults.of(synthetic.write(tmp_path_factory.mktemp("law") / "run", study)).rows)
    notes = notes_of(all_charts(found)["execution-time"])
    assert notes == ["1 inst: s(b) = 5.4 + 2.25 b ms, within 0.0%; at most 444 img/s per instance"]


def test_one_cell_alone_can_be_drawn(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = entries_of(
        RunResults.of(
            synthetic.write(tmp_path_factory.mktemp("one") / "run", Study(cells=(cell(),), repeats=1))
        ).rows
    )
    assert "throughput" in all_charts(found)


def test_nothing_measured_draws_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    of = cell()
    study = Study(cells=(of,), failed={of.key: "no"})
    assert (
        all_charts(
            entries_of(RunResults.of(synthetic.write(tmp_path_factory.mktemp("none") / "run", study)).rows)
        )
        == {}
    )


def test_an_older_run_is_faint(entries: list[Entry]) -> None:
    both = [*entries, *(Entry(len(entries) + e.index, 1, e.row) for e in entries)]
    for trace, index, _, _ in points(both, "throughput", 3):
        row, run = both[index].row, both[index].run
        assert (trace["opacity"] == 1) == (run == 1 and row.engine == "locust")


def test_where_ceilings_are_known_the_batches_chart_has_them_and_says_how_far_it_is(
    entries: list[Entry],
) -> None:
    plain = all_charts(entries)["throughput-by-batch"]
    assert len(plain["variants"]) == 1
    known = [
        replace(entry, row=replace(
            entry.row, precision="bf16", compile="none", output="pooler_output", bare_img_per_s=1000.0,
            roofline_img_per_s=4000.0, efficiency=0.5 if entry.row.batch == 1 else 0.75,
        ))
        for entry in entries
    ]  # fmt: skip
    figure = all_charts(known)["throughput-by-batch"]
    assert [variant["label"] for variant in figure["variants"]] == ["served", "with its limits"]
    assert figure["variants"][0]["data"] == plain["variants"][0]["data"]
    bare, roof = figure["variants"][1]["data"][-2:]
    assert (bare["line"]["dash"], set(bare["y"])) == ("dash", {1000.0})
    assert (roof["line"]["dash"], set(roof["y"])) == ("dot", {4000.0})
    assert bare["x"] == sorted({entry.row.batch for entry in entries})
    assert notes_of(figure) == [
        "bf16, pooler_output: served over bare: 50 to 75 %; bare (dashed) over the roofline (dotted): 25 %"
    ]


def test_a_device_without_a_peak_has_the_bare_line_alone(entries: list[Entry]) -> None:
    known = [
        replace(entry, row=replace(entry.row, precision="fp32", bare_img_per_s=9.0)) for entry in entries
    ]
    figure = all_charts(known)["throughput-by-batch"]
    assert len(figure["variants"][1]["data"]) == len(figure["variants"][0]["data"]) + 1
    assert "peak is not known" in notes_of(figure)[0]


def rows_of(entries: list[Entry]) -> list[CellRow]:
    return [entry.row for entry in entries]


@pytest.mark.parametrize("name", charts.CHARTS)
def test_every_chart_comes_alone_as_a_plotly_figure_with_names(entries: list[Entry], name: str) -> None:
    figure = charts.figure(name, rows_of(entries))
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text == charts.CHARTS[name].title
    shown = [trace for trace in figure.data if trace.customdata is not None]
    assert shown
    for trace in shown:
        assert list(trace.hovertext) == [label(entries[index].row) for index in trace.customdata]
        assert trace.name


def test_a_chart_of_cells_alone_has_their_names_on_its_axis(entries: list[Entry]) -> None:
    figure = charts.figure("time-parts", rows_of(entries))
    first = figure.data[0]
    of_line = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    for y, index in zip(first.y, first.customdata, strict=True):
        assert of_line[y] == label(entries[index].row)


def test_a_variant_is_chosen_by_its_label(entries: list[Entry]) -> None:
    figure = charts.figure("throughput", rows_of(entries), "p99")
    for trace in figure.data:
        assert list(trace.x) == [entries[index].row.latency_ms(99.0) for index in trace.customdata]


@pytest.mark.parametrize(
    ("name", "variant", "says"),
    [
        ("pie", None, "no chart 'pie': choose one of throughput, "),
        ("throughput", "p42", "no variant 'p42': choose 'p50', 'p90'"),
        ("asked-achieved", None, "nothing to draw in 'asked-achieved': choose 'throughput', "),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(
    tmp_path_factory: pytest.TempPathFactory, name: str, variant: str | None, says: str
) -> None:
    folder = synthetic.write(tmp_path_factory.mktemp("closed") / "run", Study(cells=(cell(),), repeats=1))
    with pytest.raises(ValueError, match=says):
        charts.figure(name, RunResults.of(folder).rows, variant)


def test_a_chart_of_ones_own_is_a_function_and_a_line_in_the_table(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def errors(entries: Sequence[Entry], keys: Keys) -> go.Figure:
        shown = with_throughput(entries)
        trace = line(shown, keys, [e.row.batch for e in shown], [e.row.errors for e in shown])
        return plotly_figure([trace], {"yaxis": {"title": {"text": "errors"}}})

    monkeypatch.setitem(charts.CHARTS, "errors", charts.Chart(errors, "Errors against batch"))
    assert all_charts(entries)["errors"]["variants"][0]["layout"]["yaxis"]["title"] == {"text": "errors"}
    assert charts.figure("errors", rows_of(entries)).layout.title.text == "Errors against batch"


def test_the_page_carries_no_template_of_plotlys_own(entries: list[Entry]) -> None:
    for chart in all_charts(entries).values():
        assert all("template" not in variant["layout"] for variant in chart["variants"])


def test_plotly_is_imported_only_for_a_figure() -> None:
    code = "import sys, bench.report.publish, bench.report.charts; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
