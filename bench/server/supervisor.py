"""Runs a tritonserver and makes sure that nothing of it outlives whoever asked for it.

A program of its own, standard library only:  supervisor.py SHM_PREFIX -- tritonserver ...
Its standard input is a pipe held open by the parent. When that closes - the parent stopped it, ended,
or was killed - the server is asked to end, then killed with all its stubs, and its shared memory removed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_S = 8.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_RUN = 127


def children(pid: int) -> list[int]:
    """All descendants; a stub whose server died has us for a parent, since we are the subreaper."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    except OSError:
        pass  # it ended while we looked
    return found


def end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()


def sweep_up(shm_prefix: str) -> None:
    """No stub, no zombie, no shared memory."""
    deadline = time.monotonic() + 2
    while (left := children(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
    for file in Path("/dev/shm").glob(f"{shm_prefix}*"):
        file.unlink(missing_ok=True)


def main() -> int:
    shm_prefix, command = sys.argv[1], sys.argv[3:]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # ours is a pipe that closes once the pid is read
            # If we are killed, so is the server; stubs end by themselves when their server does.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _CANNOT_RUN
    print(server.pid, flush=True)
    stopping = threading.Thread(target=end, args=(server,), daemon=True)
    signal.signal(signal.SIGTERM, lambda *_: stopping.start() if stopping.ident is None else None)
    threading.Thread(target=watch, args=(server,), daemon=True).start()
    code = server.wait()
    sweep_up(shm_prefix)
    return code if code >= 0 else 128 - code


def watch(server: subprocess.Popen[bytes]) -> None:
    """Unbuffered: a buffered read still under way would abort the interpreter when it ends."""
    while os.read(0, 1):
        pass
    end(server)


if __name__ == "__main__":
    sys.exit(main())
