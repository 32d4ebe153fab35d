"""Shared memory is used as asked, belongs to one process, and outlives none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.cell import Protocol
from bench.core.errors import TargetError, ToolError, Unreachable, WrongUse
from bench.core.target import Target
from bench.core.trial import Reference
from bench.protocols import shared_memory
from bench.protocols.answers import AnswerCheck, Expected
from bench.protocols.payload import Call, Tensor, for_model
from bench.protocols.registry import DRIVERS
from bench.protocols.shared_memory import FOLDER, PREFIX, SharedSegment, output_bytes, remove_leftovers
from bench.protocols.value_check import ValueCheck
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from tests.support.http_peer import free_port

TENSORS = (Tensor("a", "UINT8", (5,), b"hello"), Tensor("b", "UINT8", (5000,), bytes(5000)))
EXPECTED = Expected((("y", "FP32", (2, 3)), ("z", "INT8", (7,))))
TARGET = Target("http://127.0.0.1:1")


def files() -> set[str]:
    return {path.name for path in FOLDER.glob(f"{PREFIX}*")}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Control calls, answered as by a server that knows every region whose file was there."""
    made: list[tuple[str, str]] = []

    def control(_: Target, method: str, path: str, body: Any = None) -> Any:
        made.append((method, path))
        if path == "status":
            return [{"name": f"{PREFIX}1_dead"}, {"name": "somebody_else"}]
        if path.endswith("/register"):
            assert (FOLDER / body["key"].lstrip("/")).stat().st_size == body["byte_size"]
        return None

    monkeypatch.setattr(shared_memory, "_control", control)
    before = files()
    yield made
    assert files() == before


def test_inputs_are_written_once_and_every_user_has_outputs_of_its_own(calls: list[tuple[str, str]]) -> None:
    with SharedSegment(TARGET, TENSORS, EXPECTED, users=3) as segment:
        content = (FOLDER / segment.name).read_bytes()
        slots = [segment.slot(user) for user in range(3)]
        for tensor in TENSORS:
            region = slots[0].shared.inputs[tensor.name]
            assert content[region.offset : region.offset + region.byte_size] == tensor.data
        spans = [
            (region.offset, region.offset + region.byte_size)
            for slot in slots
            for region in slot.shared.outputs.values()
        ]
        spans += [(r.offset, r.offset + r.byte_size) for r in slots[0].shared.inputs.values()]
        ordered = sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(ordered))
        assert ordered[-1][1] <= len(content)
        assert {name: len(view) for name, view in slots[0].outputs.items()} == {"y": 24, "z": 7}
    assert calls[-1] == ("POST", f"region/{segment.name}/unregister")


def test_what_a_server_writes_is_what_the_slot_reads(calls: list[tuple[str, str]]) -> None:
    with SharedSegment(TARGET, TENSORS, EXPECTED, users=2) as segment:
        slot = segment.slot(1)
        slot.blank()
        offset = slot.shared.outputs["y"].offset
        with (FOLDER / segment.name).open("r+b") as server:
            server.seek(offset)
            server.write(b"x" * 24)
        assert bytes(slot.outputs["y"]) == b"x" * 24
    assert calls


def crashed(program: str, *arguments: str) -> str:
    """The name of the segment that a program made, printed and died with."""
    command = [sys.executable, "-c", f"import os, sys; {program}; os._exit(9)", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_the_leftovers_of_the_dead_are_removed_and_the_living_stay(calls: list[tuple[str, str]]) -> None:
    dead = crashed("from bench.protocols.shared_memory import _create; print(_create(4096)[0], flush=True)")
    assert dead in files()
    with SharedSegment(TARGET, TENSORS, EXPECTED, users=1) as segment:
        assert dead not in files()
        remove_leftovers(TARGET)
        assert segment.name in files()
    assert ("POST", f"region/{PREFIX}1_dead/unregister") in calls
    assert not any("somebody_else" in path for _, path in calls)


def test_a_server_that_refuses_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Target, __: str, path: str, ___: Any = None) -> Any:
        if path.endswith("/register"):
            raise TargetError("refused")
        return []

    monkeypatch.setattr(shared_memory, "_control", refuse)
    before = files()
    with pytest.raises(TargetError):
        SharedSegment(TARGET, TENSORS, EXPECTED, users=1)
    assert files() == before


def test_more_than_the_host_has_is_refused_at_once(calls: list[tuple[str, str]]) -> None:
    with pytest.raises(ToolError, match="has no room for"):
        SharedSegment(TARGET, TENSORS, Expected((("y", "UINT8", (1 << 44,)),)), users=1)
    assert not any("register" in path.split("/") for _, path in calls)


def test_outputs_without_a_fixed_size_are_refused_all_at_once() -> None:
    with pytest.raises(WrongUse) as refused:
        output_bytes(Expected((("s", "BYTES", (1,)), ("y", "FP32", (-1,)), ("z", "FP32", (1,)))))
    assert len(refused.value.mistakes) == 2


def test_no_server_is_told_as_such() -> None:
    with pytest.raises(Unreachable, match="connection refused"):
        SharedSegment(Target(f"http://127.0.0.1:{free_port()}"), TENSORS, EXPECTED, users=1)


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", list(Protocol))
def test_triton_reads_and_writes_shared_memory(
    triton: EmbeddedTriton, protocol: Protocol, tmp_path: Path
) -> None:
    control, driver = Triton(triton.target), DRIVERS[protocol]
    control.load("null_small")
    metadata = control.metadata("null_small")
    tensors = for_model(metadata, 64, 2, seed=0)
    expected = Expected.of_model(metadata, 64, 2)
    np.savez(tmp_path / "right.npz", y=np.frombuffer(tensors[0].data, "<f4").reshape(2, 16))
    right = Reference(str(tmp_path / "right.npz"), "the request itself", 0.0, 0.0)
    check, values = AnswerCheck(driver.parse, expected), ValueCheck(driver.parse, right, 2, 64)
    call = Call("null_small", tensors, ("y",))
    with SharedSegment(triton.target, tensors, expected, users=2) as segment:
        for user in range(2):
            slot = segment.slot(user)
            connection = driver.connection(triton.target, 10.0)
            request = driver.build(call, triton.target, slot.shared)
            for _ in range(2):
                slot.blank()
                reply = connection.exchange(request)
                assert reply.error == ""
                assert check.check(reply.body, reply.head_length, slot.outputs) == ""
                assert values.wrong(reply, slot.outputs) == ""
            slot.blank()
            assert "not written" in check.check(reply.body, reply.head_length, slot.outputs)
            connection.close()
    assert segment.name not in os.listdir(FOLDER)
    control.close()


@pytest.mark.e2e
def test_a_crashed_owner_s_region_is_unregistered_by_the_next(triton: EmbeddedTriton) -> None:
    dead = crashed(
        "from bench.protocols.shared_memory import *; from bench.core.target import Target;"
        "s = SharedSegment(Target(sys.argv[1]), [Tensor('a', 'UINT8', (1,), b'x')], Expected(()), 1);"
        "print(s.name, flush=True)",
        triton.target.http_url,
    )
    assert dead in files()
    assert dead in set(shared_memory._registered(triton.target))
    remove_leftovers(triton.target)
    assert dead not in files()
    assert dead not in set(shared_memory._registered(triton.target))
