"""A played cluster's names, for processes that its tests start with this folder on PYTHONPATH.

Loaded by every such Python at its start. $BENCH_TEST_NAMES is a JSON file: name -> address of this host.
"""

import _socket
import json
import os
from pathlib import Path

_ask = _socket.getaddrinfo


def _played(host, *rest, **more):
    names = json.loads(Path(os.environ["BENCH_TEST_NAMES"]).read_text())
    return _ask(names.get(host, host), *rest, **more)


if "BENCH_TEST_NAMES" in os.environ:
    _socket.getaddrinfo = _played
