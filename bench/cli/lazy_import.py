"""A verb's function, imported when it is called: `--help` and completion stay fast.

Importing takes up to a second, and nothing is open yet: Ctrl-C then ends the process, where Python would
print a traceback, or a library would take it for its own failure.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType

from bench.core.errors import EXIT_INTERRUPTED


def verb(module: str, name: str) -> Callable[..., int]:
    """`name` of `bench.module`. Raises KeyboardInterrupt for no Ctrl-C before it returns."""
    before = signal.signal(signal.SIGINT, _end)
    try:
        found: Callable[..., int] = getattr(import_module(f"bench.{module}"), name)
    finally:
        signal.signal(signal.SIGINT, before)
    return found


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.stderr.write("Interrupted.\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)
