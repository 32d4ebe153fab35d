"""A child is killed when its parent ends, however busy or stopped it is."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil

from tests.support.waiting import until

PARENT = """
import subprocess, time
from bench.core.child import dies_with_us
child = subprocess.Popen(["sleep", "60"], preexec_fn=dies_with_us())
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_dies_with_a_killed_parent_even_when_it_is_stopped() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        child.send_signal(signal.SIGSTOP)
        parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20)
