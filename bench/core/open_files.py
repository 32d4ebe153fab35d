"""Open files of one process: how many it may have, and how many its users need.

A connection is an open file. Where the limit is lower than the number of users, connections fail for a reason
that has nothing to do with the server. So the limit is raised, and a load that does not fit is refused.
"""

from __future__ import annotations

import math
import resource

# The largest load of one process, 10,000 users with two files each, and a server beside it, fit.
WANTED = 65_536
# A process has so many files for other things: libraries, pipes, timers, its log.
RESERVE = 128
# An open loop has a timer for each user beside its connection.
_FILES_A_USER, _FILES_A_USER_OPEN_LOOP = 1, 2


def raise_limit() -> None:
    """Raise this process's limit as far as the system allows, to at most WANTED. Its children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most() -> int:
    """How many open files a process may have, once its limit is raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if hard == resource.RLIM_INFINITY else hard


def needed(users: int, *, is_open_loop: bool) -> int:
    """How many a process with so many users needs."""
    return RESERVE + users * (_FILES_A_USER_OPEN_LOOP if is_open_loop else _FILES_A_USER)


def processes(users: int, *, is_open_loop: bool) -> int:
    """The fewest processes whose users have the files they need; 0 where even one user of each has not."""
    each = needed(1, is_open_loop=is_open_loop) - RESERVE
    fit = (most() - RESERVE) // each
    return math.ceil(users / fit) if fit > 0 else 0
