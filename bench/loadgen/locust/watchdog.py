"""The last resort against a trial that does not end: its workers are ended, and whoever waits goes on.

Each step of a trial has a time limit of its own. The watchdog is for what none of them foresees, such as a
command that a stopped worker never reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Watchdog:
    """Calls `end` once, from a thread of its own, when its block takes longer than `limit_s`."""

    def __init__(self, limit_s: float, end: Callable[[], None]) -> None:
        self.has_bitten = False
        self._end = end
        self._timer = threading.Timer(limit_s, self._bite)
        self._timer.daemon = True

    def __enter__(self) -> Watchdog:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _bite(self) -> None:
        self.has_bitten = True
        self._end()
