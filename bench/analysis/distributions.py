"""The distributions that the statistics need, written out so that scipy is needed in tests only."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Stirling's series, DLMF 5.11.1: B(2k) / (2k (2k - 1)).
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
# From this x on, five terms of the series are good to 1e-13.
_SHIFT = 8


def log_gamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln of the gamma function for x > 0, elementwise. Sources: DLMF 5.11.1, and 5.5.1 to get to large x."""
    far = x + _SHIFT
    product = np.ones_like(far)
    for k in range(_SHIFT):
        product = product * (x + k)
    series = sum(c / far ** (2 * k + 1) for k, c in enumerate(_STIRLING))
    return np.asarray(
        (far - 0.5) * np.log(far) - far + 0.5 * math.log(2 * math.pi) + series - np.log(product)
    )


def beta_regularised(a: float, b: float, x: float) -> float:
    """I_x(a, b) for a, b > 0. Source: continued fraction of DLMF 8.17.22, evaluated by Lentz's method."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_regularised(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300  # what a divisor of zero is replaced by
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 100_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + numerator * d) or tiny)
            c = (1 + numerator / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def binomial_cdf(successes: int, n: int, p: float) -> float:
    """P(X <= successes) for X ~ Binomial(n, p). Source: DLMF 8.17.5."""
    if successes < 0:
        return 0.0
    if successes >= n:
        return 1.0
    return beta_regularised(n - successes, successes + 1, 1 - p)


@lru_cache(maxsize=4096)
def student_t_quantile(probability: float, degrees: float) -> float:
    """The t below which a Student variable falls with `probability` (0.5 to 1). Bisection on the CDF."""
    if not 0.5 <= probability < 1:
        raise ValueError("probability must be at least 0.5 and below 1")
    low, high = 0.0, 1.0
    while _student_t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _student_t_cdf(t: float, degrees: float) -> float:
    return 1 - student_t_tail(t, degrees)


def student_t_tail(t: float, degrees: float) -> float:
    """P(T > t) of a Student variable; exact far out, where 1 - CDF would be rounded away."""
    tail = beta_regularised(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2
    return tail if t >= 0 else 1 - tail


def normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(X < x) of a standard normal variable, elementwise, to 1e-7. Source: Abramowitz and Stegun 7.1.26."""
    z = np.abs(x) / math.sqrt(2)
    k = 1 / (1 + 0.3275911 * z)
    series = k * (0.254829592 + k * (-0.284496736 + k * (1.421413741 + k * (-1.453152027 + k * 1.061405429))))
    tail = 0.5 * series * np.exp(-z * z)
    return np.asarray(np.where(x > 0, 1 - tail, tail))


def chi_square_nodes(degrees: float, count: int = 60) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of chi-square over its degrees, and their weights, which sum to 1: for means over it.

    The trapezoidal rule on the logarithm, where the density is smooth and falls off at both ends.
    """
    half = degrees / 2
    width = 8 / math.sqrt(half)
    logs = np.linspace(-max(width, 18 / half), math.log1p(width + 20 / half), count)
    densities = np.exp(half * (logs - np.exp(logs) + 1))
    return np.exp(logs), densities / densities.sum()


def digamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative of ln gamma for x > 0, elementwise. Sources: DLMF 5.11.2, and 5.5.2 to get to large x."""
    far = x + _SHIFT
    series = 1 / (12 * far**2) - 1 / (120 * far**4) + 1 / (252 * far**6)
    return np.asarray(np.log(far) - 1 / (2 * far) - series - sum(1 / (x + k) for k in range(_SHIFT)))


def trigamma(x: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Derivative of digamma for x > 0, elementwise. Sources: DLMF 5.15.8 and 5.15.5."""
    far = x + _SHIFT
    series = 1 / far + 1 / (2 * far**2) + 1 / (6 * far**3) - 1 / (30 * far**5) + 1 / (42 * far**7)
    return np.asarray(series + sum(1 / (x + k) ** 2 for k in range(_SHIFT)))


def trigamma_inverse(value: float) -> float:
    """The x > 0 whose trigamma is `value` > 0. Bisection on the logarithm: trigamma falls."""
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        is_above = float(trigamma(math.exp(middle))) > value
        low, high = (middle, high) if is_above else (low, middle)
    return math.exp((low + high) / 2)
