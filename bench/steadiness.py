"""Was the window in steady state? MSER-5 on series of throughput and median latency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.samples import Samples, Window

LEAST_BINS = 20
_MEANS_OF = 5
# MSER's own warning: a cut at the end of its range (half the series) means that no steady part was found.
LARGEST_CUT = 0.25


@dataclass(frozen=True, slots=True)
class Steadiness:
    """`cut`: the share of the window that MSER-5 would throw away. None: too few bins to tell."""

    cut: float | None

    @property
    def is_steady(self) -> bool | None:
        return None if self.cut is None else self.cut <= LARGEST_CUT


def mser5(series: NDArray[np.float64]) -> float | None:
    """The share of the series' start to be cut: argmin over d of Var(x[d:]) / (n - d), x means of five.

    Source: White 1997 (MSER), White and Spratt 2000 (MSER-5). d is looked for in the first half.
    None for fewer than four means of five.
    """
    n = len(series) // _MEANS_OF
    if n < LEAST_BINS // _MEANS_OF:
        return None
    means = series[: n * _MEANS_OF].reshape(n, _MEANS_OF).mean(axis=1)
    scores = [np.var(means[d:]) / (n - d) for d in range(n // 2 + 1)]
    return float(np.argmin(scores)) / n


def steadiness(samples: Samples, window: Window) -> Steadiness:
    """The worse of throughput and median latency, over bins of a second, or a 60th of a shorter window."""
    done = samples.done_in(window)
    bins = max(LEAST_BINS * 2, round(window.seconds))
    # With few requests a bin, throughput per bin is counting noise, and MSER sees trends in it.
    if len(done) < bins * 5:
        return Steadiness(None)
    where = ((done.done_ns - window.start_ns) * bins // (window.end_ns - window.start_ns)).clip(0, bins - 1)
    counts = np.bincount(where, minlength=bins).astype(np.float64)
    order = np.argsort(where, kind="stable")
    parts = np.split(done.response_ns[order], np.cumsum(counts.astype(int))[:-1])
    medians = np.array([np.median(part) if len(part) else np.nan for part in parts])
    medians = medians[~np.isnan(medians)]
    cuts = [cut for cut in (mser5(counts), mser5(medians)) if cut is not None]
    return Steadiness(max(cuts) if cuts else None)


def drift(samples: Samples, window: Window) -> float | None:
    """Throughput of the window's second half over its first; None without requests in the first."""
    middle = (window.start_ns + window.end_ns) // 2
    first = len(samples.done_in(Window(window.start_ns, middle)))
    second = len(samples.done_in(Window(middle, window.end_ns)))
    return second / first if first else None
