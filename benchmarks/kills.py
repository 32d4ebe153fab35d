"""`python -m benchmarks.kills`: end every verb at seeded moments, and look at what is left.

Nothing may be left: no process, no shared memory, and no scratch folder once another verb has started. What
was measured before the signal stays readable, and `--resume` completes a sweep with the cells asked for.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import pandas as pd
import psutil
from rich.console import Console

from benchmarks.findings import Findings, Goal, Table, publish, versions

# Every process of a verb inherits this variable, by which those that are left are found.
_MARK = "BENCH_KILL_MARK"
# A verb that was told to end, and all that it started, is gone after so long.
_ENDS_S = 30.0
_SHORT = "--duration 500ms --warmup 100ms"
_DELAY = "sweep --model delay"
_SHARED = "--shared-memory system --concurrency 2"
_VARIANTS = "--variant a=delay_ms=10 --variant b=delay_ms=12"
_AXES = "--concurrency 1,2 --instances 1 --max-batch 8 --max-queue-delay off"
# Name -> words, whether it can be resumed, and about how long it runs on two cores.
VICTIMS: dict[str, tuple[str, bool, float]] = {
    "sweep": (f"{_DELAY} --batch 1,2 --concurrency 1,2 --repeats 2 {_SHORT}", True, 14.0),
    "workers": (f"{_DELAY} --concurrency 2,4 --processes 2 --repeats 2 {_SHORT}", True, 12.0),
    "shared memory": (f"sweep --model null_small {_SHARED} --repeats 3 {_SHORT}", True, 9.0),
    "instances": (f"{_DELAY} --instances 1,2 --concurrency 2 --repeats 2 {_SHORT}", True, 12.0),
    "variants": (f"{_DELAY} --concurrency 1 --repeats 3 {_VARIANTS} {_SHORT}", False, 14.0),
    "search": ("search --model delay --slo p90=200ms --warmup 100ms", False, 20.0),
    "tune": (f"tune --model delay --slo p50=500ms {_AXES} {_SHORT}", False, 15.0),
    "ceiling": ("ceiling --vit tiny --batch 1", False, 12.0),
    "serve": ("serve --model delay --http-port 0 --grpc-port 0 --metrics-port 0", False, 8.0),
}
SIGNALS: dict[str, tuple[tuple[signal.Signals, ...], int]] = {
    "SIGKILL": ((signal.SIGKILL,), 50),
    "SIGINT": ((signal.SIGINT,), 20),
    "SIGINT twice": ((signal.SIGINT, signal.SIGINT), 20),
    "SIGTERM": ((signal.SIGTERM,), 20),
    "SIGHUP": ((signal.SIGHUP,), 20),
}
ABOUT = (
    "This page shows what is left when a verb of `bench` is ended at a random moment. Each verb runs as a "
    "process of its own against an embedded Triton; the moments are drawn with a seed, over the time that "
    "the verb takes. Afterwards every process, every file in /dev/shm and every scratch folder is looked "
    "for (those of a SIGKILL after the next start, which sweeps them), the run folder is reported, and a "
    "sweep is resumed. `make kills` runs it."
)


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill. `wrong`: what was left or lost; "" where nothing."""

    victim: str
    signals: str
    after_s: float
    exit_code: int
    wrong: str


def plan(seed: int, share: float) -> Iterator[tuple[str, str, float]]:
    """(victim, signals, moment in seconds) of every kill, in turn over the victims."""
    draw = random.Random(seed)
    names = list(VICTIMS)
    for kind, (_, count) in SIGNALS.items():
        for number in range(max(1, round(count * share))):
            victim = names[number % len(names)]
            yield victim, kind, draw.uniform(0.1, VICTIMS[victim][2])


def kill(victim: str, kind: str, after_s: float) -> Killed:
    """Run one victim, end it, and look at what is left."""
    words, can_resume, _ = VICTIMS[victim]
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        scratch = Path(folder) / "tmp"
        scratch.mkdir()
        out = Path(folder) / "run"
        mark = uuid.uuid4().hex
        environment = {**os.environ, _MARK: mark, "TMPDIR": str(scratch)}
        run = partial(_bench, environment=environment, log=Path(folder) / "log")
        where = [] if victim in ("serve", "ceiling") else ["--out", str(out)]
        process = run([*words.split(), *where])
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        pids = {str(one.pid) for one in _marked(mark)}
        for one in SIGNALS[kind][0]:
            with suppress(ProcessLookupError):
                process.send_signal(one)
            time.sleep(0.1)
        wrong = [] if _has_ended(process) else ["it went on"]
        wrong += [f"left running: {name}" for name in _left(mark)]
        if out.exists():
            wrong += _unreadable(run, out)
            if can_resume:
                wrong += _not_resumed(run, [*words.split(), "--out", str(out)], out)
        if kind == "SIGKILL":
            run(["doctor"]).wait()
        # The names of shared memory hold the number of the process that asked for it.
        kept = (name for name in os.listdir("/dev/shm") if pids & set(re.findall(r"\d+", name)))
        wrong += [f"in /dev/shm: {name}" for name in kept]
        # The log of a server that was kept in the foreground stays for whoever looks why it ended.
        files = (file.name for file in scratch.iterdir() if not file.name.startswith("bench-serve-"))
        wrong += [f"in the scratch folder: {name}" for name in files]
        text = (Path(folder) / "log").read_text(errors="replace")
        wrong += ["a traceback"] if "Traceback" in text else []
    return Killed(victim, kind, after_s, int(process.returncode), "; ".join(wrong))


def _bench(words: Sequence[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as told:
        command = [sys.executable, "-m", "bench", *words]
        return subprocess.Popen(command, stdout=told, stderr=told, env=environment, start_new_session=True)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_ENDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _left(mark: str) -> list[str]:
    """Command lines of what still runs once it had the time to end. They are ended here."""
    deadline = time.monotonic() + _ENDS_S
    while (found := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = [" ".join(one.info["cmdline"] or [one.info["name"]])[:80] for one in found]
    for one in found:
        with suppress(psutil.Error):
            one.kill()
    return names


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter(["cmdline", "name", "status"]):
        with suppress(psutil.Error):
            if one.info["status"] != psutil.STATUS_ZOMBIE and one.environ().get(_MARK) == mark:
                found.append(one)
    return found


def _unreadable(run: partial[subprocess.Popen[bytes]], out: Path) -> list[str]:
    """The reports of run folders in which a trial was finished."""
    wrong = []
    for record in out.glob("**/run.json"):
        if list(record.parent.glob("trials/*/*.json")):
            report = run(["report", str(record.parent)])
            wrong += [] if report.wait() in (0, 3) else [f"bench report: exit code {report.returncode}"]
    return wrong


def _not_resumed(run: partial[subprocess.Popen[bytes]], words: Sequence[str], out: Path) -> list[str]:
    """What a resumed sweep lacks of the cells that were asked for."""
    if not (out / "run.json").exists():
        return []
    finished = {file: file.read_bytes() for file in out.glob("**/trials/*/*.json")}
    resumed = run([*words, "--resume"])
    if resumed.wait() not in (0, 3):
        return [f"--resume: exit code {resumed.returncode}"]
    lost = [
        file.name for file, content in finished.items() if not file.exists() or file.read_bytes() != content
    ]
    cells = pd.read_csv(out / "cells.csv")
    wrong = [f"{name} was measured again" for name in lost]
    return wrong + (["a cell without figures"] if cells["throughput_img_per_s"].isna().any() else [])


def _page(kills: Sequence[Killed], seed: int) -> Findings:
    right = sum(not one.wrong for one in kills)
    counts = Counter(one.victim for one in kills if not one.wrong)
    totals = Counter(one.victim for one in kills)
    rows = tuple((victim, f"{counts[victim]} of {total}") for victim, total in totals.items())
    wrong = tuple(
        (k.victim, k.signals, f"{k.after_s:.1f}", str(k.exit_code), k.wrong) for k in kills if k.wrong
    )
    return Findings(
        name="kills",
        title="Kills",
        about=ABOUT,
        settings={"seed": seed, **{kind: count for kind, (_, count) in SIGNALS.items()}},
        versions=versions(),
        tables=(
            Table("By verb", ("verb", "nothing left and nothing lost"), rows),
            Table("What went wrong", ("verb", "signal", "after s", "exit code", "wrong"), wrong),
        ),
        goals=(
            Goal(
                "nothing is left and nothing is lost",
                f"{right} of {len(kills)}",
                "yes" if right == len(kills) else "no",
            ),
        ),
        figures=[(k.victim, k.signals, k.after_s, k.exit_code, k.wrong) for k in kills],
    )


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the moments.")
@click.option("--share", default=1.0, show_default=True, help="This share of all kills.")
@click.option("--docs/--no-docs", default=True, show_default=True, help="Renew docs/results/kills.md.")
def main(seed: int, share: float, docs: bool) -> None:
    """End every verb at random moments. The exit code is 1 when something is left or lost."""
    say = partial(Console(stderr=True, highlight=False).print, markup=False, soft_wrap=True)
    kills: list[Killed] = []
    planned = list(plan(seed, share))
    for number, (victim, kind, after_s) in enumerate(planned, 1):
        kills.append(kill(victim, kind, after_s))
        ended = f"{victim}, {kind} after {after_s:.1f} s: {kills[-1].wrong or 'as it should'}"
        say(f"{number}/{len(planned)} {ended}")
    publish(_page(kills, seed), Console(width=160), docs=docs)
    if any(one.wrong for one in kills):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
