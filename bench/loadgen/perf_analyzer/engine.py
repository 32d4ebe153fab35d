"""The second engine: one load level of perf_analyzer, as a trial.

perf_analyzer runs three windows over warm-up, window and tail. Ours lies inside them, from one reading
of the server's counters to another, so it means what it means with the other engine; requests come from
the profile export. docs/perf_analyzer.md tells what it counts differently.
"""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.core.errors import ToolError, Unreachable
from bench.core.samples import Window
from bench.core.target import Target
from bench.core.trial import Generator, Live, Plan, Served, Trial
from bench.loadgen.perf_analyzer import export as export
from bench.loadgen.perf_analyzer.command import (
    Files,
    command,
    masked,
    tape,
    without_secrets,
    write_inputs,
    write_intervals,
)
from bench.loadgen.perf_analyzer.findings import EXIT_EMPTY_WINDOW, EXIT_UNSTABLE, Facts, explain, findings
from bench.loadgen.perf_analyzer.install import PerfAnalyzer
from bench.loadgen.perf_analyzer.process import PerfAnalyzerProcess, memory_limit_bytes
from bench.loadgen.warmup import has_enough, opening, phase_s
from bench.protocols.routes import service_for
from bench.server.control import Snapshot
from bench.server.fleet import control_of

OnLive = Callable[[Live], None]

# perf_analyzer needs this long to read its input, ask for the model's metadata and start its threads.
_START_S = 0.5
# The load of a closed loop goes on after the window for this share of it, and at least so long: the requests
# that were in flight at the window's end are in the export only when their answers come before the load ends.
_TAIL_SHARE, _LEAST_TAIL_S = 0.3, 0.5
# The load of an open loop goes on for as long as late answers are waited for, but no longer than this.
_MOST_TAIL_S = 5.0
_POLL_NS = 50_000_000
_LIVE_EVERY_NS = 1_000_000_000
# After its load perf_analyzer waits for answers in flight and writes its files; it is killed after this time.
_END_S = 30.0
# When a window saw no answer, or too few of each user, the trial is measured again, with all its times
# multiplied by the next of these.
_STRETCHES = (1, 4, 16)
_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one attempt, in seconds."""

    warmup_s: float
    duration_s: float
    tail_s: float  # the export has no answer that comes after it

    @classmethod
    def of(cls, plan: Plan, stretch: int) -> Timing:
        open_loop = plan.cell.load.is_open_loop
        tail_s = (
            min(plan.drain_s, _MOST_TAIL_S, 1 + 0.2 * plan.duration_s)
            if open_loop
            else max(_LEAST_TAIL_S, _TAIL_SHARE * plan.duration_s)
        )
        return cls(plan.warmup_s * stretch, plan.duration_s * stretch, tail_s * stretch)

    @property
    def span_s(self) -> float:
        return _START_S + self.warmup_s + self.duration_s + self.tail_s


class _TooShort(Exception):
    """A window without an answer, for which perf_analyzer gives no numbers, or with too few of each user."""


class PerfAnalyzerEngine:
    """perf_analyzer as a `loadgen.engine.Engine`: one process a trial.

    `tool`: the binary. `folder`: scratch files go below it, and are removed after each trial.
    """

    def __init__(self, tool: PerfAnalyzer, folder: Path) -> None:
        self._tool, self._folder = tool, folder
        self._pids: set[int] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process that runs now, if there is one."""
        return tuple(self._pids)

    def close(self) -> None:
        """Nothing is left of a trial that has ended."""

    def measure(self, plan: Plan, target: Target, served: Served, on_live: OnLive = lambda _: None) -> Trial:
        """One trial of `plan.cell`.

        Raises TargetError when requests fail or the server is gone, ToolError when perf_analyzer fails.
        """
        began_s = time.monotonic()
        for stretch in _STRETCHES:
            spent_s, span_s = time.monotonic() - began_s, Timing.of(plan, stretch).span_s
            if plan.limit_s is not None and spent_s + span_s > plan.limit_s:
                raise ToolError(
                    f"The trial would take {spent_s + span_s:.0f} s, longer than --trial-timeout: raise it, "
                    "or use a shorter --duration."
                )
            with tempfile.TemporaryDirectory(prefix="perf-analyzer-", dir=self._folder) as scratch:
                files = Files(Path(scratch))
                attempt = _Attempt(plan, target, served, self._tool, files, stretch, on_live, self._pids)
                try:
                    return attempt.run()
                except _TooShort:
                    continue
        raise explain(EXIT_EMPTY_WINDOW, "No valid requests recorded")


class _Attempt:
    """One process, from its files to a trial."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        served: Served,
        tool: PerfAnalyzer,
        files: Files,
        stretch: int,
        on_live: OnLive,
        pids: set[int],
    ) -> None:
        self._pids = pids
        self._plan, self._target, self._tool, self._files = plan, target, tool, files
        self._timing = Timing.of(plan, stretch)
        self._stretch = stretch
        self._may_grow = stretch < _STRETCHES[-1]
        self._on_live = on_live
        request_bytes = write_inputs(plan, served, files)
        self._words = command(tool.binary, plan, target, served, files, self._timing.span_s, request_bytes)
        self._memory_limit_bytes = memory_limit_bytes(plan, request_bytes)
        self._due_ns = tape(plan, self._timing.span_s + 5) if plan.cell.load.is_open_loop else None
        if self._due_ns is not None:
            write_intervals(self._due_ns, files)
        self._control = control_of(service_for(target, plan.cell.load.protocol))

    def run(self) -> Trial:
        """Raises _TooShort when the window was too short for this server."""
        try:
            before = self._statistics()
            offset_ns = _epoch_offset_ns()
            with self._process() as process, self._counted(process.pid):
                opened = self._open(process, before)
                cpu_s = process.cpu_s()
                closed = self._close(process, before, opened)
                cpu_s = process.cpu_s() - cpu_s
                self._end(process)
                level = self._level(process, before)
                return self._trial(process, level, opened, closed, cpu_s, offset_ns)
        finally:
            self._control.close()

    def _process(self) -> PerfAnalyzerProcess:
        return PerfAnalyzerProcess(
            self._words, self._tool.environment, self._files.folder, self._memory_limit_bytes
        )

    @contextmanager
    def _counted(self, pid: int) -> Iterator[None]:
        """Among the engine's processes as long as it runs."""
        self._pids.add(pid)
        try:
            yield
        finally:
            self._pids.discard(pid)

    def _open(self, process: PerfAnalyzerProcess, before: Snapshot) -> Snapshot:
        """Wait for the end of the warm-up. Raises _TooShort when it leaves no time for a window."""
        begins = opening(self._plan.cell.load, _START_S + self._timing.warmup_s)
        # perf_analyzer gives no numbers without an answer, so an open loop too waits for the first one.
        begins = replace(begins, ended=max(1, begins.ended))
        open_ns = process.started_ns + int(begins.at_s * 1e9)
        late_ns = self._close_ns(process) - int(self._timing.duration_s / 2 * 1e9)
        while True:
            if process.wait(max(open_ns, time.monotonic_ns() + _POLL_NS)):
                raise self._failure(process, before)
            now = self._statistics()
            elapsed_s = (now.at_ns - process.started_ns) / 1e9
            ended = (now - before).success_count
            if begins.is_reached(elapsed_s, ended):
                waits_s = phase_s(self._plan.cell.load, self._plan.seed, elapsed_s, ended)
                if not waits_s:
                    return now
                if process.wait(now.at_ns + int(waits_s * 1e9)):
                    raise self._failure(process, before)
                return self._statistics()
            if now.at_ns > late_ns:
                raise _TooShort

    def _close(self, process: PerfAnalyzerProcess, before: Snapshot, opened: Snapshot) -> Snapshot:
        close_ns = min(self._close_ns(process), opened.at_ns + int(self._timing.duration_s * 1e9))
        latest = opened
        while not process.wait(min(close_ns, time.monotonic_ns() + _LIVE_EVERY_NS)):
            now = self._statistics()
            if now.at_ns >= close_ns:
                answers = (now - opened).success_count
                if self._may_grow and not has_enough(self._plan.cell.load, answers):
                    raise _TooShort
                return now
            self._show(process, before, latest, now)
            latest = now
        raise self._failure(process, before)

    def _close_ns(self, process: PerfAnalyzerProcess) -> int:
        return process.started_ns + int((self._timing.span_s - self._timing.tail_s) * 1e9)

    def _show(self, process: PerfAnalyzerProcess, before: Snapshot, latest: Snapshot, now: Snapshot) -> None:
        self._on_live(
            Live(
                seconds=(now.at_ns - process.started_ns) / 1e9,
                requests=(now - before).success_count,
                rate_per_s=(now - latest).success_count / ((now.at_ns - latest.at_ns) / 1e9),
                p99_ns=0.0,
            )
        )

    def _end(self, process: PerfAnalyzerProcess) -> None:
        until_ns = process.started_ns + int((self._timing.span_s + _END_S) * 1e9)
        if not process.wait(until_ns):
            raise ToolError(
                f"perf_analyzer was killed: {_END_S:g} s after its load it still waited for answers or wrote "
                "its export. Take a smaller load, or raise what the server can do."
            )

    def _level(self, process: PerfAnalyzerProcess, before: Snapshot) -> export.Level:
        if process.code not in (0, EXIT_UNSTABLE) or not self._files.export.exists():
            raise self._failure(process, before)
        with self._files.export.open("rb") as file:
            return export.read_export(iter(lambda: file.read(_CHUNK), b""))[-1]

    def _failure(self, process: PerfAnalyzerProcess, before: Snapshot) -> Exception:
        """Why it ended without numbers."""
        code = process.code or 0
        if code == EXIT_EMPTY_WINDOW:
            return _TooShort()
        stdout, stderr = (without_secrets(text, self._target) for text in process.output())
        error = explain(code, f"{stderr}\n{stdout}", shlex.join(masked(self._words, self._target)))
        try:
            counts = self._statistics() - before
        except Unreachable as gone:
            return Unreachable(
                f"The server went away during the trial. {gone} perf_analyzer's account: {error}"
            )
        requests = counts.success_count + counts.fail_count
        return (
            type(error)(f"{error} (The server had counted {requests} requests by then.)")
            if requests
            else error
        )

    def _statistics(self) -> Snapshot:
        return self._control.statistics(self._plan.cell.server.model)

    def _trial(
        self,
        process: PerfAnalyzerProcess,
        level: export.Level,
        opened: Snapshot,
        closed: Snapshot,
        cpu_s: float,
        offset_ns: int,
    ) -> Trial:
        start_ns, *_, end_ns = (at - offset_ns for at in level.boundaries_ns)
        window = Window(opened.at_ns, min(closed.at_ns, end_ns))
        stdout, stderr = (without_secrets(text, self._target) for text in process.output())
        row = self._row()
        facts = Facts(
            plan=self._plan,
            tool=self._tool,
            level=level,
            window=Window(window.start_ns + offset_ns, window.end_ns + offset_ns),
            code=process.code or 0,
            row=row,
            said=stdout + "\n" + stderr,
            tail_s=self._timing.tail_s,
            due=self._due(window.start_ns - start_ns, window.end_ns - start_ns),
            stretch=self._stretch,
            clock_moved_ns=_epoch_offset_ns() - offset_ns,
            max_rss_bytes=process.max_rss_bytes,
        )
        return Trial(
            plan=self._plan,
            window=window,
            samples=level.samples(offset_ns),
            errors={},
            generator=Generator(workers=1, cpu_s=(max(0.0, cpu_s),), max_rss_bytes=process.max_rss_bytes),
            counters=closed - opened,
            planned=self._due(0, window.end_ns - start_ns),
            findings=findings(facts),
            engine={
                "name": "perf_analyzer",
                "version": self._tool.version,
                "origin": self._tool.origin,
                "sha256": self._tool.sha256,
                "command": shlex.join(masked(self._words, self._target)),
                "exit_code": str(process.code),
                "csv": json.dumps(row),
                "stdout": stdout,
                "stderr": stderr,
            },
        )

    def _due(self, from_ns: int, to_ns: int) -> int | None:
        """Arrivals of the tape between two times after the load's start; None in a closed loop."""
        tape_ns = self._due_ns
        return None if tape_ns is None else int(((tape_ns >= from_ns) & (tape_ns < to_ns)).sum())

    def _row(self) -> dict[str, str]:
        """The CSV's row: its client/server split, in microseconds. {} when it wrote none (unstable)."""
        if not self._files.report.exists():
            return {}
        rows = export.read_csv(self._files.report.read_text(errors="replace"))
        return rows[-1] if rows else {}


def _epoch_offset_ns() -> int:
    """Epoch clock minus monotonic clock; of several readings the least disturbed."""
    readings = []
    for _ in range(9):
        before = time.monotonic_ns()
        epoch = time.time_ns()
        after = time.monotonic_ns()
        readings.append((after - before, epoch - (before + after) // 2))
    return min(readings)[1]
