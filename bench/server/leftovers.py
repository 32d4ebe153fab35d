"""What killed processes of ours left on this machine, and what each verb and each start of a server removes.

Servers whose supervisor and guard were both killed leave stubs that wait for good, and shared memory; whether
the server's claim in /dev/shm is locked says whether somebody still looks after it, in whatever container.
Load processes leave a segment in /dev/shm, and verbs a temporary folder; both are locked by their owners.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from bench.core import scratch
from bench.core.scratch import SEGMENTS, SHARED_MEMORY, is_held
from bench.server.supervisor import CLAIM, remove_shared_memory


def remove_leftovers() -> None:
    """Remove what nobody looks after any more. What belongs to a living process, or another user, stays."""
    for claim in SHARED_MEMORY.glob(f"bench_*_{CLAIM}"):
        if not is_held(claim):
            shm_prefix = claim.name.removesuffix(CLAIM)
            for pid in _processes(shm_prefix):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            remove_shared_memory(shm_prefix)
    for segment in SHARED_MEMORY.glob(f"{SEGMENTS}*"):
        if not is_held(segment):
            segment.unlink(missing_ok=True)
    for prefix in (scratch.PREFIX, scratch.WORKER_PREFIX):
        scratch.remove_stale(prefix)


def _processes(shm_prefix: str) -> list[int]:
    """Tritonservers and stubs that were started with that prefix: it is among their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program, *words = entry.read_text(errors="replace").split("\0")
            if "triton" in Path(program).name and any(shm_prefix in word for word in words):
                found.append(int(entry.parent.name))
    return found
