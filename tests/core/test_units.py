"""What a flag may say, what it means, and that a wrong one says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core import units
from bench.core.slo import Slo, parse_slo
from bench.core.units import PERCENTILES

integers = partial(units.parse_integers, low=1, high=128)

RIGHT: list[tuple[Callable[[str], object], str, object]] = [
    (integers, "1,8,32", (1, 8, 32)),
    (integers, " 8 , 1 ", (8, 1)),
    (units.parse_rates, "50/s,100/s", (50.0, 100.0)),
    (units.parse_rates, "12000/min", (200.0,)),
    (units.parse_rates, "0.5", (0.5,)),
    (units.parse_duration_s, "30s", 30.0),
    (units.parse_duration_s, "500ms", 0.5),
    (units.parse_duration_s, "100us", 1e-4),
    (units.parse_duration_s, "2m", 120.0),
    (units.parse_duration_s, "1.5 h", 5400.0),
    (units.parse_duration_s, "0", 0.0),
    (units.parse_percent, "0.1%", 0.001),
    (parse_slo, "p99=100ms", Slo(((99.0, 100_000_000),))),
    (parse_slo, "p99.9=1s, p50=10ms, errors=1%", Slo(((50.0, 10**7), (99.9, 10**9)), 0.01)),
]


@pytest.mark.parametrize(("parse", "text", "value"), RIGHT)
def test_it_means(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == pytest.approx(value) if isinstance(value, float) else parse(text) == value


WRONG: list[tuple[Callable[[str], object], str, str]] = [
    (integers, "", "from 1 to 128"),
    (integers, "0", "from 1 to 128"),
    (integers, "129", "from 1 to 128"),
    (integers, "1,,2", "separated by commas"),
    (integers, "8,8", "each once"),
    (integers, "1.5", "whole numbers"),
    (integers, "9" * 5000, "whole numbers"),
    (units.parse_rates, "0/s", "above 0"),
    (units.parse_rates, "-5/s", "above 0"),
    (units.parse_rates, "50/h", "50/s"),
    (units.parse_rates, "60/min,1/s", "each once"),
    (units.parse_rates, "inf", "above 0"),
    (units.parse_rates, "123456.1/s,123456.2/s", "equal to six digits are duplicates"),
    (units.parse_rates, "5000000/s", "at most 1,000,000/s"),
    (units.parse_duration_s, "30", "with its unit"),
    (units.parse_duration_s, "-1s", "such as"),
    (units.parse_duration_s, "1 day", "such as"),
    (units.parse_percent, "0.1", "such as 1%"),
    (parse_slo, "errors=1%", "p99=100ms"),
    (parse_slo, "p98=1s", "p99.9"),
    (parse_slo, "p99=0ms", "p99=100ms"),
    (parse_slo, "p99=1s,p99=2s", "p99=100ms"),
    (parse_slo, "99=1s", "p99=100ms"),
    (parse_slo, "p99", "p99=100ms"),
]


@pytest.mark.parametrize(("parse", "text", "allowed"), WRONG)
def test_a_mistake_names_what_is_allowed(parse: Callable[[str], object], text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(allowed)):
        parse(text)


bounds = st.dictionaries(st.sampled_from(PERCENTILES), st.integers(1, 10**13), min_size=1)


@given(bounds=bounds, errors=st.integers(0, 1000))
def test_an_slo_reads_back_as_it_was_written(bounds: dict[float, int], errors: int) -> None:
    slo = Slo(tuple(sorted(bounds.items())), errors / 10_000)
    again = parse_slo(str(slo))
    assert again.latencies == slo.latencies
    assert again.error_fraction == pytest.approx(slo.error_fraction)


FORMATTED = [
    (units.duration(0), "0 ns"),
    (units.duration(999), "999 ns"),
    (units.duration(1_234_567), "1.23 ms"),
    (units.duration(999_999), "1 ms"),
    (units.duration(-1_500), "-1.5 us"),
    (units.duration(90e9), "90 s"),
    (units.rate(1234.5), "1230/s"),
    (units.rate(0.01234), "0.0123/s"),
    (units.percent(0.5), "50%"),
    (units.count(12345), "12,345"),
    (units.plural(1, "request"), "1 request"),
    (units.plural(0, "request"), "0 requests"),
    (units.bytes_text(1536), "1.5 KiB"),
    (units.bytes_text(512), "512 B"),
    (units.significant(12345), "12300"),
    (units.significant(0.000012345), "0.0000123"),
    (units.significant(100.0), "100"),
]


@pytest.mark.parametrize(("text", "expected"), FORMATTED)
def test_it_reads(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(1e-6, 1e15))
def test_three_digits_are_kept(value: float) -> None:
    assert float(units.significant(value)) == pytest.approx(value, rel=5e-3)
