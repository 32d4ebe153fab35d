"""`locust -f` runs for days: nothing that it keeps grows with the number of requests.

In a process of its own, since importing Locust patches the world.
"""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import gc, json, sys, types
from locust import stats
from bench.loadgen.locust.locustfile import _open_session, register

def held_bytes(*roots):
    seen, waiting = {}, list(roots)
    skipped = (type, types.ModuleType, types.FunctionType, types.MethodType)
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, skipped):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, seen.values()))

register()
session, table, sizes = _open_session(), stats.RequestStats(use_response_times_cache=False), []
for part in range(2):
    for i in range(100_000):
        session.recorder.add(i, i, i + 1, 0)
        told = session.recorder.fail(f"answer {part} {i} was refused")
        table.log_request("HTTP", "m", 0.1 * 1.0001**i, 0)
        table.log_error("HTTP", "m", told)
    sizes.append(held_bytes(session.recorder, table.entries, table.errors))
print(json.dumps({"sizes": sizes, "requests": len(session.recorder), "messages": len(table.errors)}))
"""


def test_load_without_an_end_keeps_nothing_of_its_requests() -> None:
    command = [sys.executable, "-c", SCRIPT]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(said.stdout.splitlines()[-1])
    before, after = found["sizes"]
    assert found["requests"] == 200_000
    assert found["messages"] <= 101
    assert after < 2_000_000
    assert after - before < 20_000
