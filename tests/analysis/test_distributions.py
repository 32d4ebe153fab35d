"""scipy is the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special as oracle
from scipy import stats as distributions

from bench.analysis.distributions import beta_regularised, binomial_cdf, student_t_quantile


@given(a=st.floats(0.1, 1e4), b=st.floats(0.1, 1e4), x=st.floats(0, 1))
def test_incomplete_beta(a: float, b: float, x: float) -> None:
    assert beta_regularised(a, b, x) == pytest.approx(oracle.betainc(a, b, x), abs=1e-9)


@given(n=st.integers(1, 300_000), share=st.floats(0, 1), p=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.5]))
def test_binomial(n: int, share: float, p: float) -> None:
    k = round(share * n * min(1, 3 * p))
    assert binomial_cdf(k, n, p) == pytest.approx(distributions.binom.cdf(k, n, p), abs=1e-9)


@given(probability=st.floats(0.5, 0.9999), degrees=st.floats(1, 1000))
def test_student_t(probability: float, degrees: float) -> None:
    expected = distributions.t.ppf(probability, degrees)
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_student_t_is_for_upper_tails_only() -> None:
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        student_t_quantile(0.4, 3)
