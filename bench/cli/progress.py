"""A sweep as somebody watches it: a live line on a terminal, plain lines anywhere else. All on stderr."""

from __future__ import annotations

from rich.console import Console
from rich.status import Status

from bench.analysis.summary import throughput_req_per_s
from bench.core.cell import Cell, ServerConfiguration
from bench.core.spec import PlannedTrial, describe
from bench.core.trial import Live, Trial


class ConsoleProgress:
    """Use as a context manager, so that the live line is cleared whatever happens."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._where = ""

    def __enter__(self) -> ConsoleProgress:
        if self.console.is_terminal:
            self._status = self.console.status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def configuring(self, server: ServerConfiguration) -> None:
        self._update(f"loading {server.key}")
        if self._status is None:
            self.say(f"loading {server.key}")

    def measuring(self, planned: PlannedTrial, done: int, total: int, seconds_left: float) -> None:
        left = (
            f"{seconds_left // 60:.0f} min {seconds_left % 60:.0f} s"
            if seconds_left >= 60
            else f"{seconds_left:.0f} s"
        )
        self._where = (
            f"[{done + 1}/{total}] {describe(planned.cell)}, repeat {planned.repeat + 1}; {left} left"
        )
        self._update(self._where)

    def live(self, planned: PlannedTrial, live: Live) -> None:
        images = live.rate_per_s * planned.cell.load.batch
        p99 = f", p99 {live.p99_ns / 1e6:.3g} ms" if live.p99_ns else ""
        self._update(f"{self._where}: {images:.4g} img/s{p99}")

    def measured(self, trial: Trial) -> None:
        if self._status is not None:
            return  # the table at the end has it; a line a trial would push it off the screen
        done = trial.samples.done_in(trial.window)
        rate = throughput_req_per_s(trial) * trial.cell.load.batch
        failed = f", {len(done.failed())} failed" if len(done.failed()) else ""
        self.say(f"{self._where}: {rate:.4g} img/s{failed}")

    def remark(self, cell: Cell, text: str) -> None:
        self.say(f"{describe(cell)}: {text}")

    def failed(self, cells: tuple[Cell, ...], reason: str) -> None:
        count = f"{len(cells)} cells" if len(cells) > 1 else describe(cells[0])
        self.say(f"not measured ({count}): {reason}")

    def _update(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text.replace("[", "\\["))
