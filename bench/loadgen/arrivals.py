"""When requests are due: a tape of nanosecond offsets from the start of a trial, fixed before it starts.

The Poisson tape is the schedule of MLPerf LoadGen's Server scenario for the same seed and rate, without
its first query at 0: std::mt19937, two 32-bit draws a uniform double (std::generate_canonical<double, 53>),
-log(1 - u) / rate a gap (std::exponential_distribution), each gap cut to whole nanoseconds. None of that
depends on a version of Python or numpy (`RandomState` is numpy's frozen generator), but the last bit of log.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.cell import Arrival
from bench.core.samples import Int64

_LARGEST_BELOW_ONE = float(np.nextafter(1.0, 0.0))


def tape_ns(arrival: Arrival, rate_per_s: float, duration_s: float, seed: int) -> Int64:
    """int64 [n], sorted, in [0, duration): when each request is due, in ns after the start."""
    if arrival is Arrival.CONSTANT:
        return constant(rate_per_s, duration_s)
    return poisson(rate_per_s, duration_s, seed)


def constant(rate_per_s: float, duration_s: float) -> Int64:
    """One request every 1 / rate, the first at the start."""
    count = int(np.ceil(duration_s * rate_per_s - 1e-9))
    return np.floor(np.arange(count) / rate_per_s * 1e9).astype(np.int64)


def poisson(rate_per_s: float, duration_s: float, seed: int) -> Int64:
    """Independent exponential gaps of mean 1 / rate; a longer tape of a seed begins with the shorter one."""
    expected = rate_per_s * duration_s
    count = int(expected + 10 * np.sqrt(expected) + 10)  # ten deviations: more is next to never needed
    while True:
        offsets_ns = np.cumsum(_gaps_ns(count, rate_per_s, seed))
        if offsets_ns[-1] >= duration_s * 1e9:
            return offsets_ns[offsets_ns < duration_s * 1e9]
        count *= 2


def share(offsets_ns: Int64, worker: int, workers: int) -> Int64:
    """What worker `worker` of `workers` sends: every arrival belongs to exactly one."""
    return offsets_ns[worker::workers]


def _gaps_ns(count: int, rate_per_s: float, seed: int) -> Int64:
    return np.floor(-np.log1p(-_uniform(count, seed)) / rate_per_s * 1e9).astype(np.int64)


def _uniform(count: int, seed: int) -> NDArray[np.float64]:
    """float64 [count] in [0, 1): std::generate_canonical<double, 53>(std::mt19937(seed)), low word first."""
    state = np.random.RandomState(seed % 2**32)
    words = state.randint(0, 2**32, size=2 * count, dtype=np.uint32).astype(np.float64)
    return np.minimum((words[0::2] + words[1::2] * 2.0**32) / 2.0**64, _LARGEST_BELOW_ONE)
