"""Folders of killed processes go; those of living ones stay, wherever they live."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.core.errors import ToolError
from bench.core.scratch import claim, folder, is_held, remove_stale
from bench.server.leftovers import remove_leftovers

PREFIX = "bench-test-"
HOLD = (
    "import sys, time; from bench.core.scratch import claim; "
    "print(claim(sys.argv[1]), flush=True); time.sleep(60)"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_a_killed_processs_folder_goes_and_a_living_ones_stays() -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, PREFIX], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        theirs = Path(process.stdout.readline().strip())
    mine = claim(PREFIX)
    assert theirs.is_dir(), "it lives"
    process.kill()
    process.wait()
    remove_stale(PREFIX)
    assert not theirs.exists()
    assert mine.is_dir()


def test_a_lock_counts_where_the_process_cannot_be_seen() -> None:
    """As in a container that shares the folder, and not the processes."""
    mine = claim(PREFIX)
    elsewhere = mine.rename(mine.with_name(f"{PREFIX}{2**22 + 1}-x"))  # no pid is as high
    remove_stale(PREFIX)
    assert elsewhere.is_dir()


def test_a_folder_goes_with_its_block_and_a_killed_processs_with_the_next_verb(tmp_path: Path) -> None:
    hold = (
        "import os; from bench.core.scratch import folder; "
        "block = folder(); block.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", hold], check=False)
    assert list(tmp_path.glob("bench-*"))
    with folder() as mine:
        remove_leftovers()
        assert list(tmp_path.glob("bench-*")) == [mine]
    assert not mine.exists()


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", f"/full/{prefix}")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    said = r"^/full/bench-\d+- cannot be made \(No space left .*TMPDIR"
    with pytest.raises(ToolError, match=said), folder():
        pytest.fail("there is no room")


def test_what_is_named_otherwise_is_not_touched(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (f"{PREFIX}abc-1", "bench-other-1-x", PREFIX.rstrip("-"))]
    for other in others:
        other.mkdir()
    remove_stale(PREFIX)
    assert all(other.is_dir() for other in others)


def test_a_files_lock_counts_as_a_folders(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    assert not is_held(path), "nobody holds what is not there"
    with path.open("w") as file:
        assert not is_held(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(path)
    assert not is_held(path)
