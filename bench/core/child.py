"""What every process that we start is given: it is killed when we end, however we end."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PARENT_IS_DEAD = 127
_libc = ctypes.CDLL(None)


def dies_with_us() -> Callable[[], None]:
    """For `preexec_fn` of subprocess: the kernel kills the child when the thread that starts it ends.

    So the thread has to live as long as the child may. A child whose parent died before the kernel was told
    does not start. Linux only, as the suite is.
    """
    parent = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(_PARENT_IS_DEAD)

    return before_exec
