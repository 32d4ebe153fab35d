"""Was the window in steady state, and did its queue stay where it was?

MSER-5 alone gives false alarms: on a short steady series its minimum lies anywhere, and a third of steady
trials would lose over a quarter. So what it would cut must also differ from what it would keep. With
both, simulated steady trials are called unsteady in under 1 of 10, in a closed loop in under 1 of 20.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.samples import Int64, Outcome, Samples, Window

Series = NDArray[np.float64]

# MSER-5 takes means of five bins, and has nothing to compare with fewer than four of them.
MEANS_OF, LEAST_BINS = 5, 20
# Bins are a second; a window shorter than this many seconds has shorter bins, up to this many.
MOST_SHORT_BINS = 100
# With fewer requests than this in a bin, its figures are counting noise.
LEAST_PER_BIN = 5
# A trial may be unsteady where MSER-5 would cut more than this share. MSER's own warning is a cut at the end
# of its range, half the series; this is stricter.
LARGEST_CUT = 0.25
# A figure that moved by less than this costs no more than the interval over repeats shows.
LEAST_MOVE = 0.05
# The difference must be this many standard errors. Two are too few: the cut is chosen where it is largest.
DEVIATIONS = 4.0
# Requests that end at their timeout hide a queue where a typical request waits this share of the timeout.
GIVEN_UP = 0.5
# A queue grows if it has gained this share of the requests due in the window; less is chance.
BACKLOG_GROWTH = 0.02


@dataclass(frozen=True, slots=True)
class Steadiness:
    """`cut`: the share of the window MSER-5 would throw away, `moved`: kept over cut part, minus one.

    Both are None when there are too few requests to tell.
    """

    figure: str  # the one that moved most: throughput or median latency
    cut: float | None = None
    moved: float | None = None
    is_steady: bool | None = None


def mser5(series: Series) -> tuple[Series, int] | None:
    """Means of five, and how many of them to cut: argmin over d of Var(x[d:]) / (n - d), d <= n / 2.

    Source: White 1997 (MSER); White, Cobb and Spratt 2000 (MSER-5). None for fewer than four means.
    """
    n = len(series) // MEANS_OF
    if n < LEAST_BINS // MEANS_OF:
        return None
    means = series[: n * MEANS_OF].reshape(n, MEANS_OF).mean(axis=1)
    scores = [np.var(means[d:]) / (n - d) for d in range(n // 2 + 1)]
    return means, int(np.argmin(scores))


def steadiness(samples: Samples, window: Window) -> Steadiness:
    """Of throughput and median latency the one that is unsteady, or else the one that moved more."""
    counts, medians = binned(samples, window)
    both = [_steadiness("throughput", counts), _steadiness("median latency", medians)]
    return min(both, key=lambda s: (s.is_steady is not False, s.is_steady is None, -abs(s.moved or 0.0)))


def binned(samples: Samples, window: Window) -> tuple[Series, Series]:
    """Requests done, and their median response time in ns, per bin; bins without a request have no median.

    A bin is a second in windows of 100 s and more; shorter windows have up to 100 shorter bins, as long
    as a bin has 5 requests. Both are empty where not even 20 bins have that many.
    """
    done = samples.done_in(window)
    bins = min(len(done) // LEAST_PER_BIN, max(MOST_SHORT_BINS, round(window.seconds)))
    if bins < LEAST_BINS:
        return np.array([]), np.array([])
    bin_of = (done.done_ns - window.start_ns) * bins // (window.end_ns - window.start_ns)
    counts = np.bincount(bin_of, minlength=bins)
    by_bin = done.response_ns[np.argsort(bin_of, kind="stable")]
    parts = np.split(by_bin, np.cumsum(counts)[:-1])
    return counts.astype(np.float64), np.array([np.median(part) for part in parts if len(part)])


def _steadiness(figure: str, series: Series) -> Steadiness:
    result = mser5(series)
    if result is None:
        return Steadiness(figure)
    means, d = result
    if d == 0:
        return Steadiness(figure, 0.0, 0.0, is_steady=True)
    cut, kept = means[:d], means[d:]
    difference = abs(kept.mean() - cut.mean())
    noise = DEVIATIONS * np.sqrt(kept.var(ddof=1) * (1 / len(cut) + 1 / len(kept)))
    real = difference > noise and difference > LEAST_MOVE * kept.mean()
    moved = float(kept.mean() / cut.mean() - 1) if cut.mean() > 0 else np.inf
    return Steadiness(figure, d / len(means), moved, is_steady=not (real and d / len(means) > LARGEST_CUT))


@dataclass(frozen=True, slots=True)
class Backlog:
    """Requests due and not done, on average over the window's first and last quarter."""

    first: float
    last: float
    grows: bool


def backlog(samples: Samples, window: Window) -> Backlog:
    """Does the queue of an open loop grow through the whole window?

    Growth has to go on from quarter to quarter and be more than chance makes it: of simulated M/D/1
    queues none at up to 90 % utilisation, and 9 of 10 at 110 %. Clients that give up keep a queue short, so a
    request that ended at its timeout in the window counts as still waiting, if requests mostly wait.
    """
    at_ns = np.linspace(window.start_ns, window.end_ns, 41)
    due = np.searchsorted(np.sort(samples.intended_ns), at_ns)
    waiting = due - np.searchsorted(np.sort(_answered_ns(samples, window)), at_ns)
    quarters = [float(part.mean()) for part in np.array_split(waiting, 4)]
    first, last = quarters[0], quarters[-1]
    rising = all(later >= 0.9 * earlier for earlier, later in itertools.pairwise(quarters))
    least = max(3.0, BACKLOG_GROWTH * len(samples.intended_in(window)))
    return Backlog(first, last, grows=rising and last - first > least and last > 1.5 * first)


def _answered_ns(samples: Samples, window: Window) -> Int64:
    """When requests left the queue; those that were given up in the window, while others waited, never do."""
    gave_up = (samples.outcome == Outcome.TIMEOUT) & (samples.done_ns >= window.start_ns)
    asked = samples.intended_in(window)
    if not gave_up.any() or not len(asked):
        return samples.done_ns
    if np.median(asked.response_ns) < GIVEN_UP * samples.response_ns[gave_up].min():
        return samples.done_ns
    return np.where(gave_up, np.iinfo(np.int64).max, samples.done_ns)
