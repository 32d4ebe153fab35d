"""The time line of a Locust trial: waiting on it, showing it go by, and ending it when enough is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from bench.analysis.distributions import student_t_quantile
from bench.analysis.stats import samples_needed
from bench.core.cell import Load
from bench.core.spec import AUTO_WITHIN
from bench.core.trial import Live
from bench.loadgen.locust.worker_pool import Worker
from bench.loadgen.warmup import Milestone, longer_s

# The spread is looked at again when the window has grown by this factor.
_NEXT_LOOK = 1.25
# A window ends that looks narrower than asked by this much: of those that look just narrow enough, half are
# so by chance.
_STOPS_WITHIN = 0.8 * AUTO_WITHIN


class TrialTimeline:
    """Waits on the trial's time line, showing it as it goes by."""

    def __init__(self, start_ns: int, workers: Sequence[Worker], on_live: Callable[[Live], None]) -> None:
        self._start_ns, self._workers, self._on_live = start_ns, workers, on_live
        self._last = (start_ns, 0)
        self._marks: list[tuple[float, int]] = []

    @property
    def requests(self) -> int:
        """Ended so far, as the workers last told."""
        return sum(worker.live.get("requests", 0) for worker in self._workers)

    @property
    def seconds(self) -> float:
        """Since the load began."""
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def wait(self, milestone: Milestone) -> None:
        """Return when the milestone is reached or overdue, or when every worker is lost."""
        while True:
            seconds = self.seconds
            requests = self.requests
            if milestone.is_reached(seconds, requests) or milestone.is_overdue(seconds):
                return
            if not any(worker.at_work for worker in self._workers):
                return  # The end of the trial says so.
            self._show(seconds, requests)
            left_s = milestone.at_s - seconds
            # What workers tell arrives by itself, and is looked at a few times a second.
            time.sleep(min(0.25, left_s) if left_s > 0 else 0.05)

    def wait_for_answers(self, load: Load, duration_s: float, window_s: float, opened_s: float) -> None:
        """Until the window that opened at `opened_s`, just now, is as long as is planned, or longer.

        `duration_s`: as asked for; `window_s`: as planned.
        """
        before = self.requests
        self.wait(Milestone(opened_s + window_s))
        while any(worker.at_work for worker in self._workers):
            longer = longer_s(load, duration_s, window_s, self.requests - before)
            if longer <= window_s:
                return
            window_s = longer
            self.wait(Milestone(opened_s + window_s))

    def wait_until_tight(self, from_s: float, at_most_s: float, percent: float) -> None:
        """Until the percentile has its samples and throughput is known to AUTO_WITHIN, or `at_most_s`.

        It looks at the spread seldom, each time after a quarter more time: who looks all the time stops
        where the rate has looked even by chance.
        """
        is_enough = False
        while True:
            seconds = self.seconds
            if seconds >= at_most_s or not any(worker.at_work for worker in self._workers):
                return
            marks = [(at_s, count) for at_s, count in self._marks if at_s >= from_s]
            is_enough = is_enough or (
                len(marks) > 1 and marks[-1][1] - marks[0][1] >= samples_needed(percent)
            )
            if is_enough and is_tight(marks):
                return
            longer_s = max(0.5, (seconds - from_s) * (_NEXT_LOOK - 1)) if is_enough else 0.5
            self.wait(Milestone(min(seconds + longer_s, at_most_s)))

    def _show(self, seconds: float, requests: int) -> None:
        now_ns = time.monotonic_ns()
        then_ns, before = self._last
        if now_ns - then_ns < 200_000_000 or seconds < 0:
            return
        rate = (requests - before) / (now_ns - then_ns) * 1e9
        self._last = (now_ns, requests)
        self._marks.append((seconds, requests))
        p99 = max((worker.live.get("p99_ns", 0.0) for worker in self._workers), default=0.0)
        self._on_live(Live(seconds, requests, rate, p99))


def is_tight(marks: Sequence[tuple[float, int]], within: float = _STOPS_WITHIN) -> bool:
    """Whether the mean rate of (seconds, requests so far) is known to a share of itself, at 95 %.

    Means of ten spans, Student's t: spans of many requests each are nearly independent.
    """
    edges = np.linspace(0, len(marks) - 1, 11).astype(int)
    if len(set(edges)) < len(edges):
        return False
    seconds, requests = (np.array([marks[i][k] for i in edges]) for k in (0, 1))
    rates = np.diff(requests) / np.diff(seconds)
    half_width = student_t_quantile(0.975, len(rates) - 1) * rates.std(ddof=1) / np.sqrt(len(rates))
    return bool(half_width <= within * rates.mean())
