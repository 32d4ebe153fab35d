"""A server of ours that died: why is told, it starts again, its log is kept, three failures are enough."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from bench.core.errors import ServerStartFailed
from bench.core.target import Target
from bench.server.embedded import START_TRIES, EmbeddedTriton, OwnTriton
from bench.server.log_diagnosis import explain


@dataclass
class Stub:
    """A server that only lives and dies."""

    log: Path
    port: int
    alive: bool = True
    hangs: bool = False
    stopped: bool = False

    @property
    def target(self) -> Target:
        return Target(f"http://127.0.0.1:{self.port}")

    def ends_within(self, _seconds: float) -> bool:
        return not self.hangs

    def why_dead(self) -> str:
        return "tritonserver crashed (SIGSEGV)."

    def stop(self) -> None:
        self.stopped, self.alive = True, False


@dataclass
class Starter:
    log: Path
    failures: int = 0  # of the next starts
    started: list[Stub] = field(default_factory=list)

    def __call__(self) -> EmbeddedTriton:
        self.log.write_text(f"log of start {len(self.started)}")
        if self.failures:
            self.failures -= 1
            raise ServerStartFailed("no room.")
        self.started.append(Stub(self.log, 1000 + len(self.started)))
        return cast(EmbeddedTriton, self.started[-1])


@pytest.fixture
def starter(tmp_path: Path) -> Starter:
    return Starter(tmp_path / "tritonserver.log")


@pytest.fixture
def own(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> OwnTriton:
    triton = OwnTriton(starter, lambda _: None)
    monkeypatch.setattr(OwnTriton, "live", lambda _: not starter.started[-1].hangs)
    return triton


def test_a_server_that_runs_is_left_alone(own: OwnTriton, starter: Starter) -> None:
    assert own.lost() == own.revive() == ""
    assert len(starter.started) == 1


def test_a_dead_server_is_started_again_elsewhere_and_its_log_is_kept(
    own: OwnTriton, starter: Starter, tmp_path: Path
) -> None:
    for count in (1, 2):
        starter.started[-1].alive = False
        assert own.revive() == "tritonserver crashed (SIGSEGV)."
        assert own.target == starter.started[count].target
        assert (tmp_path / f"tritonserver-{count}.log").read_text() == f"log of start {count - 1}"
    assert own.revive() == ""
    own.close()
    assert all(stub.stopped for stub in starter.started)


def test_a_server_that_hangs_is_ended_and_started_again(own: OwnTriton, starter: Starter) -> None:
    starter.started[-1].hangs = True
    assert "answered nothing any more" in own.revive()
    assert starter.started[0].stopped
    assert len(starter.started) == 2


def test_one_that_dies_at_its_start_has_three_tries(own: OwnTriton, starter: Starter) -> None:
    starter.started[-1].alive = False
    starter.failures = START_TRIES - 1
    assert own.revive()
    assert own.revive() == ""
    starter.started[-1].alive = False
    starter.failures = START_TRIES
    with pytest.raises(ServerStartFailed, match="3 times did not start again: no room"):
        own.revive()


def test_a_crash_is_told_with_the_end_of_the_log_or_its_cause() -> None:
    lines = [f"I1123 07:00:00.000000 12 x.cc:{n}] line {n}" for n in range(60)]
    lines[0] = "TritonModelException: an older trouble"
    said = explain("\n".join(lines), 128 + signal.SIGSEGV)
    assert said.startswith("tritonserver crashed (SIGSEGV). Its log ends: x.cc:57] line 57")
    assert said.endswith("line 59.")
    broken = [*lines, "terminate called after throwing: CUDA error: an illegal memory access was encountered"]
    assert "The GPU failed or disappeared" in explain("\n".join(broken), 128 + signal.SIGABRT)
    assert explain("", 128 + signal.SIGKILL).endswith("Its log is empty.")
