"""Values are compared with the reference item by item: a right one passes, any wrong one does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.core.cell import Protocol
from bench.core.trial import Reference
from bench.protocols.connection import Reply
from bench.protocols.registry import DRIVERS
from bench.protocols.value_check import Bounds, ValueCheck
from tests.support.answers import answer_of

both = pytest.mark.parametrize("protocol", list(Protocol))

FINITE = st.floats(-1e6, 1e6, width=32)


@given(
    reference=st.lists(FINITE, min_size=1, max_size=20),
    off=st.floats(-1, 1),
    relative=st.sampled_from([0.0, 1e-3]),
    absolute=st.sampled_from([0.0, 1e-3, 0.5]),
)
@settings(deadline=None)
def test_values_pass_as_numpy_would_let_them(
    reference: list[float], off: float, relative: float, absolute: float
) -> None:
    right = np.array([reference], dtype=np.float64)
    values = right + off
    # Apart from rounding at the very border.
    nearly = np.abs(np.abs(values - right) - (absolute + relative * np.abs(right))) < 1e-9
    if not nearly.any():
        passes = np.allclose(values, right, rtol=relative, atol=absolute)
        assert (Bounds(right, relative, absolute).wrong("y", values) == "") == passes
    assert Bounds(right, relative, absolute).wrong("y", right) == ""


def values(*numbers: float) -> NDArray[np.float32]:
    return np.array([numbers], dtype=np.float32)


VALUES = {
    "NaN never passes": (values(1, float("nan")), "1 of 2 values differ from the reference, by up to nan"),
    "infinity never passes": (values(1, float("inf")), "1 of 2 values differ"),
    "a value off by more than allowed": (values(1, 2.5), "by up to 0.5"),
    "another shape": (values(1, 2, 3), "shape [1, 3], and the reference [1, 2]"),
    "fewer items than the reference": (np.zeros((0, 2), np.float32), "shape [0, 2]"),
}


@pytest.mark.parametrize(("answered", "told"), VALUES.values(), ids=list(VALUES))
def test_wrong_values_are_told(answered: NDArray[Any], told: str) -> None:
    assert told in Bounds(values(1, 2), 1e-4, 1e-4).wrong("y", answered)


def test_a_reference_of_the_first_items_checks_these() -> None:
    bounds = Bounds(values(1, 2), 0, 0)
    assert bounds.wrong("y", np.array([[1, 2], [9, 9]], np.float32)) == ""
    assert bounds.wrong("y", np.array([[9, 9], [1, 2]], np.float32)) != ""


def test_single_numbers_are_compared_too() -> None:
    assert Bounds(np.float32(1), 0, 0).wrong("y", np.float32(1)) == ""
    assert Bounds(np.float32(1), 0, 0).wrong("y", np.float32(2)) != ""


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([np.inf]), np.array([b"x"], dtype=object)])
def test_a_useless_reference_is_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="no finite numbers"):
        Bounds(bad, 0, 0)


BATCH = 4
RIGHT = np.arange(1, 13, dtype="<f4").reshape(BATCH, 3)


def check_of(
    protocol: Protocol, folder: Path, arrays: NDArray[Any] = RIGHT, max_batch: int = 8, **wider: Any
) -> ValueCheck:
    """A check against the arrays, of 1 % and no more."""
    path = folder / "reference.npz"
    np.savez(path, y=arrays)
    tolerance = {"relative": 0.01, "absolute": 0.0, **wider}
    return ValueCheck(DRIVERS[protocol].parse, Reference(str(path), "", **tolerance), BATCH, max_batch)


def reply_of(protocol: Protocol, values: NDArray[Any], shared: bool = False) -> Reply:
    """A reply whose frame is right; with `shared` its tensor lies elsewhere."""
    reply = Reply()
    data = b"" if shared else values.tobytes()
    reply.body, reply.head_length = answer_of(protocol, ("y", "FP32", values.shape, data))
    return reply


def changed(item: int, value: float) -> NDArray[Any]:
    values = RIGHT.copy()
    values[item, 1] = value
    return values


def seen(check: ValueCheck, *replies: Reply) -> list[str]:
    return [check.wrong(reply) for reply in replies]


@both
def test_right_values_pass_whichever_item_is_compared(protocol: Protocol, tmp_path: Path) -> None:
    check = check_of(protocol, tmp_path)
    assert seen(check, *[reply_of(protocol, RIGHT * np.float32(1.005))] * 2 * BATCH) == [""] * 2 * BATCH


@both
@pytest.mark.parametrize("item", range(BATCH))
@pytest.mark.parametrize(
    ("factor", "said"), [(1.03, "1 of 3 values differ"), (np.nan, "by up to nan"), (np.inf, "by up to inf")]
)
def test_one_wrong_item_of_a_batch_is_found_once_in_each_round(
    protocol: Protocol, tmp_path: Path, item: int, factor: float, said: str
) -> None:
    check = check_of(protocol, tmp_path)
    wrong = reply_of(protocol, changed(item, RIGHT[item, 1] * factor))
    found = [message for message in seen(check, *[wrong] * 2 * BATCH) if message]
    assert len(found) == 2
    assert all(message.startswith(f"item {item}: output 'y': ") and said in message for message in found)


@both
@pytest.mark.parametrize(
    ("off", "passes"), [(0.0099, True), (0.0101, False), (-0.0099, True), (-0.0101, False)]
)
def test_the_tolerance_is_the_border(protocol: Protocol, tmp_path: Path, off: float, passes: bool) -> None:
    check = check_of(protocol, tmp_path)
    answered = (RIGHT * np.float32(1 + off)).astype("<f4")
    assert (seen(check, reply_of(protocol, answered))[0] == "") == passes


@both
def test_items_in_another_order_are_wrong(protocol: Protocol, tmp_path: Path) -> None:
    check = check_of(protocol, tmp_path)
    assert all(seen(check, *[reply_of(protocol, RIGHT[::-1].copy())] * BATCH))


@both
def test_a_tensor_far_off_as_a_whole_is_wrong_where_each_value_would_pass(
    protocol: Protocol, tmp_path: Path
) -> None:
    check = check_of(protocol, tmp_path, relative=0.5, distance=0.02)
    assert seen(check, reply_of(protocol, RIGHT * np.float32(1.01))) == [""]
    assert "from the reference (L2)" in seen(check, reply_of(protocol, RIGHT * np.float32(1.04)))[0]


@both
def test_a_model_without_a_batch_axis_is_compared_whole(protocol: Protocol, tmp_path: Path) -> None:
    check = check_of(protocol, tmp_path, RIGHT[:1], max_batch=0)
    assert seen(check, reply_of(protocol, RIGHT[0]), reply_of(protocol, RIGHT[0] * 2)) == [
        "",
        "item 0: output 'y': 3 of 3 values differ from the reference, by up to 3",
    ]


@both
def test_an_output_without_a_reference_is_not_compared(protocol: Protocol, tmp_path: Path) -> None:
    check, reply = check_of(protocol, tmp_path), Reply()
    reply.body, reply.head_length = answer_of(protocol, ("z", "FP32", (1,), bytes(4)))
    assert check.wrong(reply) == ""


@both
def test_values_in_shared_memory_are_read_there(protocol: Protocol, tmp_path: Path) -> None:
    check = check_of(protocol, tmp_path)
    reply = reply_of(protocol, RIGHT, shared=True)
    assert check.wrong(reply, {"y": memoryview(RIGHT.tobytes())}) == ""
    assert check.wrong(reply, {"y": memoryview(bytes(RIGHT.nbytes))}).startswith("item 2: output 'y'")
