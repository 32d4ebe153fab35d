"""A right answer passes each check; an answer wrong in any one way does not, over either protocol."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.cell import Protocol
from bench.core.datatypes import DTYPES
from bench.protocols.answers import AnswerCheck, Expected, MalformedAnswer, as_array, blank, most_bytes
from bench.protocols.payload import length_prefixed
from bench.protocols.registry import DRIVERS
from tests.support.answers import Tensor, answer_of

Y: Tensor = ("y", "FP32", (2, 3), np.arange(6, dtype="<f4").tobytes())
Z: Tensor = ("z", "INT64", (2,), struct.pack("<2q", 7, -7))
EXPECTED = Expected((("y", "FP32", (2, 3)), ("z", "INT64", (-1,))))
both = pytest.mark.parametrize("protocol", list(Protocol))


OUTPUTS = st.lists(
    st.tuples(
        st.text(max_size=9),
        st.sampled_from(list(DTYPES)),
        st.lists(st.integers(-1, 2**40), max_size=4).map(tuple),
        st.binary(max_size=300),
    ),
    max_size=4,
)


@both
@given(outputs=OUTPUTS)
@settings(deadline=None)
def test_parsing_finds_what_the_server_put_in(protocol: Protocol, outputs: list[Tensor]) -> None:
    body, head_length = answer_of(protocol, *outputs)
    found = [
        (o.name, o.datatype, o.shape, bytes(body[o.start : o.end]))
        for o in DRIVERS[protocol].parse(body, head_length)
    ]
    assert found == outputs


@both
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), length=st.integers(0, 10**6))
@settings(deadline=None)
def test_damaged_answers_are_malformed_or_parsed_and_nothing_else(
    protocol: Protocol, at: int, byte: int, length: int
) -> None:
    body, head_length = answer_of(protocol, Y, Z)
    damaged = bytearray(body)
    damaged[at % len(damaged)] = byte
    cut = memoryview(damaged)[: length % (len(damaged) + 1)]
    AnswerCheck(DRIVERS[protocol].parse, EXPECTED).check(cut, min(head_length, len(cut)))


@both
def test_a_right_answer_passes_at_first_and_when_its_frame_is_known(protocol: Protocol) -> None:
    check = AnswerCheck(DRIVERS[protocol].parse, EXPECTED)
    other = ("y", "FP32", (2, 3), bytes(24))
    for answer in (answer_of(protocol, Y, Z), answer_of(protocol, Y, Z), answer_of(protocol, other, Z)):
        assert check.check(*answer) == ""


WRONG: dict[str, tuple[list[Tensor], str]] = {
    "an output is missing": ([Y], "'z' is missing"),
    "another name": ([("x", *Y[1:]), Z], "'y' is missing"),
    "another datatype": ([("y", "INT32", *Y[2:]), Z], "datatype INT32, not FP32"),
    "another batch": ([("y", "FP32", (1, 3), Y[3][:12]), Z], "shape [1, 3], not [2, 3]"),
    "axes in another order": ([("y", "FP32", (3, 2), Y[3]), Z], "shape [3, 2], not [2, 3]"),
    "an axis too many": ([("y", "FP32", (1, 2, 3), Y[3]), Z], "shape [1, 2, 3], not [2, 3]"),
    "the right shape and no bytes": ([("y", "FP32", (2, 3), b""), Z], "0 bytes, and its shape asks for 24"),
    "bytes cut short": ([("y", "FP32", (2, 3), Y[3][:-1]), Z], "23 bytes, and its shape asks for 24"),
    "nothing where at least one is due": ([Y, ("z", "INT64", (0,), b"")], "shape [0], not [-1]"),
}


@both
@pytest.mark.parametrize(("outputs", "told"), WRONG.values(), ids=list(WRONG))
def test_wrong_frames_are_told_first_and_after_right_ones(
    protocol: Protocol, outputs: list[Tensor], told: str
) -> None:
    for check in (
        AnswerCheck(DRIVERS[protocol].parse, EXPECTED),
        AnswerCheck(DRIVERS[protocol].parse, EXPECTED),
    ):
        assert told in check.check(*answer_of(protocol, *outputs))
        assert check.check(*answer_of(protocol, Y, Z)) == ""
        assert told in check.check(*answer_of(protocol, *outputs))


@both
def test_strings_are_counted(protocol: Protocol) -> None:
    expected = Expected((("s", "BYTES", (2,)),))
    check = AnswerCheck(DRIVERS[protocol].parse, expected)
    right = ("s", "BYTES", (2,), length_prefixed([b"one", b"three"]))
    assert check.check(*answer_of(protocol, right)) == ""
    assert check.check(*answer_of(protocol, ("s", "BYTES", (2,), length_prefixed([b"a", b""])))) == ""
    assert "1 strings" in check.check(*answer_of(protocol, ("s", "BYTES", (2,), length_prefixed([b"one"]))))
    assert "-1 strings" in check.check(*answer_of(protocol, ("s", "BYTES", (2,), right[3][:-1])))


def test_an_output_as_json_was_not_asked_for() -> None:
    body = memoryview(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1.0]}]}')
    with pytest.raises(MalformedAnswer, match="as JSON"):
        DRIVERS[Protocol.HTTP].parse(body, 0)


def test_expected_follows_the_metadata() -> None:
    y = {"name": "y", "datatype": "FP32", "shape": [-1, 197, 768]}
    metadata = {"outputs": [y, {"name": "z", "datatype": "INT8", "shape": [-1]}]}
    assert Expected.of_model(metadata, 8, 4).outputs == (("y", "FP32", (4, 197, 768)), ("z", "INT8", (4,)))
    assert Expected.of_model(metadata, 0, 1, ["z"]).outputs == (("z", "INT8", (-1,)),)


def test_bf16_and_strings_become_arrays() -> None:
    body, head = answer_of(Protocol.GRPC, ("y", "BF16", (2,), b"\x80\x3f\x00\xc0"))
    (output,) = DRIVERS[Protocol.GRPC].parse(body, head)
    assert as_array(output, body[output.start : output.end]).tolist() == [1.0, -2.0]
    body, head = answer_of(Protocol.HTTP, ("s", "BYTES", (2,), length_prefixed([b"a", b"bc"])))
    (output,) = DRIVERS[Protocol.HTTP].parse(body, head)
    assert as_array(output, body[output.start : output.end]).tolist() == [b"a", b"bc"]


@given(size=st.integers(0, 64))
def test_a_region_that_is_never_written_is_told_and_a_written_one_is_not(size: int) -> None:
    check = AnswerCheck(DRIVERS[Protocol.GRPC].parse, Expected((("y", "UINT8", (size,)),)))
    body, _ = answer_of(Protocol.GRPC, ("y", "UINT8", (size,), b""))
    region = memoryview(bytearray(size))
    assert check.check(body, 0, {"y": region}) == ""
    blank(region)
    assert ("not written" in check.check(body, 0, {"y": region})) == (size >= 8)


FIXED = Expected((("y", "FP32", (8, 1000)), ("z", "INT8", (8,))))
OPEN = Expected((("y", "FP32", (8, -1)),))


@pytest.mark.parametrize(
    ("expected", "asked", "most"),
    [
        (FIXED, None, (1 << 20) + 32_008 + 4_001),
        (FIXED, 4096, 4096),
        (FIXED, 1 << 30, (1 << 20) + 32_008 + 4_001),
        (OPEN, None, 64 << 20),
        (OPEN, 1 << 30, 1 << 30),
        (Expected((("y", "BYTES", (8,)),)), None, 64 << 20),
        (Expected((("y", "FP32", (10**9, 10**9)),)), None, 1 << 30),
    ],
)
def test_an_answer_is_bounded_by_what_its_outputs_need(
    expected: Expected, asked: int | None, most: int
) -> None:
    assert most_bytes(expected, asked) == most
