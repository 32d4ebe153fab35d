"""The page of claims: a table of rows, sections that stay when other areas are run."""

from __future__ import annotations

from benchmarks.coverage import renewed, table
from benchmarks.coverage.row import Row


def test_a_row_is_a_line_of_the_table() -> None:
    text = table([Row("covers", "cv 0 | 1", ">= 93 %", "95.1 %", True, 400)])
    assert text.splitlines()[-1] == "| covers | cv 0 \\| 1 | >= 93 % | 95.1 % | yes | 400 |"


def test_areas_that_are_not_run_keep_their_section() -> None:
    one, two = "## One\n<!-- one -->\nfirst\n", "## Two\n<!-- two -->\nsecond\n"
    page = renewed(renewed("", {"two": two}), {"one": one})
    assert page.index("first") < page.index("second")
    assert "second" not in renewed(page, {"two": two.replace("second", "third")})
    assert renewed(page, {"one": one}) == page
