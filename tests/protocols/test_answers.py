"""A right answer passes each check; an answer wrong in any one way does not, over either protocol."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from bench.core.cell import Protocol
from bench.core.datatypes import DTYPES
from bench.protocols.answer_parser import MalformedAnswer, as_array, parse
from bench.protocols.answers import AnswerCheck, Expected, blank
from bench.protocols.grpc import GrpcConnection
from bench.protocols.http1 import HttpConnection
from bench.protocols.payload import for_model, grpc_message, http_request, length_prefixed
from bench.protocols.value_check import Bounds
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton

Told = tuple[str, str, tuple[int, ...], bytes]
Y: Told = ("y", "FP32", (2, 3), np.arange(6, dtype="<f4").tobytes())
Z: Told = ("z", "INT64", (2,), struct.pack("<2q", 7, -7))
EXPECTED = Expected((("y", "FP32", (2, 3)), ("z", "INT64", (-1,))))
both = pytest.mark.parametrize("protocol", list(Protocol))


def body_of(protocol: Protocol, *outputs: Told) -> tuple[memoryview, int]:
    """An answer as Triton sends it: body and head length."""
    if protocol is Protocol.GRPC:
        message = service_pb2.ModelInferResponse(model_name="m", model_version="1")
        for name, datatype, shape, data in outputs:
            message.outputs.add(name=name, datatype=datatype, shape=shape)
            message.raw_output_contents.append(data)
        return memoryview(message.SerializeToString()), 0
    told = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in outputs
    ]
    head = json.dumps({"model_name": "m", "outputs": told}).encode()
    return memoryview(head + b"".join(data for *_, data in outputs)), len(head)


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
def test_parsing_finds_what_the_server_put_in(protocol: Protocol, outputs: list[Told]) -> None:
    body, head_length = body_of(protocol, *outputs)
    found = [
        (o.name, o.datatype, o.shape, bytes(body[o.start : o.end]))
        for o in parse(protocol, body, head_length)
    ]
    assert found == outputs


@both
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), length=st.integers(0, 10**6))
@settings(deadline=None)
def test_damaged_answers_are_malformed_or_parsed_and_nothing_else(
    protocol: Protocol, at: int, byte: int, length: int
) -> None:
    body, head_length = body_of(protocol, Y, Z)
    damaged = bytearray(body)
    damaged[at % len(damaged)] = byte
    cut = memoryview(damaged)[: length % (len(damaged) + 1)]
    AnswerCheck(protocol, EXPECTED).check(cut, min(head_length, len(cut)))


@both
def test_a_right_answer_passes_at_first_and_when_its_frame_is_known(protocol: Protocol) -> None:
    check = AnswerCheck(protocol, EXPECTED)
    other = ("y", "FP32", (2, 3), bytes(24))
    for answer in (body_of(protocol, Y, Z), body_of(protocol, Y, Z), body_of(protocol, other, Z)):
        assert check.check(*answer) == ""


WRONG: dict[str, tuple[list[Told], str]] = {
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
    protocol: Protocol, outputs: list[Told], told: str
) -> None:
    for check in (AnswerCheck(protocol, EXPECTED), AnswerCheck(protocol, EXPECTED)):
        assert told in check.check(*body_of(protocol, *outputs))
        assert check.check(*body_of(protocol, Y, Z)) == ""
        assert told in check.check(*body_of(protocol, *outputs))


@both
def test_strings_are_counted(protocol: Protocol) -> None:
    expected = Expected((("s", "BYTES", (2,)),))
    check = AnswerCheck(protocol, expected)
    right = ("s", "BYTES", (2,), length_prefixed([b"one", b"three"]))
    assert check.check(*body_of(protocol, right)) == ""
    assert check.check(*body_of(protocol, ("s", "BYTES", (2,), length_prefixed([b"a", b""])))) == ""
    assert "1 strings" in check.check(*body_of(protocol, ("s", "BYTES", (2,), length_prefixed([b"one"]))))
    assert "-1 strings" in check.check(*body_of(protocol, ("s", "BYTES", (2,), right[3][:-1])))


def test_an_output_as_json_was_not_asked_for() -> None:
    body = memoryview(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1.0]}]}')
    with pytest.raises(MalformedAnswer, match="as JSON"):
        parse(Protocol.HTTP, body, 0)


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


def test_a_reference_of_an_output_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="not asked for: x"):
        AnswerCheck(Protocol.HTTP, EXPECTED, {"x": Bounds(values(1), 0, 0)})


@both
def test_values_are_checked_in_place(protocol: Protocol) -> None:
    reference = np.arange(6, dtype=np.float32).reshape(2, 3)
    check = AnswerCheck(protocol, EXPECTED, {"y": Bounds(reference, 1e-4, 1e-4)})
    right, wrong = body_of(protocol, Y, Z), body_of(protocol, ("y", "FP32", (2, 3), bytes(24)), Z)
    for _ in range(2):
        assert (check.check(*right), check.check_values(*right)) == ("", "")
        assert (check.check(*wrong), "5 of 6 values" in check.check_values(*wrong)) == ("", True)


def test_expected_follows_the_metadata() -> None:
    y = {"name": "y", "datatype": "FP32", "shape": [-1, 197, 768]}
    metadata = {"outputs": [y, {"name": "z", "datatype": "INT8", "shape": [-1]}]}
    assert Expected.of_model(metadata, 8, 4).outputs == (("y", "FP32", (4, 197, 768)), ("z", "INT8", (4,)))
    assert Expected.of_model(metadata, 0, 1, ["z"]).outputs == (("z", "INT8", (-1,)),)


def test_bf16_and_strings_become_arrays() -> None:
    ones = (Protocol.GRPC, *body_of(Protocol.GRPC, ("y", "BF16", (2,), b"\x80\x3f\x00\xc0")))
    (output,) = parse(*ones)
    assert as_array(output, ones[1][output.start : output.end]).tolist() == [1.0, -2.0]
    body, head = body_of(Protocol.HTTP, ("s", "BYTES", (2,), length_prefixed([b"a", b"bc"])))
    (output,) = parse(Protocol.HTTP, body, head)
    assert as_array(output, body[output.start : output.end]).tolist() == [b"a", b"bc"]


@given(size=st.integers(0, 64))
def test_a_region_that_is_never_written_is_told_and_a_written_one_is_not(size: int) -> None:
    check = AnswerCheck(Protocol.GRPC, Expected((("y", "UINT8", (size,)),)))
    body, _ = body_of(Protocol.GRPC, ("y", "UINT8", (size,), b""))
    region = memoryview(bytearray(size))
    assert check.check(body, 0, {"y": region}) == ""
    blank(region)
    assert ("not written" in check.check(body, 0, {"y": region})) == (size >= 8)


FAULTS = {
    "empty": "shape [0, 16], not [1, 16]",
    "wrong_shape": "shape [1, 8], not [1, 16]",
    "wrong_values": "16 of 16 values differ",
    "nan": "16 of 16 values differ",
    "error": "this request fails on purpose",
}


@pytest.mark.e2e
@pytest.mark.parametrize("mode", FAULTS)
@both
def test_triton_s_wrong_answers_are_seen(triton: EmbeddedTriton, mode: str, protocol: Protocol) -> None:
    told = FAULTS[mode]
    control = Triton(triton.target)
    control.load("faulty")
    config = control.config("faulty")
    config["parameters"] = {"mode": {"string_value": mode}, "fraction": {"string_value": "0.5"}}
    control.load("faulty", config)
    metadata = control.metadata("faulty")
    tensors = for_model(metadata, 64, 1, seed=0)
    right = np.frombuffer(tensors[0].data, "<f4").reshape(1, 16)
    check = AnswerCheck.for_model(metadata, 64, 1, protocol, reference=({"y": right}, 1e-5, 1e-5))
    connection: HttpConnection | GrpcConnection
    if protocol is Protocol.HTTP:
        connection = HttpConnection(triton.target.http_url, timeout_s=10)
        request = http_request(tensors, ["y"], host="h", model="faulty")
    else:
        assert triton.target.grpc_address is not None
        connection = GrpcConnection(triton.target.grpc_address, timeout_s=10)
        request = grpc_message(tensors, ["y"], model="faulty")
    found = []
    for _ in range(4):
        reply = connection.exchange(request)
        wrong = reply.error or check.check(reply.body, reply.head_length)
        found.append(wrong or check.check_values(reply.body, reply.head_length))
    connection.close()
    control.close()
    assert [told in wrong for wrong in found] == [False, True, False, True], found
    assert found[0] == found[2] == ""
