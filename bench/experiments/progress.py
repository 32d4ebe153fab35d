"""What an experiment tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Interface

from bench.core.cell import Cell, ServerConfiguration
from bench.core.spec import PlannedTrial
from bench.core.trial import Live, Trial

Say = Callable[[str], None]  # prints one line for the person who watches


class Progress(Interface):
    """Somebody who watches. Each call says what begins or has just happened."""

    def configuring(self, server: ServerConfiguration) -> None: ...
    def measuring(self, planned: PlannedTrial, done: int, total: int, seconds_left: float) -> None: ...
    def live(self, planned: PlannedTrial, live: Live) -> None: ...
    def measured(self, trial: Trial) -> None: ...
    def failed(self, cells: tuple[Cell, ...], reason: str) -> None: ...
