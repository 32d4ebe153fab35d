"""What a SIGKILL leaves: nothing that runs, and no file that the next verb does not remove."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.core.run_folder import RunFolder
from bench.core.scratch import SHARED_MEMORY
from tests.support.waiting import until

BENCH = (sys.executable, "-m", "bench")
CEILING = """
from bench.experiments.ceiling.measure import Process
with Process("random:tiny:seed=0", threads=1) as process:
    print(process._process.pid, flush=True)
    process.images_per_s(1, seconds=300)
"""


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.e2e
def test_a_sweep_killed_under_load_leaves_no_process_and_its_files_go_with_the_next_verb(
    tmp_path: Path,
) -> None:
    out, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    words = ("--model", "null_small", "--batch", "1", "--concurrency", "2", "--duration", "300s")
    words = (*words, "--shared-memory", "system", "--warmup", "100ms", "--out", str(out))
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen([*BENCH, "sweep", *words], env=environment, stdout=log, stderr=log) as sweep:
        whole = psutil.Process(sweep.pid)
        until(lambda: any(SHARED_MEMORY.glob("triton_bench_*")) and (out / "run.json").exists())
        family = whole.children(recursive=True)
        assert len(family) >= 5, "supervisor, guard, server, stub, worker"
        segments = {f"triton_bench_{process.pid}_" for process in family}
        sweep.kill()
    until(lambda: all(map(ended, family)), 30)
    assert not any(SHARED_MEMORY.glob(f"bench_{sweep.pid}_*"))
    assert list(temporary.glob("bench-*"))
    subprocess.run([*BENCH, "report", str(out)], env=environment, capture_output=True, check=False)
    assert not list(temporary.glob("bench-*"))
    left = {path.name for path in SHARED_MEMORY.glob("triton_bench_*")}
    assert not [name for name in left if name.startswith(tuple(segments))]
    assert RunFolder.open(out).record.finished_at == ""


@pytest.mark.e2e
def test_a_killed_ceiling_ends_its_network_in_the_middle_of_a_measurement() -> None:
    with subprocess.Popen([sys.executable, "-c", CEILING], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        network = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    until(lambda: ended(network), 20)
