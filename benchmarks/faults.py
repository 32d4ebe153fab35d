"""`python -m benchmarks.faults`: whole sweeps against every row of the table of faults, on a real Triton.

Each sweep is a process of its own. It has to end in time, with an exit code and without a traceback. No
process of it may take more memory than allowed, and where something was measured there is a report.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
import pandas as pd
import psutil
from rich.console import Console

from bench.core.cell import Protocol
from benchmarks.findings import Findings, Goal, Table, publish, versions
from benchmarks.rig import rig
from tests.faults.proxy import Play, Proxy, proxy
from tests.faults.table import CONTROL, ROWS

MODEL = "null_small"
MOST_S = 60.0
MOST_MIB = 512
# Where the control side is asked; a fault is played at one of them and all others answer as Triton does.
PATHS = {
    "server": "/v2 ",
    "metadata": f"/v2/models/{MODEL} ",
    "config": f"/v2/models/{MODEL}/config ",
    "statistics": "/stats ",
    "index": "/v2/repository/index ",
    "live": "/v2/health/live ",
    "model ready": f"/v2/models/{MODEL}/ready ",
    "metrics": "/metrics ",
}
_WORDS = "--batch 1 --concurrency 2 --repeats 1 --duration 1s --warmup 200ms --timeout 500ms"
ABOUT = (
    "This page shows what whole sweeps make of servers that misbehave. A proxy stands before a real Triton "
    "and plays one fault: in place of every answer to a request, or at one question of the control side. "
    "The rows are those of `tests/faults/table.py`. `make faults` runs them all as sweeps, and `make test` "
    "plays each of them to a single connection."
)


@dataclass(frozen=True, slots=True)
class Case:
    """One sweep: what is played, and at which path of HTTP, or to every call of gRPC ("")."""

    name: str
    protocol: Protocol
    path: str
    play: Play


@dataclass(frozen=True, slots=True)
class Ended:
    """How a sweep ended. `wrong`: what it did that no sweep may do; "" where nothing."""

    case: Case
    exit_code: int
    seconds: float
    most_mib: float
    verdict: str
    wrong: str


def cases() -> Iterator[Case]:
    """Every row of the table, for requests and for the control side."""
    for row in ROWS:
        path = "/infer" if row.protocol is Protocol.HTTP else ""
        yield Case(f"{row.protocol} request: {row.name}", row.protocol, path, row.play)
    for place, path in PATHS.items():
        for name, play in CONTROL.items():
            yield Case(f"{place}: {name}", Protocol.HTTP, path, play)


def measured(case: Case, http: Proxy, grpc: Proxy) -> Ended:
    """One sweep while the fault is played."""
    one = grpc if case.protocol is Protocol.GRPC else http
    one.path, one.play = case.path, case.play
    with tempfile.TemporaryDirectory(prefix="bench-faults-") as folder:
        out = Path(folder) / "run"
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "bench", "sweep", "--url", http.address, "--grpc-url", grpc.address]
        command += ["--metrics-url", f"http://{http.address}/metrics", "--model", MODEL, "--protocol"]
        command += [str(case.protocol), "--out", str(out), *_WORDS.split()]
        started = time.monotonic()
        with log.open("wb") as told:
            process = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
            most_mib = _watched(process)
        seconds = time.monotonic() - started
        one.play = None
        text = log.read_text(errors="replace")
        text += "".join(file.read_text(errors="replace") for file in out.glob("*.log"))
        cells = out / "cells.csv"
        verdict = str(pd.read_csv(cells)["verdict"].iloc[0]) if cells.exists() else "nothing measured"
        ended = Ended(case, process.returncode, seconds, most_mib, verdict, "")
        return replace(ended, wrong=_wrong(ended, text, out))


def _wrong(ended: Ended, text: str, out: Path) -> str:
    wrong = []
    if ended.seconds > MOST_S:
        wrong.append(f"took longer than {MOST_S:g} s")
    if ended.most_mib > MOST_MIB:
        wrong.append(f"a process took {ended.most_mib:.0f} MiB")
    if "Traceback" in text:
        wrong.append("a traceback")
    if ended.exit_code not in (0, 1, 2, 3, 4):
        wrong.append(f"exit code {ended.exit_code}")
    if ended.exit_code in (0, 1, 3) and not (out / "report.html").exists():
        wrong.append("no report")
    return ", ".join(wrong)


def _watched(process: subprocess.Popen[bytes]) -> float:
    """The most memory that one process of the sweep held, in MiB. Ends a sweep that outlives its limit."""
    most, deadline = 0, time.monotonic() + MOST_S + 5
    whole = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error):
            for one in (whole, *whole.children(recursive=True)):
                with suppress(psutil.Error):
                    most = max(most, one.memory_info().rss)
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.05)
    return most / 2**20


def _page(ends: list[Ended], triton: str) -> Findings:
    wrong = [end for end in ends if end.wrong]
    rows = tuple(
        (e.case.name, str(e.exit_code), e.verdict, f"{e.seconds:.1f}", f"{e.most_mib:.0f}", e.wrong or "-")
        for e in ends
    )
    columns = ("played", "exit code", "the cell", "seconds", "most MiB of a process", "wrong")
    held = "yes" if not wrong else "no"
    slowest, largest = max(e.seconds for e in ends), max(e.most_mib for e in ends)
    goals = (
        Goal(
            f"every sweep ends as it should within {MOST_S:g} s",
            f"{len(ends) - len(wrong)} of {len(ends)}",
            held,
        ),
        Goal(
            f"no process holds over {MOST_MIB} MiB",
            f"{largest:.0f} MiB",
            "yes" if largest <= MOST_MIB else "no",
        ),
        Goal("the slowest sweep", f"{slowest:.0f} s", "yes" if slowest <= MOST_S else "no"),
    )
    return Findings(
        name="faults",
        title="Faults",
        about=ABOUT,
        settings={"sweep": _WORDS},
        versions=versions(triton=triton),
        tables=(Table("Every row", columns, rows),),
        goals=goals,
        figures=[(e.case.name, e.exit_code, e.verdict, e.seconds, e.most_mib, e.wrong) for e in ends],
    )


@click.command()
@click.option("--only", default="", help="Only rows with this text in their names.")
@click.option("--every", default=1, show_default=True, help="Only each nth row.")
@click.option("--docs/--no-docs", default=True, show_default=True, help="Renew docs/results/faults.md.")
def main(only: str, every: int, docs: bool) -> None:
    """Run whole sweeps against every row of the table of faults. The exit code is 1 when one ends wrongly."""
    say = partial(Console(stderr=True, highlight=False).print, markup=False, soft_wrap=True)
    chosen = [case for case in cases() if only in case.name][::every]
    ends: list[Ended] = []
    with rig([MODEL]) as one:
        with (
            proxy(urlsplit(one.target.http_url).netloc) as http,
            proxy(one.target.grpc_address or "", is_http=False) as grpc,
        ):
            for number, case in enumerate(chosen, 1):
                ends.append(measured(case, http, grpc))
                say(f"{number}/{len(chosen)} {case.name}: {ends[-1].wrong or 'as it should'}")
        page = _page(ends, one.triton_version())
    publish(page, Console(width=160), docs=docs)
    if any(end.wrong for end in ends):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
