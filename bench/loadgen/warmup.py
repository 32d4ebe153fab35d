"""Warm-up: when the window of a trial opens, and when it closes. Both engines follow this rule.

The window opens when two things are true:

1. The warm-up time (`--warmup`) has passed since the load began.
2. In a closed loop, as many requests have ended as there are users. So a first round of requests, in which
   a server may compile, allocate or load, is over before anything counts.

An open loop has no users to wait for: there the time alone opens the window.

The window closes when `--duration` has passed since it opened and, in a closed loop, as many requests have
ended in it as there are users: a window with fewer answers would say nothing of a model that is this slow.

Requests go on through the warm-up, the window and after it without a break. All of them are recorded; only
the window counts.

A server may never answer, so the second condition has an end. Locust's window opens, and closes, without it
after `LONGEST_WAIT_S`. perf_analyzer's load ends at a time that is fixed at its start, so its window closes
by time alone, and a window that could not open in time is measured again with a longer warm-up and a longer
window.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.core.cell import Load

# A window whose users had no answer opens, or closes, this long after the time it should have.
LONGEST_WAIT_S = 60.0


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
    """The end of the warm-up, where the window opens."""
    return Milestone(warmup_s, _users(load))


def closing(load: Load, duration_s: float, opened_s: float, ended: int) -> Milestone:
    """The end of a window that opened `opened_s` after the load began, when `ended` requests had ended."""
    users = _users(load)
    return Milestone(opened_s + duration_s, ended + users if users else 0)


def _users(load: Load) -> int:
    """Of a closed loop; 0 in an open one."""
    return load.concurrency or 0
