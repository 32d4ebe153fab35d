"""When requests are due: a tape of nanosecond offsets from the start of a trial, fixed before it starts.

The Poisson tape is the schedule of MLPerf LoadGen's Server scenario for the same seed: std::mt19937,
two 32-bit draws a uniform double (std::generate_canonical<double, 53>), -log(1 - u) / rate as gap
(std::exponential_distribution of libstdc++). All three are specified bit by bit, so the tape is the
same on every Python, numpy and machine, up to the last digit of log.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cell import Arrival
from bench.samples import Int64

_LARGEST_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def tape_ns(arrival: Arrival, rate_per_s: float, duration_s: float, seed: int) -> Int64:
    """int64 [n], sorted, in [0, duration): when each request is due, in ns after the start."""
    if arrival is Arrival.CONSTANT:
        return constant(rate_per_s, duration_s)
    return poisson(rate_per_s, duration_s, seed)


def constant(rate_per_s: float, duration_s: float) -> Int64:
    """One request every 1 / rate, the first at the start."""
    count = int(np.ceil(duration_s * rate_per_s - 1e-9))
    return np.round(np.arange(count) / rate_per_s * 1e9).astype(np.int64)


def poisson(rate_per_s: float, duration_s: float, seed: int) -> Int64:
    """Independent exponential gaps of mean 1 / rate."""
    expected = rate_per_s * duration_s
    count = int(expected + 10 * np.sqrt(expected) + 10)  # ten deviations: more is never needed
    while True:
        offsets_s = np.cumsum(_exponential(count, rate_per_s, seed))
        if offsets_s[-1] >= duration_s:
            return np.round(offsets_s[offsets_s < duration_s] * 1e9).astype(np.int64)
        count *= 2


def share(offsets_ns: Int64, worker: int, workers: int) -> Int64:
    """What worker `worker` of `workers` sends: every arrival belongs to exactly one."""
    return offsets_ns[worker::workers]


def _exponential(count: int, rate_per_s: float, seed: int) -> NDArray[np.float64]:
    gaps: NDArray[np.float64] = -np.log(1.0 - _uniform(count, seed)) / rate_per_s
    return gaps


def _uniform(count: int, seed: int) -> NDArray[np.float64]:
    """As std::generate_canonical<double, 53>(std::mt19937(seed)) gives them."""
    bits = np.random.MT19937()
    bits._legacy_seeding(seed)  # init_genrand, the seeding std::mt19937 is specified with
    draws = bits.random_raw(2 * count).astype(np.float64)
    values = (draws[0::2] + draws[1::2] * 2.0**32) / 2.0**64
    return np.minimum(values, _LARGEST_BELOW_ONE)
