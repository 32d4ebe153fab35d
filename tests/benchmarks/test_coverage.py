"""The page of claims: a table of rows, sections that stay when other areas are run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.coverage import renewed, search, table
from benchmarks.coverage.row import Row
from benchmarks.coverage.throughput import Draw, Study, alternating, covered, lognormal


def test_a_row_is_a_line_of_the_table() -> None:
    text = table([Row("covers", "cv 0 | 1", ">= 93 %", "95.1 %", True, 400)])
    assert text.splitlines()[-1] == "| covers | cv 0 \\| 1 | >= 93 % | 95.1 % | yes | 400 |"


def test_areas_that_are_not_run_keep_their_section() -> None:
    one, two = "## One\n<!-- one -->\nfirst\n", "## Two\n<!-- two -->\nsecond\n"
    page = renewed(renewed("", {"two": two}), {"one": one})
    assert page.index("first") < page.index("second")
    assert "second" not in renewed(page, {"two": two.replace("second", "third")})
    assert renewed(page, {"one": one}) == page


@pytest.mark.parametrize("service_s", [0.05, 0.7, 2.0])
@pytest.mark.parametrize("draw", [lognormal(0.0), lognormal(0.02), alternating(0.5, 1.5)])
def test_the_interval_of_throughput_contains_the_truth(draw: Draw, service_s: float) -> None:
    """A whole count over the window, and a geometric mean, cover 0 to 46 % of these."""
    result, _ = covered(Study(draw, service_s, users=1, window_s=3.0), studies=40, seed=1)
    assert result.studies == 40
    assert result.share >= 0.85  # of forty studies, where 95 % is claimed
    assert abs(result.bias) < 0.04


def test_throughput_of_an_even_server_is_exact_and_its_interval_narrow_and_right() -> None:
    result, _ = covered(Study(lognormal(0.0), 0.9, users=4, window_s=3.0), studies=10, seed=2)
    assert result.share == 1
    assert abs(result.bias) < 1e-6


def test_a_search_is_held_against_the_capacity() -> None:
    """A few studies of the server whose capacity is the easiest to find."""
    studies = search.studies_of(search.MD1, 4, seed=1)
    high, inside, near, said = search.rows_of(search.MD1, studies)
    assert all(row.holds for row in (high, inside, near, said))
    assert "0.0% are above" in high.measured


def test_where_a_server_drifts_the_lower_of_mean_and_last_capacity_is_the_truth() -> None:
    slower = replace(search.MD1, drift=0.2, drift_s=1000.0)
    faster = replace(search.MD1, drift=-0.2, drift_s=1000.0)
    ((of_slower,), (of_faster,)) = (search.studies_of(queue, 1, seed=1) for queue in (slower, faster))
    assert of_slower.truth < of_slower.mean < search.MD1.capacity()
    assert of_faster.truth == of_faster.mean > search.MD1.capacity()
