"""`bench sweep` as somebody runs it, down to what it leaves behind however it ends: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from bench.analysis.results import RunResults
from bench.core.run_folder import RunFolder

pytestmark = pytest.mark.e2e

COLUMNS = """
    protocol batch instances concurrency engine requests errors throughput_img_per_s throughput_req_per_s
    latency_p50_ms latency_p90_ms latency_p95_ms latency_p99_ms latency_mean_ms server_queue_ms
    server_compute_input_ms server_compute_infer_ms server_compute_output_ms executed_batch_mean verdict
"""


class Command:
    """A `bench sweep` of its own, and all that it ever started."""

    def __init__(self, out: Path, *words: str) -> None:
        self.out = out
        self._log = (out.parent / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench", "sweep", "--model", "delay", "--out", str(out), *words],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._family: set[psutil.Process] = set()

    def until(self, happened: Callable[[], bool], timeout_s: float = 60) -> None:
        """Waits, and keeps note of every process started meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, self.said()
            self._look()
            time.sleep(0.05)
        self._look()

    def ended(self) -> int:
        """Its exit code."""
        self.until(lambda: self.process.poll() is not None)
        return int(self.process.returncode)

    def said(self) -> str:
        return Path(self._log.name).read_text()

    def trials(self) -> int:
        return len(list(self.out.glob("**/trials/*/*.json")))

    def commands(self) -> list[list[str]]:
        """The command lines of what it runs right now."""
        found = []
        for member in self._family:
            with contextlib.suppress(psutil.Error):
                found.append(member.cmdline())
        return found

    def members(self) -> list[psutil.Process]:
        """Everything it runs right now."""
        self._look()
        return [member for member in self._family if member.is_running()]

    def left(self) -> list[str]:
        """What is still there: processes, shared memory."""
        alive = [str(p) for p in self._family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return alive + [str(file) for file in Path("/dev/shm").glob(f"*bench*{self.process.pid}*")]

    def close(self) -> None:
        for member in self._family:
            if member.is_running():
                member.kill()
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _look(self) -> None:
        try:
            self._family |= set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def begin(*words: str) -> Command:
        started.append(Command(tmp_path / "run", *words))
        return started[-1]

    yield begin
    for command in started:
        command.close()


def test_a_sweep_ends_with_a_table_and_a_report_and_leaves_nothing(start: Callable[..., Command]) -> None:
    words = "--batch 1 --concurrency 1 --protocol http,grpc --quick --duration 500ms --warmup 0.1s --json"
    sweep = start(*words.split(" "))
    assert sweep.ended() == 0, sweep.said()
    table = pd.read_csv(sweep.out / "cells.csv")
    assert set(COLUMNS.split()) <= set(table.columns)
    assert list(table["protocol"]) == ["http", "grpc"]
    assert list(table["verdict"]) == ["VALID", "VALID"]
    assert (table["throughput_img_per_s"] > 10).all()
    assert (table["server_compute_infer_ms"] >= 50).all()
    assert (table["executed_batch_mean"] == 1).all()
    assert "<html" in (sweep.out / "report.html").read_text()[:500]
    assert sweep.process.stdout is not None
    assert [row["protocol"] for row in json.loads(sweep.process.stdout.read())] == ["http", "grpc"]
    assert "report: " in sweep.said()
    assert RunFolder.open(sweep.out).record.finished_at
    assert sweep.left() == []


def test_ctrl_c_ends_with_130_a_report_and_nothing_left_and_resume_goes_on(
    start: Callable[..., Command],
) -> None:
    words = ["--batch", "1,2", "--concurrency", "1,2", "--quick", "--duration", "600ms", "--warmup", "0.1s"]
    sweep = start(*words)
    sweep.until(lambda: sweep.trials() >= 1)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.ended() == 130, sweep.said()
    assert sweep.left() == []
    assert "Traceback" not in sweep.said()
    table = pd.read_csv(sweep.out / "cells.csv")
    measured = sweep.trials()
    assert len(table) == 4
    assert (table["verdict"] == "NOT RUN").sum() == 4 - measured > 0
    assert (sweep.out / "report.html").exists()
    folder = RunFolder.open(sweep.out)
    assert len(list(folder.trials())) == measured
    assert not folder.record.finished_at
    rest = start(*words, "--resume")
    assert rest.ended() == 0, rest.said()
    assert rest.trials() == 4
    assert folder.record.finished_at
    assert rest.left() == []


def test_ctrl_c_of_variants_saves_each_and_resume_goes_on(start: Callable[..., Command]) -> None:
    words = ["--batch", "1", "--concurrency", "1,2", "--quick", "--duration", "600ms", "--warmup", "0.1s"]
    words += ["--variant", "old=", "--variant", "new=delay_ms=55"]
    sweep = start(*words)
    sweep.until(lambda: sweep.trials() >= 1)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.ended() == 130, sweep.said()
    assert sweep.left() == []
    assert "Traceback" not in sweep.said()
    assert 1 <= sweep.trials() < 4
    for name in ("old", "new"):
        assert (sweep.out / name / "report.html").exists()
        assert len(pd.read_csv(sweep.out / name / "cells.csv")) == 2
        assert not RunFolder.open(sweep.out / name).record.finished_at
    rest = start(*words, "--resume")
    assert rest.ended() == 3, rest.said()  # one repeat settles nothing
    assert rest.trials() == 4
    assert (rest.out / "compare.html").exists()
    assert rest.left() == []


def test_ctrl_c_before_the_server_is_up_ends_with_130_and_nothing_left(
    start: Callable[..., Command],
) -> None:
    sweep = start("--batch", "1", "--quick")
    sweep.until(lambda: "starting tritonserver" in sweep.said())
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.ended() == 130, sweep.said()
    assert "Traceback" not in sweep.said()
    assert sweep.left() == []


def test_a_killed_sweep_takes_its_server_and_its_load_along(start: Callable[..., Command]) -> None:
    sweep = start("--batch", "1", "--quick", "--duration", "30s")
    sweep.until(lambda: any("locust.worker_process" in " ".join(words) for words in sweep.commands()))
    sweep.until(lambda: any("tritonserver" in words[0] for words in sweep.commands() if words))
    sweep.process.kill()
    sweep.process.wait()
    sweep.until(lambda: sweep.left() == [], timeout_s=30)


def server_pid(sweep: Command) -> int:
    """Of the tritonserver that runs now."""
    for member in sweep.members():
        with contextlib.suppress(psutil.Error):
            if member.name().startswith("tritonserver"):
                return member.pid
    return 0


def test_a_server_that_dies_in_a_trial_is_started_again_and_the_sweep_goes_on(
    start: Callable[..., Command],
) -> None:
    """As for want of memory; one that crashes by itself is the next test's."""
    words = ["--batch", "1", "--concurrency", "1,2,3", "--quick", "--duration", "1.5s", "--warmup", "0.1s"]
    sweep = start(*words)
    sweep.until(lambda: sweep.trials() == 1)
    time.sleep(0.5)  # into the next one
    os.kill(server_pid(sweep), signal.SIGKILL)
    assert sweep.ended() == 3, sweep.said()
    assert "Traceback" not in sweep.said()
    assert sweep.trials() == 2
    assert sweep.left() == []
    table = pd.read_csv(sweep.out / "cells.csv")
    assert sorted(table["verdict"]) == ["FAILED", "VALID", "VALID"]
    record = RunFolder.open(sweep.out).record
    (crash,) = record.crashes
    assert "SIGKILL" in crash.reason
    assert record.failed == {crash.key: crash.reason}
    assert record.finished_at
    failed = table[table["verdict"] == "FAILED"].iloc[0]
    assert (failed["cell"], failed["findings"]) == (crash.key, "server-died")
    assert sweep.process.stdout is not None
    printed = sweep.process.stdout.read()
    assert "tritonserver died 1 time and was started again." in printed
    assert "INVALID server-died (1 cell): tritonserver" in printed
    assert "tritonserver died 1 time" in (sweep.out / "report.html").read_text()
    assert (sweep.out / "tritonserver-1.log").stat().st_size > 0
    rest = start(*words, "--resume")
    assert rest.ended() == 0, rest.said()
    assert list(pd.read_csv(rest.out / "cells.csv")["verdict"]) == ["VALID"] * 3


def test_a_configuration_that_kills_the_server_every_time_is_given_up_and_the_next_is_measured(
    start: Callable[..., Command],
) -> None:
    words = ["--model", "faulty", "--parameter", "mode=crash,gpu_full", "--batch", "1", "--quick"]
    sweep = start(*words, "--concurrency", "1,2,4", "--duration", "300ms", "--warmup", "0.1s")
    assert sweep.ended() == 3, sweep.said()
    table = pd.read_csv(sweep.out / "cells.csv")
    crashed = table[table["mode"] == "crash"]
    assert list(crashed["verdict"]) == ["FAILED"] * 3
    assert (table[table["mode"] == "gpu_full"]["verdict"] == "VALID").all()
    record = RunFolder.open(sweep.out).record
    assert len(record.crashes) == 2
    assert sum("given up" in reason for reason in record.failed.values()) == 1
    assert "died 2 times" in (sweep.out / "report.html").read_text()
    assert sweep.left() == []


def test_a_model_whose_process_dies_is_a_labelled_cell_and_the_sweep_goes_on(
    start: Callable[..., Command],
) -> None:
    words = ["--model", "faulty", "--parameter", "mode=exit,gpu_full", "--batch", "1", "--quick"]
    sweep = start(*words, "--concurrency", "2", "--duration", "300ms", "--warmup", "0.1s")
    assert sweep.ended() == 3, sweep.said()
    died, other = RunResults.of(RunFolder.open(sweep.out)).rows
    assert died.verdict == "INVALID"
    assert any("Stub process 'faulty_0_0' is not healthy" in str(remark) for remark in died.remarks)
    assert other.verdict == "VALID"
    assert sweep.left() == []
