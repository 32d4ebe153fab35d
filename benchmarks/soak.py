"""`python -m benchmarks.soak --minutes 30`: one long sweep, and whether anything grows or gets late."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import psutil
from rich.console import Console

from bench.core.run_folder import RunFolder
from benchmarks.findings import Findings, Goal, Table, publish, versions

RATE_PER_S = 200
_EVERY_S = 2.0
# Memory is taken while a process starts and while the results are merged. Growth is of the time between.
_FROM, _TO = 0.3, 0.85
# The record of a request is four numbers of 8 bytes. An array grows by copying, so it may hold twice that.
RECORD_BYTES_PER_S = RATE_PER_S * 4 * 8 * 2
MOST_SLOPE_BYTES_PER_S = RECORD_BYTES_PER_S + 20_000
MOST_DRIFT_MS = 0.5
ABOUT = (
    "This page shows whether anything grows in a long run: one open loop on the real engine and a real "
    "Triton. Growth is the slope of a process's resident memory between 30 and 85 % of the run. A "
    "load-generating process keeps four numbers a request until the trial ends, which the goal allows. "
    "Lateness is how long after its intended moment a request was sent; its drift is the last quarter's "
    "median less the second's."
)


@dataclass(frozen=True, slots=True)
class Look:
    """All processes of a sweep at one moment. Memory in bytes, by role."""

    at_s: float
    rss_bytes: Mapping[str, int]
    descriptors: Mapping[str, int]


def looks(process: subprocess.Popen[bytes]) -> Iterator[Look]:
    """A look every two seconds for as long as the sweep runs."""
    started, whole = time.monotonic(), psutil.Process(process.pid)
    while process.poll() is None:
        rss: dict[str, int] = defaultdict(int)
        descriptors: dict[str, int] = defaultdict(int)
        with suppress(psutil.Error):
            for one in (whole, *whole.children(recursive=True)):
                with suppress(psutil.Error):
                    name = _role(one.cmdline())
                    rss[name] += one.memory_info().rss
                    descriptors[name] += one.num_fds()
        yield Look(time.monotonic() - started, rss, descriptors)
        time.sleep(_EVERY_S)


def _role(words: Sequence[str]) -> str:
    text = " ".join(words)
    for part, role in (
        ("triton_python_backend_stub", "Python stub"),
        ("tritonserver", "tritonserver"),
        ("worker_process", "load worker"),
        ("locust", "load worker"),
    ):
        if part in text:
            return role
    return "bench"


def slope_per_s(looks: Sequence[Look], values: Sequence[int]) -> float:
    """Least squares over the time in which nothing starts or ends; nan where too few looks were taken."""
    part = slice(int(len(looks) * _FROM), int(len(looks) * _TO))
    if len(looks[part]) < 3:
        return float("nan")
    return float(np.polyfit([look.at_s for look in looks[part]], values[part], 1)[0])


def lateness_ms(out: Path) -> tuple[float, float]:
    """Medians of the second and the last quarter of the only trial, in ms."""
    trial = next(iter(RunFolder.open(out).trials()))
    late = (trial.samples.sent_ns - trial.samples.intended_ns) / 1e6
    quarter = len(late) // 4
    return float(np.median(late[quarter : 2 * quarter])), float(np.median(late[-quarter:]))


def soak(minutes: float) -> Findings:
    """One sweep of so many minutes, looked at all the time."""
    words = ["--model", "null_small", "--rate", f"{RATE_PER_S}/s", "--duration", f"{minutes * 60:.0f}s"]
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "bench", "sweep", *words, "--repeats", "1", "--out", str(out)]
        with (Path(folder) / "log").open("wb") as told:
            process = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
            seen = list(looks(process))
        before_ms, after_ms = lateness_ms(out)
        disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        requests = len(next(iter(RunFolder.open(out).trials())).samples)
    return _page(minutes, seen, (before_ms, after_ms), disk, requests, process.returncode)


def _page(
    minutes: float, seen: Sequence[Look], late_ms: tuple[float, float], disk: int, requests: int, code: int
) -> Findings:
    roles = sorted({role for look in seen for role in look.rss_bytes})
    rows, slopes = [], {}
    for role in roles:
        there = [look for look in seen if role in look.rss_bytes]
        slopes[role] = slope_per_s(there, [look.rss_bytes[role] for look in there])
        grown = slope_per_s(there, [look.descriptors[role] for look in there])
        most = max(look.rss_bytes[role] for look in there) / 2**20
        rows.append((role, f"{most:.0f}", f"{slopes[role] / 1024:+.1f}", f"{grown * 60:+.2f}"))
    steepest = max(slopes.values())
    drift_ms = late_ms[1] - late_ms[0]
    goals = (
        Goal("the sweep ends with exit code 0", str(code), "yes" if code == 0 else "no"),
        Goal(
            f"no process grows by more than {MOST_SLOPE_BYTES_PER_S / 1024:.0f} KiB/s",
            f"{steepest / 1024:.1f} KiB/s",
            "yes" if steepest <= MOST_SLOPE_BYTES_PER_S else "no",
        ),
        Goal(
            f"the median lateness drifts by less than {MOST_DRIFT_MS:g} ms",
            f"{drift_ms:+.3f} ms",
            "yes" if abs(drift_ms) < MOST_DRIFT_MS else "no",
        ),
    )
    columns = ("process", "most MiB", "KiB/s", "descriptors a minute")
    about_run = f"{requests:,} requests; the run folder takes {disk / 2**20:.1f} MiB."
    return Findings(
        name="soak",
        title="Soak",
        about=ABOUT,
        settings={"minutes": minutes, "rate_per_s": RATE_PER_S, "cpus": os.cpu_count()},
        versions=versions(),
        tables=(Table("Processes", columns, tuple(rows), about_run),),
        goals=goals,
        figures={
            "slopes_bytes_per_s": slopes,
            "lateness_ms": late_ms,
            "disk_bytes": disk,
            "requests": requests,
        },
    )


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="Length of the run.")
@click.option("--docs/--no-docs", default=True, show_default=True, help="Renew docs/results/soak.md.")
def main(minutes: float, docs: bool) -> None:
    """Look for growth in one long run. The exit code is 1 when a goal is missed."""
    say = partial(Console(stderr=True, highlight=False).print, markup=False, soft_wrap=True)
    say(f"{minutes:g} minutes at {RATE_PER_S}/s")
    page = soak(minutes)
    publish(page, Console(width=160), docs=docs)
    if any(goal.met == "no" for goal in page.goals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
