"""`bench worker`: becomes a load-generating process for a sweep on another machine."""

from __future__ import annotations

import os
import sys

from bench.cli.values import Values

_PROCESS = "bench.loadgen.locust.remote_worker_process"


def run(values: Values) -> int:
    """Does not return: the worker takes the place of this process."""
    values.mistakes.check()
    host, port = values["master"]
    os.execv(sys.executable, [sys.executable, "-m", _PROCESS, host, str(port)])
