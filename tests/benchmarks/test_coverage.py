"""The page of claims: a table of rows, sections that stay when other areas are run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.analysis.stats import Change, change_of, estimate_under, geometric, paired_ratio
from benchmarks.coverage import percentiles, renewed, rows_of, search, summary, table
from benchmarks.coverage.comparison import Noise, Plan, at_random, failure_exits, heavy, normal
from benchmarks.coverage.row import Row
from benchmarks.coverage.throughput import Draw, Study, alternating, covered, lognormal, of_its_own


def test_a_row_is_a_line_of_the_table() -> None:
    text = table([Row("covers", "cv 0 | 1", ">= 93 %", "95.1 %", True, 400)])
    assert text.splitlines()[-1] == "| covers | cv 0 \\| 1 | >= 93 % | 95.1 % | yes | 400 |"


def test_areas_that_are_not_run_keep_their_section() -> None:
    one, two = "## One\n<!-- one -->\nfirst\n", "## Two\n<!-- two -->\nsecond\n"
    page = renewed(renewed("", {"two": two}), {"one": one})
    assert page.index("first") < page.index("second")
    assert "second" not in renewed(page, {"two": two.replace("second", "third")})
    assert renewed(page, {"one": one}) == page


def test_the_summary_has_the_worst_row_of_each_claim_and_says_what_was_missed() -> None:
    rows = [
        Row("covers", "cv 0 | 1", ">= 93 %", "95.1 %", True, 400),
        Row("covers", "cv 2", ">= 93 %", "94.0 %", True, 400),
        Row("false", "cv 0", "<= 1%", "0.5 %", True, 400),
        Row("false", "cv 2", "<= 1%", "1.5 %", False, 400),
    ]
    section = f"## One\n<!-- one -->\n{table(rows)}\n"
    assert rows_of(section) == rows
    lines = summary([section]).splitlines()
    assert lines[-2:] == [
        "| covers | >= 93 % | 94.0 % - cv 2 | yes, in 2 rows |",
        "| false | <= 1% | 1.5 % - cv 2 | no: missed in 1 of 2 rows |",
    ]


@pytest.mark.parametrize("service_s", [0.05, 0.7, 2.0])
@pytest.mark.parametrize("draw", [lognormal(0.0), lognormal(0.02), alternating(0.5, 1.5)])
def test_the_interval_of_throughput_contains_the_truth(draw: Draw, service_s: float) -> None:
    """A whole count over the window, and a geometric mean, cover 0 to 46 % of these."""
    result = covered(Study(of_its_own(draw, service_s), users=1, window_s=3.0), studies=40, seed=1)
    assert result.studies == 40
    assert result.share >= 0.85  # of forty studies, where 95 % is claimed
    assert abs(result.bias) < 0.04


def test_throughput_of_an_even_server_is_exact_and_its_interval_narrow_and_right() -> None:
    result = covered(Study(of_its_own(lognormal(0.0), 0.9), users=4, window_s=3.0), studies=10, seed=2)
    assert result.share == 1
    assert abs(result.bias) < 1e-6


def test_whole_counts_of_windows_that_open_with_an_answer_do_not_contain_the_truth() -> None:
    """What the share of each request in the window mends, and a window that opens and grows by the rule."""
    study, inside = Study(of_its_own(lognormal(0.02), 0.7), users=1, window_s=3.0), 0
    for seed in range(40):
        trials = [study.trial(np.random.default_rng([seed, repeat])) for repeat in range(3)]
        done_s = [np.sort(trial.samples.done_ns) / 1e9 for trial in trials]
        opened_s = [float(times[times >= 0.5][0]) for times in done_s]
        counts = [np.sum((t > at) & (t <= at + 3)) for t, at in zip(done_s, opened_s, strict=True)]
        counted = geometric([float(count) / 3 for count in counts])
        assert counted is not None
        assert counted.low is not None
        assert counted.high is not None
        inside += counted.low <= 1 / 0.7 <= counted.high
    assert inside < 0.5 * 40
    assert covered(study, 40, seed=1).share >= 0.9


@pytest.mark.parametrize("noise", [normal(0.1), heavy(0.1)], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("paired", [False, True], ids=["two runs", "interleaved"])
def test_sixty_equal_cells_are_no_regression(noise: Noise, paired: bool) -> None:
    assert Plan(3, paired).share_of_exits(noise, 60) <= 0.05


def test_intervals_of_cells_one_by_one_do_name_some_of_sixty_equal_ones() -> None:
    """What Holm's procedure over all cells mends."""
    random, named = np.random.default_rng(1), 0
    for _ in range(60):
        cells = np.exp(normal(0.1)(random, (2, 60, 3)))
        found = [paired_ratio(base.tolist(), new.tolist()) for base, new in zip(*cells, strict=True)]
        named += any(change_of(one, 1.05, higher_is_worse=True) is Change.REGRESSION for one in found)
    assert named > 0.3 * 60


def test_a_tenth_in_one_of_sixty_cells_is_found_and_so_are_failures() -> None:
    assert Plan(5, paired=False, slowdown=1.1).share_of_exits(normal(0.02), 40) >= 0.95
    assert failure_exits(at_random(0.001, 300), at_random(0.001, 300), 3, 40) <= 0.05


def test_early_stopping_proves_what_is_false_at_a_queue_and_independent_pieces_do_not() -> None:
    server, random = percentiles.SERVERS["M/G/1, lognormal cv 1, 70 % load"], np.random.default_rng(4)
    truths_ns, old, new = percentiles.true_ns(server, parts=150), 0, 0
    for _ in range(60):
        repeats = [percentiles.trial_ns(server, random, 5) for _ in range(3)]
        estimate = estimate_under(np.sort(np.concatenate(repeats)), 99.0)
        old += estimate is not None and estimate <= percentiles.BELOW * truths_ns[99.0]
        new += percentiles.study(server, truths_ns, random, 3, 5)[99.0].proves_below
    assert old > 0.15 * 60
    assert new <= 1


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
