"""One perf_analyzer process: its own group, its output in files, its memory watched, its end certain."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.core.child import dies_with_us
from bench.core.errors import ToolError
from bench.core.trial import Plan

# After SIGINT perf_analyzer waits for the requests in flight. After this time it gets SIGKILL.
_GRACE_S = 3.0
# A trial keeps so many characters of stdout, and as many of stderr.
_MOST_KEPT = 20_000
_LEAST_MEMORY = 1 << 30
# A request in flight takes up to so many copies of its tensors: input, message, answer, and unused memory
# between.
_COPIES = 16
_OPEN_LOOP_IN_FLIGHT = 32
_MOST_FILE_BYTES = 2 << 30
_PROXIES = re.compile(r"(https?|all|grpc|no)_proxy", re.I)


def memory_limit_bytes(plan: Plan, request_bytes: int) -> int:
    """What it may hold: a share for each request in flight, far above what 2.43 takes (see docs)."""
    in_flight = plan.cell.load.concurrency or _OPEN_LOOP_IN_FLIGHT
    wanted = _LEAST_MEMORY + _COPIES * in_flight * request_bytes
    return min(wanted, psutil.virtual_memory().available // 2)


class PerfAnalyzerProcess:
    """Use as a context manager: whatever happens, nothing of it is left running."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, memory_limit_bytes: int
    ) -> None:
        self._stdout, self._stderr = folder / "stdout.txt", folder / "stderr.txt"
        self._limit_bytes = memory_limit_bytes
        self.max_rss_bytes = 0
        self.started_ns = time.monotonic_ns()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._popen = subprocess.Popen(
                command,
                env={name: value for name, value in environment.items() if not _PROXIES.fullmatch(name)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                preexec_fn=dies_with_us(),
            )
        self._limit_files()

    def __enter__(self) -> PerfAnalyzerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """Exit code, or minus the signal that killed it; None while it runs."""
        return self._popen.poll()

    def check(self) -> None:
        """To be called several times a second. Raises ToolError when it takes too much memory."""
        self.max_rss_bytes = max(self.max_rss_bytes, _peak_rss_bytes(self.pid))
        if self.max_rss_bytes > self._limit_bytes and self.code is None:
            self._signal(signal.SIGKILL)
            raise ToolError(
                f"perf_analyzer was stopped at {self.max_rss_bytes / 2**30:.1f} GiB of memory. Versions from "
                "2.44 on keep every answer's tensors: use --shared-memory system, a shorter --duration, or "
                "2.43.0; other versions keep what is in flight: take a smaller load."
            )

    def wait(self, until_ns: int) -> bool:
        """Whether it has ended by then. Raises as `check` does."""
        while self.code is None:
            self.check()
            if time.monotonic_ns() >= until_ns:
                return False
            time.sleep(0.02)  # `check` looks at memory meanwhile, so the end alone cannot be waited for
        return True

    def stop(self) -> None:
        """SIGINT to its group, then SIGKILL. Nothing to do when it has ended."""
        if self.code is not None:
            return
        self._signal(signal.SIGINT)
        try:
            self._popen.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait()

    def cpu_s(self) -> float:
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def output(self) -> tuple[str, str]:
        """(stdout, stderr), their beginning and end where they are long."""
        return _bounded(self._stdout), _bounded(self._stderr)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _limit_files(self) -> None:
        """An export with all tensors in it must not fill the disk. Linux only; a guard, not a need."""
        with suppress(psutil.Error, OSError, AttributeError):
            psutil.Process(self.pid).rlimit(psutil.RLIMIT_FSIZE, (_MOST_FILE_BYTES, _MOST_FILE_BYTES))


def _peak_rss_bytes(pid: int) -> int:
    """The most it ever held, as the kernel counts; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _bounded(path: Path) -> str:
    text = path.read_text(errors="replace")
    half = _MOST_KEPT // 2
    return text if len(text) <= _MOST_KEPT else f"{text[:half]}\n[...]\n{text[-half:]}"
