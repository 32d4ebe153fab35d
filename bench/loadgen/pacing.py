"""Following a tape of arrivals against the clock, under gevent.

gevent's own timers wake 0.6-0.9 ms late, since its loop rounds to milliseconds. A Linux timerfd is
a file descriptor that becomes readable at an absolute time of the monotonic clock, so the loop's
poll returns when it is due, without spinning.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Sequence

import gevent
from gevent import get_hub

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE = 1
# Closer than this, arming a timer costs more than it waits.
_NEAR_NS = 30_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Alarm:
    """Waits until an absolute time; one greenlet at a time."""

    def __init__(self) -> None:
        self._file = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC) if _libc else -1
        self._watcher = get_hub().loop.io(self._file, 1) if self._file >= 0 else None
        self._spec = _Itimerspec()

    def wait_until(self, due_ns: int) -> None:
        """Returns at once when `due_ns` is past."""
        ahead_ns = due_ns - time.monotonic_ns()
        if ahead_ns <= _NEAR_NS:
            return
        if self._watcher is None:  # no timerfd on this system: later by up to a millisecond
            gevent.sleep(ahead_ns / 1e9)
            return
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(due_ns, 1_000_000_000)
        _libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._spec), None)  # type: ignore[union-attr]  # a watcher implies libc
        get_hub().wait(self._watcher)
        os.read(self._file, 8)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._file)
            self._watcher = None


class Tape:
    """A worker's share of the arrivals of a trial: each is taken once, in order, however late."""

    def __init__(self, offsets_ns: Sequence[int], start_ns: int) -> None:
        self._due_ns = [start_ns + offset for offset in offsets_ns]
        self._next = 0
        self._is_closed = False

    def close(self) -> None:
        """Nothing is taken any more; what is left stays known."""
        self._is_closed = True

    def take(self) -> int | None:
        """When the next request is due, in nanoseconds of the monotonic clock; None at the end."""
        if self._is_closed or self._next >= len(self._due_ns):
            return None
        self._next += 1
        return self._due_ns[self._next - 1]

    def untaken_before(self, end_ns: int) -> list[int]:
        """Arrivals due before `end_ns` that nobody took: planned, and never sent."""
        return [due for due in self._due_ns[self._next :] if due < end_ns]
