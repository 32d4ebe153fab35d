"""Waiting in tests: on a condition, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(holds: Callable[[], bool], within_s: float = 60, why: Callable[[], str] = str) -> None:
    """Return as soon as `holds`; fail with `why` when it never does. For what nobody sends word of."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {why()}"
        time.sleep(0.02)
