"""A tritonserver of ours that is started again after it has died."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from bench.core.errors import ServerStartFailed
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton

START_TRIES = 3
_DYING_S = 15.0  # a core dump, stubs that hold on; one that still does not answer hangs


class OwnTriton(Triton):
    """Its control API. `target` changes when it is started again, which may be on other ports."""

    def __init__(self, start: Callable[[], EmbeddedTriton], say: Callable[[str], None]) -> None:
        self._start, self._say = start, say
        self._running = start()
        super().__init__(self._running.target)

    def close(self) -> None:
        """Ends the server, too."""
        super().close()
        self._running.stop()

    def lost(self) -> str:
        if self._running.alive and self.live():
            return ""
        if not self._running.ends_within(_DYING_S):
            return "tritonserver ran, but answered nothing any more: its log may tell what it waits for."
        return self._running.why_dead()

    def revive(self) -> str:
        """Raises ServerStartFailed when it dies at its start every time. Its log so far is kept beside."""
        why = self.lost()
        if why:
            self._running.stop()
            _set_aside(self._running.log)
            self._say("tritonserver died: starting it again")
            self._running = self._started()
            self.target = self._running.target
        return why

    def _started(self) -> EmbeddedTriton:
        for attempt in itertools.count(1):
            try:
                return self._start()
            except ServerStartFailed as error:
                if attempt == START_TRIES:
                    raise ServerStartFailed(
                        f"tritonserver died, and {START_TRIES} times did not start again: {error}"
                    ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")


def _set_aside(log: Path) -> None:
    """tritonserver.log -> tritonserver-1.log, -2...: the next start writes its own."""
    names = (log.with_name(f"{log.stem}-{n}{log.suffix}") for n in itertools.count(1))
    log.rename(next(path for path in names if not path.exists()))
