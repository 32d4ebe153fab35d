"""Runs a tritonserver and makes sure that nothing of it outlives whoever asked for it.

A program of its own, standard library only:  supervisor.py SHM_PREFIX -- tritonserver ...
Its standard input is a pipe held open by the parent. When that closes - the parent stopped it, ended,
or was killed - the server is asked to end, then killed with all its stubs, and its shared memory removed.

A guard, forked before the server is started, does the same when this process is killed. Both hold the lock of
/dev/shm/SHM_PREFIXclaim: when nobody holds it, both were killed, and the next start clears up (`leftovers`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_S = 8.0
SHM = Path("/dev/shm")
CLAIM = "claim"
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


def sweep_up(shm_prefix: str, guard: int) -> None:
    """No stub, no zombie, no shared memory; at last no guard."""
    deadline = time.monotonic() + 2
    while (left := set(children(os.getpid())) - {guard}) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
    remove_shared_memory(shm_prefix)
    os.kill(guard, signal.SIGKILL)
    os.waitpid(guard, 0)


def remove_shared_memory(shm_prefix: str) -> None:
    for file in SHM.glob(f"{shm_prefix}*"):
        file.unlink(missing_ok=True)


def claim(shm_prefix: str) -> None:
    """Lock this server's claim until this process and its guard have ended."""
    new = SHM / f"{shm_prefix}new"
    try:
        fcntl.flock(os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)
        new.rename(SHM / f"{shm_prefix}{CLAIM}")  # nobody sees it unlocked
    except OSError as error:
        print(f"{SHM} cannot be written: {error.strerror}", file=sys.stderr)


def start_guard(shm_prefix: str) -> int:
    """Fork the process that ends server and stubs when this one is killed. All of them are in our session."""
    ended, _kept_open_until_we_end = os.pipe()
    group = os.getpid()
    guard = os.fork()
    if guard:
        os.close(ended)
        return guard
    os.close(_kept_open_until_we_end)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.read(ended, 1)
    for _ in range(20):  # what is killed takes a moment to end
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            break
        remove_shared_memory(shm_prefix)
        time.sleep(0.1)
    remove_shared_memory(shm_prefix)
    os._exit(0)


def main() -> int:
    shm_prefix, command = sys.argv[1], sys.argv[3:]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    claim(shm_prefix)
    guard = start_guard(shm_prefix)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # ours is a pipe that closes once the pid is read
            # If we are killed, so is the server at once; the guard ends its stubs.
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        sweep_up(shm_prefix, guard)
        return _CANNOT_RUN
    print(server.pid, flush=True)
    stopping = threading.Thread(target=end, args=(server,), daemon=True)
    signal.signal(signal.SIGTERM, lambda *_: stopping.start() if stopping.ident is None else None)
    threading.Thread(target=watch, args=(server,), daemon=True).start()
    code = server.wait()
    sweep_up(shm_prefix, guard)
    return code if code >= 0 else 128 - code


def watch(server: subprocess.Popen[bytes]) -> None:
    """Unbuffered: a buffered read still under way would abort the interpreter when it ends."""
    while os.read(0, 1):
        pass
    end(server)


if __name__ == "__main__":
    sys.exit(main())
