"""One process at a time measures into a run folder; a lock that a dead one left holds nobody up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core import run_lock
from bench.core.errors import RunFolderError
from bench.core.run_folder import RunFolder
from bench.core.run_lock import locked
from bench.experiments.run_setup import Output, claimed
from tests.core.test_run_folder import record, trial

HOLD = (
    "import sys, time; from pathlib import Path; from bench.core.run_lock import locked;"
    "lock = locked(Path(sys.argv[1])); lock.__enter__(); print(flush=True); time.sleep(60)"
)


def test_a_second_process_is_refused_and_told_who_measures(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    with subprocess.Popen([sys.executable, "-c", HOLD, folder.path], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            for output in (Output(folder.path, resume=True), Output(folder.path, force=True)):
                with (
                    pytest.raises(RunFolderError, match=rf"process {other.pid} on .* is measuring into it"),
                    claimed(output, print),
                ):
                    pytest.fail("two at once")
        finally:
            other.kill()
    assert (folder.path / run_lock.NAME).exists(), "it was killed"
    with claimed(Output(folder.path, resume=True), print):
        pass
    assert not (folder.path / run_lock.NAME).exists()


def test_a_folder_that_nothing_came_into_is_gone_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with locked(path):
        assert path.is_dir()
        assert f"process {os.getpid()} on " in (path / run_lock.NAME).read_text()
    assert not path.exists()


def test_a_lock_left_by_a_killed_process_makes_no_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / run_lock.NAME).write_text("process 1 on elsewhere")
    with claimed(Output(tmp_path), print):
        RunFolder.create(tmp_path, record())


def test_what_is_damaged_is_told_before_a_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    folder.write_trial(trial())
    next(folder.path.rglob("*.npz")).write_bytes(b"")
    said: list[str] = []
    with claimed(Output(folder.path, resume=True), said.append):
        assert not folder.has_trial(trial().cell.key, 0)
    assert len(said) == 1
    assert said[0].startswith(f"Repeat 0 of {trial().cell.key} is unreadable, and is measured again: ")
