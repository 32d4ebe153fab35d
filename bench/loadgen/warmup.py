"""Warm-up: when the window of a trial opens, and when it closes. Both engines follow this rule.

The window may open when two things are true:

1. The warm-up time (`--warmup`) has passed since the load began.
2. In a closed loop, twice as many requests have ended as there are users. So a first round of requests, in
   which a server may compile, allocate or load, is over before anything counts, and the mean response time
   is known.

An open loop has no users to wait for: there the time alone opens the window.

It does not open at once then: an answer that has just come is the moment at which the users' next requests
begin, and windows that all open there are alike, and wrong alike. A closed loop's window opens after a
further delay, drawn from the seed of the trial, of up to `PHASES` mean response times.

How long the window will be is planned when it may open: `--duration` and, in a closed loop, at least so long
that it holds about `ANSWERS` answers of each user, by the mean response time so far. It grows by this to at
most `MOST_TIMES` times its duration and `MOST_S` seconds. The plan is made before the delay, so that it does
not know the requests that are in flight when the window opens: a plan that is longer after a slow request
gives throughputs that are too high on average. To close the window at the moment of an answer, or as soon as
enough have come, would favour windows that were fast by chance. Only a window that holds too few answers of
each user when its time is over goes on for as long again (`has_enough`).

A server may never answer, so the second condition has an end: Locust's window opens without it after
`LONGEST_WAIT_S`. perf_analyzer's load ends at a time that is fixed at its start, so its window closes by
time alone, and a window that could not open in time, or that holds too few answers, is measured again with a
longer warm-up and a longer window.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from bench.analysis.checks.window import LEAST_ANSWERS
from bench.core.cell import Load
from bench.core.spec import WINDOW_ANSWERS

# A window whose users had no answer opens this long after the time it should have.
LONGEST_WAIT_S = 60.0
# A window opens when so many requests of each user have ended.
FIRST_ANSWERS = 2
# The window opens up to so many mean response times later: two, for a long and a short request in turns.
PHASES = 2.0
# A window is planned to hold so many answers of each user: twice what it needs, so that few windows go on.
ANSWERS = float(WINDOW_ANSWERS)
# It grows to at most so many times the duration that was asked for, and to so many seconds.
MOST_TIMES, MOST_S = 6.0, 60.0


@dataclass(frozen=True, slots=True)
class Milestone:
    """A moment of a trial: at least `at_s` seconds after the load began, with so many requests ended."""

    at_s: float
    ended: int = 0

    def is_reached(self, elapsed_s: float, ended: int) -> bool:
        return elapsed_s >= self.at_s and ended >= self.ended

    def is_overdue(self, elapsed_s: float) -> bool:
        """Whether the requests have been waited for long enough."""
        return elapsed_s > self.at_s + LONGEST_WAIT_S


def opening(load: Load, warmup_s: float) -> Milestone:
    """The end of the warm-up: from here on the window may open."""
    return Milestone(warmup_s, FIRST_ANSWERS * _users(load))


def phase_s(load: Load, seed: int, elapsed_s: float, ended: int) -> float:
    """How much later the window opens than it could: drawn from the seed; 0 in an open loop."""
    return PHASES * random.Random(f"{seed}/phase").random() * _mean_response_s(load, elapsed_s, ended)


def planned_s(load: Load, duration_s: float, elapsed_s: float, ended: int) -> float:
    """How long a window is planned to be that may open at `elapsed_s`, when so many requests have ended."""
    wanted_s = ANSWERS * _mean_response_s(load, elapsed_s, ended)
    return min(max(duration_s, wanted_s), longest_window_s(duration_s))


def longer_s(load: Load, duration_s: float, window_s: float, answers: int) -> float:
    """How long the window is to be when `window_s` are over and it holds so many answers: this, or longer."""
    if has_enough(load, answers):
        return window_s
    return max(window_s, min(2 * window_s, longest_window_s(duration_s)))


def has_enough(load: Load, answers: int) -> bool:
    """Whether so many answers in a window are enough for an interval of throughput, wherever it lies.

    The first answer of each user may be of a request that began long before the window.
    """
    return answers >= (LEAST_ANSWERS + 1) * _users(load)


def longest_window_s(duration_s: float) -> float:
    """The longest window that may come of this duration."""
    return max(duration_s, min(MOST_TIMES * duration_s, MOST_S))


def _mean_response_s(load: Load, elapsed_s: float, ended: int) -> float:
    """Of a closed loop, when an answer has just come (Little's law); 0 in an open loop."""
    users = _users(load)
    return users * elapsed_s / max(ended, users / 2) if users else 0.0


def _users(load: Load) -> int:
    """Of a closed loop; 0 in an open one."""
    return load.concurrency or 0
