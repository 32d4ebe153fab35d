"""What is made is undone once, whatever happens, and no interrupt comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bench.core.teardown import Teardown

SCRIPT = """
import os, signal, sys
from bench.core.teardown import Teardown
def undo():
    os.kill(os.getpid(), signal.SIGINT)
    print("undone", flush=True)
try:
    with Teardown(undo, "wait"):
        {block}
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("says", "block", "code"),
    [
        ("done, with an interrupt while undoing", "pass", 0),
        ("interrupted, twice", "os.kill(os.getpid(), signal.SIGINT)", 130),
        ("told to end", "os.kill(os.getpid(), signal.SIGTERM)", 130),
        ("failed", "raise SystemExit(4)", 4),
    ],
)
def test_undone_once(says: str, block: str, code: int) -> None:
    command = [sys.executable, "-c", SCRIPT.format(block=block)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (code, "undone\n"), f"{says}: {done.stderr}"
    assert "wait" in done.stderr


def test_an_interrupt_that_misses_the_block_is_undone_at_the_interpreters_end() -> None:
    """A context manager that was entered, and whose exit never got registered."""
    script = "from bench.core.teardown import Teardown\nTeardown(lambda: print('undone'), '').__enter__()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout == "undone\n"


def test_handlers_are_those_of_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Teardown(lambda: None, ""):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
