"""The lock of a run folder: one process at a time measures into it, whatever verb it runs.

The lock is the kernel's (flock) on a file in the folder, so it ends with the process that holds it, however
that ends: a file that a dead process left is taken over. Where a file system has no locks, there is none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.core.errors import RunFolderError

NAME = ".bench.lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be, and removed again if nothing came into it.

    Raises RunFolderError that names the owner when another process holds it, or where it cannot be made.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(folder / NAME)
    except OSError as error:
        raise RunFolderError(
            f"--out {folder} cannot be written ({error.strerror}): choose another."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (
                folder / NAME
            ).unlink()  # before it is let go: whoever waits for it looks whether it is still there
        os.close(handle)
        with suppress(OSError):
            for place in made:
                place.rmdir()  # only what is empty


def _take(path: Path) -> int:
    """The handle of the locked file; closing it lets go. Raises RunFolderError where somebody holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            if error.errno in _HELD:
                os.close(handle)
                raise RunFolderError(
                    f"--out {path.parent}: {owner} is measuring into it; wait until it ends, or choose "
                    "another --name or --out."
                ) from error
        if _is_at(handle, path):  # the one before may have removed the file meanwhile
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return handle
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
