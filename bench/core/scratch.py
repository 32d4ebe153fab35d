"""A folder for as long as a process lives; what killed ones left is removed when the next one starts."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core.errors import ToolError

# Names of our folders in the system's place for temporary ones begin so, and the owner's number follows.
PREFIX, WORKER_PREFIX = "bench-", "bench-worker-"
# Segments of memory that load processes share with a server.
SHARED_MEMORY, SEGMENTS = Path("/dev/shm"), "triton_bench_"


def claim(prefix: str) -> Path:
    """A fresh folder of this process, in the system's place for them, and none there of dead ones.

    Raises ToolError where there is no room for it.
    """
    remove_stale(prefix)
    return _claimed(prefix)[0]  # its lock is held until this process ends, however it does


@contextmanager
def folder() -> Iterator[Path]:
    """A fresh folder that is gone when the block ends. Raises ToolError where there is no room for it."""
    path, lock = _claimed(PREFIX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _claimed(prefix: str) -> tuple[Path, int]:
    """The folder, and the handle that holds its lock."""
    try:
        path = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    except OSError as error:
        where = error.filename or "The folder for temporary files"
        raise ToolError(
            f"{where} cannot be made ({error.strerror}): free some space there, or set TMPDIR to another "
            "folder."
        ) from error
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


def remove_stale(prefix: str) -> None:
    """Folders whose process is gone: no such process here, and nobody elsewhere holds the lock.

    A container with processes of its own may share the folder, so a number alone says nothing.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not _is_alive(int(owner)) and not is_held(folder):
            shutil.rmtree(folder, ignore_errors=True)  # another start may be removing it too


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # somebody else's
    return True


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of a file or folder; True also for what we may not open."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
