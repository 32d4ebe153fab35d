"""Percentiles, MLPerf's early stopping, intervals and ratios: published tables, scipy, and laws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from bench.analysis.stats import (
    Change,
    Interval,
    change_of,
    early_stopping_n,
    estimate_under,
    geometric,
    hodges_lehmann,
    nearest_rank,
    paired_ratio,
    percentile,
    proves,
    ratio,
    samples_needed,
)

ONE_TO = {n: np.arange(1, n + 1, dtype=np.int64) for n in (1, 10, 100, 662, 1000, 2000, 5000, 10_000, 50_000)}
RANKS = [
    (1, 50, 1), (1, 99.9, 1), (10, 50, 5), (10, 90, 9), (10, 99, 10),
    (100, 99, 99), (1000, 99.9, 999), (1000, 99, 990), (10_000, 99.9, 9990),
]  # fmt: skip


@pytest.mark.parametrize(("n", "percent", "rank"), RANKS)
def test_nearest_rank(n: int, percent: float, rank: int) -> None:
    assert nearest_rank(ONE_TO[n], percent) == rank


def test_a_rank_is_exact_however_fine_the_percent() -> None:
    """Percents rounded to a thousandth moved the rank: of 10 million by up to 50 samples."""
    many = np.arange(1, 10_000_001, dtype=np.int64)
    assert nearest_rank(many, 99.99996) == 9_999_996
    assert nearest_rank(many, 99.9) == 9_990_000
    assert nearest_rank(ONE_TO[1000][:3], Fraction(200, 3)) == 2  # two thirds of three, not a hair more


samples = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)


@given(values=samples, percent=st.sampled_from([50, 90, 95, 99, 99.9]))
def test_a_percentile_is_a_sample_that_enough_do_not_exceed(values: list[int], percent: float) -> None:
    ordered = np.sort(np.array(values, dtype=np.int64))
    value = nearest_rank(ordered, percent)
    assert value in values
    assert (ordered <= value).mean() >= percent / 100 - 1e-12
    assert (ordered < value).mean() < percent / 100
    assert value == np.percentile(ordered, percent, method="inverted_cdf")


# MLPerf's tables: n = h(t) + t at 99 % confidence; rows are (percentile, over, n).
EARLY_STOPPING = [
    (99, 0, 459), (99, 1, 662), (99, 2, 838), (99, 3, 1001), (99, 5, 1307), (99, 10, 2010), (99, 20, 3304),
    (99, 50, 6898), (99, 100, 12571), (99, 200, 23527),
    (95, 0, 90), (95, 1, 130), (95, 2, 165), (95, 5, 259), (95, 10, 398),
    (99.9, 0, 4603), (99.9, 1, 6636), (99.9, 2, 8403), (99.9, 5, 13105), (99.9, 10, 20140),
    (90, 0, 44), (90, 1, 64), (90, 2, 81),
]  # fmt: skip


@pytest.mark.parametrize(("percent", "over", "n"), EARLY_STOPPING)
def test_early_stopping_is_mlperfs(percent: float, over: int, n: int) -> None:
    assert early_stopping_n(percent, over) == n
    assert proves(percent, over, n)
    assert not proves(percent, over, n - 1)
    assert not proves(percent, over + 1, n)


@pytest.mark.parametrize(
    ("percent", "n"), [(50, 11), (75, 24), (80, 31), (90, 64), (95, 130), (97, 219), (99, 662), (99.9, 6636)]
)
def test_a_percentile_needs_so_many_samples_and_says_so(percent: float, n: int) -> None:
    assert samples_needed(percent) == n
    enough = percentile(np.arange(n, dtype=np.int64), percent)
    assert enough.value_ns is not None
    short = percentile(np.arange(n - 1, dtype=np.int64), percent)
    assert short.value_ns is None
    assert (short.n, short.needed) == (n - 1, n)


@pytest.mark.parametrize(
    ("n", "over"), [(662, 1), (1000, 2), (2000, 9), (5000, 33), (10_000, 77), (50_000, 448)]
)
def test_mlperfs_estimate_of_p99_discards_all_but_one_of_those_that_may_be_over(n: int, over: int) -> None:
    assert estimate_under(ONE_TO[n], 99) == n - over + 1


def test_an_estimate_needs_as_many_samples_as_a_percentile() -> None:
    assert estimate_under(np.arange(661, dtype=np.int64), 99) is None


positive = st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=12)


@given(positive)
def test_the_interval_over_repeats_is_students_on_logarithms(values: list[float]) -> None:
    found = geometric(values)
    assert found is not None
    assert found.value == pytest.approx(oracle.gmean(values))
    error = oracle.sem(np.log(values))
    if error > 1e-9:
        low, high = oracle.t.interval(0.95, len(values) - 1, np.mean(np.log(values)), error)
        assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)), rel=1e-6)


@given(values=positive, factor=st.floats(1e-3, 1e3))
def test_an_interval_does_not_depend_on_the_unit(values: list[float], factor: float) -> None:
    one, other = geometric(values), geometric([value * factor for value in values])
    assert one is not None and other is not None  # noqa: PT018  # one fact
    assert one.low is not None and other.low is not None  # noqa: PT018
    assert other.value == pytest.approx(one.value * factor)
    assert other.low == pytest.approx(one.low * factor)


def test_two_repeats_have_no_interval_and_none_have_no_value() -> None:
    two = geometric([2.0, 8.0])
    assert two is not None
    assert two == Interval(two.value, None, None, 2)
    assert two.value == pytest.approx(4.0)
    assert geometric([]) is None


def test_a_repeat_where_nothing_got_through_is_not_dropped() -> None:
    assert geometric([90.0, 90.0, 0.0]) == Interval(60.0, None, None, 3)
    assert ratio([1.0, 2.0, 3.0], [0.0, 2.0, 3.0]) is None
    assert paired_ratio([0.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is None


@given(base=positive, new=positive)
def test_the_ratio_of_independent_groups_is_welchs(base: list[float], new: list[float]) -> None:
    found = ratio(base, new)
    assert found is not None
    assert found.value == pytest.approx(oracle.gmean(new) / oracle.gmean(base))
    if np.ptp(base) / max(base) > 1e-6 and np.ptp(new) / max(new) > 1e-6:
        welch = oracle.ttest_ind(np.log(new), np.log(base), equal_var=False).confidence_interval(0.95)
        assert found.low == pytest.approx(math.exp(welch.low), rel=1e-5)
        assert found.high == pytest.approx(math.exp(welch.high), rel=1e-5)


def test_pairing_removes_what_a_round_shares() -> None:
    drift = [1.0, 1.5, 0.7, 1.2, 0.9]
    base = [100 * d for d in drift]
    new = [110 * d for d in drift]
    paired = paired_ratio(base, new)
    assert paired is not None
    assert (paired.low, paired.high) == pytest.approx((1.1, 1.1))
    unpaired = ratio(base, new)
    assert unpaired is not None
    assert unpaired.low is not None
    assert unpaired.low < 0.9


def test_hodges_lehmann_is_the_median_of_all_ratios() -> None:
    assert hodges_lehmann([1, 1, 1], [2, 2, 1000]) == 2
    assert hodges_lehmann([], [1]) is None


VERDICTS = [
    # interval, higher is worse, limit, verdict
    ((1.06, 1.20), True, 1.05, Change.REGRESSION),
    ((0.90, 1.04), True, 1.05, Change.NO_CHANGE),
    ((1.01, 1.20), True, 1.05, Change.INCONCLUSIVE),
    ((0.80, 0.90), False, 0.97, Change.REGRESSION),
    ((0.98, 1.20), False, 0.97, Change.NO_CHANGE),
    ((0.95, 1.20), False, 0.97, Change.INCONCLUSIVE),
    ((0.50, 0.60), True, 1.05, Change.NO_CHANGE),  # faster is no regression
]


@pytest.mark.parametrize(("bounds", "higher_is_worse", "limit", "verdict"), VERDICTS)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    bounds: tuple[float, float], higher_is_worse: bool, limit: float, verdict: Change
) -> None:
    interval = Interval(math.sqrt(bounds[0] * bounds[1]), *bounds, n=5)
    assert change_of(interval, limit, higher_is_worse=higher_is_worse) is verdict


def test_too_few_repeats_are_inconclusive() -> None:
    assert change_of(Interval(2.0, None, None, 2), 1.05, higher_is_worse=True) is Change.INCONCLUSIVE
    assert change_of(None, 1.05, higher_is_worse=True) is Change.INCONCLUSIVE
