"""How many open files a process may have, and how many processes a load needs by that."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from bench.core import open_files


@pytest.fixture
def hard_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    return 1024


@pytest.mark.parametrize(
    ("users", "is_open_loop", "processes"),
    [(1, False, 1), (896, False, 1), (897, False, 2), (2500, False, 3), (448, True, 1), (449, True, 2)],
)
def test_a_load_needs_as_many_processes_as_its_users_have_files_in(
    hard_limit: int, users: int, is_open_loop: bool, processes: int
) -> None:
    assert open_files.processes(users, is_open_loop=is_open_loop) == processes
    share = -(-users // processes)
    assert open_files.needed(share, is_open_loop=is_open_loop) <= hard_limit


def test_a_process_without_room_for_a_single_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert open_files.processes(1, is_open_loop=False) == 0


def test_the_soft_limit_is_raised_as_far_as_the_hard_one_allows() -> None:
    code = (
        "import resource\n"
        "from bench.core import open_files\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "open_files.raise_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], min(open_files.most(), open_files.WANTED))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    raised, expected = map(int, said.stdout.split())
    assert raised == expected > 256
