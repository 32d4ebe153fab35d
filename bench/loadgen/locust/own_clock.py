"""A load-generating process watches its own clock: was it stopped while it should have made load?

A greenlet looks at the clocks at a steady pace. A look that comes late has a cause. Either the process
computed (its CPU time grew), or it waited for a core (Linux counts that in /proc/self/schedstat), or neither:
then it was frozen, by a signal, a debugger, a container that was paused, or a virtual machine that was. Only
that is a stall. A garbage collection computes, and a busy machine makes it wait: neither is one. A machine
that slept shows as CLOCK_BOOTTIME running ahead of CLOCK_MONOTONIC.

What cannot be seen: a virtual machine whose clocks all stand still while it is paused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.core.samples import Window

EVERY_S = 0.05
# A shared machine takes a process off its core for a few hundredths of a second; that is no stall.
LEAST_STALL_S = 0.2
# Where Linux does not count the wait for a core, only what hardly any busy machine does is a stall.
_LEAST_STALL_UNCOUNTED_S = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The clocks of a process at one moment, in ns. `waited_ns` None: the system does not count it."""

    at_ns: int  # CLOCK_MONOTONIC
    computed_ns: int  # by this thread
    waited_ns: int | None  # by this thread, ready to run and without a core
    suspended_ns: int  # by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC


@dataclass(frozen=True, slots=True)
class Stall:
    """Between two looks the process stood still for `frozen_ns`, and the machine slept for `suspended_ns`."""

    from_ns: int
    to_ns: int
    frozen_ns: int
    suspended_ns: int


def stall_between(before: Reading, now: Reading, every_ns: int) -> Stall | None:
    """What cannot be explained of the time between two looks that should be `every_ns` apart."""
    explained_ns = every_ns + now.computed_ns - before.computed_ns
    least_s = _LEAST_STALL_UNCOUNTED_S
    if now.waited_ns is not None and before.waited_ns is not None:
        explained_ns += now.waited_ns - before.waited_ns
        least_s = LEAST_STALL_S
    frozen_ns = now.at_ns - before.at_ns - explained_ns
    suspended_ns = now.suspended_ns - before.suspended_ns
    frozen_ns = frozen_ns if frozen_ns >= least_s * 1e9 else 0
    suspended_ns = suspended_ns if suspended_ns >= LEAST_STALL_S * 1e9 else 0
    if not frozen_ns and not suspended_ns:
        return None
    return Stall(before.at_ns, now.at_ns, frozen_ns, suspended_ns)


def stalled_s(stalls: Iterable[Stall], window: Window) -> float:
    """How long a process stood still inside a window. A machine that sleeps adds nothing to the window."""
    total_ns = 0
    for stall in stalls:
        inside_ns = min(stall.to_ns, window.end_ns) - max(stall.from_ns, window.start_ns)
        if inside_ns > 0:
            total_ns += min(stall.frozen_ns, inside_ns) + stall.suspended_ns
    return total_ns / 1e9


@dataclass(slots=True)
class OwnClock:
    """The looks of one process and the stalls found by them, in the order of time."""

    stalls: list[Stall] = field(default_factory=list)
    _file: int = field(default_factory=lambda: _open_schedstat())
    _last: Reading | None = None

    def watch(self) -> None:
        """Look again and again; for a greenlet of its own, which somebody else ends."""
        import gevent  # only processes that make load need it

        while True:
            self.look()
            gevent.sleep(EVERY_S)

    def look(self) -> None:
        """Compare the clocks with those of the look before."""
        now = self._read()
        found = stall_between(self._last, now, int(EVERY_S * 1e9)) if self._last else None
        if found:
            self.stalls.append(found)
        self._last = now

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self) -> Reading:
        at_ns = time.monotonic_ns()
        suspended_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - at_ns
        return Reading(at_ns, time.thread_time_ns(), self._waited_ns(), suspended_ns)

    def _waited_ns(self) -> int | None:
        try:
            return int(os.pread(self._file, 100, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return None


def _open_schedstat() -> int:
    """Kept open, so that a process without open files can still look; -1 where the system has none."""
    try:
        return os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
