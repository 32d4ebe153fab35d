"""`bench search` on a real Triton that one configuration ends again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.errors import EXIT_FAILED, EXIT_INTERRUPTED
from bench.core.run_folder import RunFolder

pytestmark = pytest.mark.e2e

_TIMEOUT_S = 120.0


def search(out: Path, modes: str) -> subprocess.Popen[str]:
    words = f"search --model faulty --slo p99=50ms --parameter mode={modes}"
    command = [sys.executable, "-m", "bench", *words.split(), "--longest-probe", "2s", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(out: Path) -> list[dict[str, object]]:
    path = out / "search.json"
    read: list[dict[str, object]] = json.loads(path.read_text()) if path.exists() else []
    return read


def trials(out: Path) -> int:
    return len(list(out.glob("trials/*gpu_full*/*.json")))


def test_a_configuration_that_kills_the_server_is_a_named_failure(tmp_path: Path) -> None:
    with search(tmp_path / "run", "crash") as process:
        out, err = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == EXIT_FAILED, err
    (answer,) = answers(tmp_path / "run")
    assert "given up" in str(answer["failed"])
    assert "FAILED after 0 probes" in out
    assert "SIGSEGV" in out
    record = RunFolder.open(tmp_path / "run").record
    assert len(record.crashes) == 2
    assert record.finished_at


def test_the_search_goes_on_after_it_and_ctrl_c_keeps_what_is_known(tmp_path: Path) -> None:
    with search(tmp_path / "run", "crash,gpu_full") as process:
        deadline = time.monotonic() + _TIMEOUT_S
        while trials(tmp_path / "run") < 3:  # a closed loop, a judged probe, and another
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == EXIT_INTERRUPTED, err
    first, second = answers(tmp_path / "run")
    assert "given up" in str(first["failed"])
    assert second["failed"] == "The search was interrupted."
    assert second["probes"]
    assert out.count("FAILED after") == 2
    assert (tmp_path / "run" / "report.html").exists()
