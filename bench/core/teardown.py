"""Undo something exactly once, however a block ends: done, failed, interrupted, or told to end.

The first SIGINT, SIGTERM or SIGHUP is a KeyboardInterrupt, at any moment of the block; from then on, and
while undoing, further ones are noted and change nothing. Between two lines of Python an interrupt can
still miss the block's own end: then the interpreter's undoes it.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Teardown:
    """A context manager around what `undo` undoes. `notice`: the line for an interrupt that has to wait."""

    def __init__(self, undo: Callable[[], None], notice: str) -> None:
        self._undo = undo
        self._notice = f"{notice}\n".encode()
        self._is_due = True
        self._before: dict[int, Any] = {}
        self.interrupted = False

    def __enter__(self) -> Teardown:
        atexit.register(self._once)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what `undo` raises."""
        try:
            self._once()
        finally:
            atexit.unregister(self._once)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _once(self) -> None:
        if self._is_due:
            self.interrupted, self._is_due = True, False
            self._undo()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            os.write(2, self._notice)  # the console may be in the middle of a line of its own
            return
        self.interrupted = True
        raise KeyboardInterrupt
