"""A folder for as long as a process lives; what killed ones left is removed when the next one starts."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def claim(prefix: str) -> Path:
    """A fresh folder of this process, in the system's place for them, and none there of dead ones."""
    remove_stale(prefix)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    # Held until this process ends, however it does; never closed on purpose.
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
    return folder


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
