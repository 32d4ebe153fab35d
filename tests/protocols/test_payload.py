"""The same arguments give the same bytes, and the bytes are what Triton's own client would send."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from bench.core.datatypes import DTYPES
from bench.core.errors import WrongUse
from bench.protocols.connection import checked_headers
from bench.protocols.grpc import grpc_message
from bench.protocols.http1 import http_request
from bench.protocols.images import images
from bench.protocols.payload import Region, Shared, Tensor, for_model, length_prefixed

SIDES = st.integers(1, 40)


def described(*inputs: tuple[str, str, list[int]]) -> dict[str, Any]:
    return {"name": "m", "inputs": [dict(zip(("name", "datatype", "shape"), i, strict=True)) for i in inputs]}


VIT = described(("image", "FP32", [-1, -1, -1, -1]))


@given(seed=st.integers(0, 2**32), count=st.integers(1, 64), height=SIDES, width=SIDES)
@settings(max_examples=30, deadline=None)
def test_images_are_reproducible_finite_and_distinct(seed: int, count: int, height: int, width: int) -> None:
    pixels = images(seed, count, height, width)
    assert (pixels.dtype, pixels.shape) == (np.float32, (count, height, width, 3))
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    assert len({image.tobytes() for image in pixels}) == count
    assert np.array_equal(pixels, images(seed, count, height, width))


def test_other_seeds_give_other_images() -> None:
    assert not np.array_equal(images(0, 1, 32, 32), images(1, 1, 32, 32))


def test_both_wires_carry_the_same_pixels() -> None:
    (wide,) = for_model(VIT, 8, 2, seed=3, image_height=10, image_width=20)
    bytewise = described(("image", "UINT8", [-1, -1, -1, 3]))
    (narrow,) = for_model(bytewise, 8, 2, seed=3, image_height=10, image_width=20)
    assert wide.shape == narrow.shape == (2, 10, 20, 3)
    assert np.array_equal(np.frombuffer(wide.data, "<f4"), np.frombuffer(narrow.data, "u1"))


SHAPES = {
    "an image of any size takes the size asked for": (("image", [-1, -1, -1, -1]), 8, 2, (2, 10, 20, 3)),
    "a size the model fixes is kept": (("image", [-1, 224, 224, 3]), 8, 1, (1, 224, 224, 3)),
    "without a batch axis there is none": (("image", [-1, -1, 3]), 0, 1, (10, 20, 3)),
    "an open axis of another input is closed": (("x", [-1, -1]), 8, 2, (2, 16)),
    "an image with its channels first is no picture here": (("image", [-1, 3, 8, 8]), 8, 1, (1, 3, 8, 8)),
}


@pytest.mark.parametrize(("told", "most", "batch", "shape"), SHAPES.values(), ids=list(SHAPES))
def test_shapes(told: tuple[str, list[int]], most: int, batch: int, shape: tuple[int, ...]) -> None:
    metadata = described((told[0], "FP32", told[1]))
    (tensor,) = for_model(metadata, most, batch, seed=0, image_height=10, image_width=20)
    assert tensor.shape == shape
    assert len(tensor.data) == np.prod(shape) * DTYPES[tensor.datatype].itemsize


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_every_datatype_gets_finite_data_that_differs_between_inputs(datatype: str) -> None:
    metadata = described(("a", datatype, [-1, 50]), ("b", datatype, [-1, 50]))
    one, two = for_model(metadata, 8, 3, seed=0)
    assert one.shape == (3, 50)
    assert one.data != two.data
    assert one.data == for_model(metadata, 8, 3, seed=0)[0].data
    if datatype == "BF16":
        values = (np.frombuffer(one.data, "<u2").astype(np.uint32) << 16).view(np.float32)
        assert np.isfinite(values).all()
    elif datatype != "BYTES":
        assert np.isfinite(np.frombuffer(one.data, DTYPES[datatype])).all()


def test_an_image_of_bytes_is_a_jpeg() -> None:
    from PIL import Image

    (tensor,) = for_model(
        described(("image", "BYTES", [-1, 1])), 8, 2, seed=0, image_height=48, image_width=64
    )
    assert tensor.shape == (2, 1)
    first = int.from_bytes(tensor.data[:4], "little")
    with Image.open(io.BytesIO(tensor.data[4 : 4 + first])) as picture:
        assert (picture.format, picture.size) == ("JPEG", (64, 48))


WRONG = {
    "no items": (VIT, 8, 0),
    "more than the model takes": (VIT, 8, 9),
    "a batch without a batch axis": (described(("image", "FP32", [-1, -1, 3])), 0, 2),
    "dimensions beyond any request": (described(("x", "FP32", [10**9, 10**9])), 0, 1),
    "an image beyond any request": (described(("image", "FP32", [10**6, 10**6, 3])), 0, 1),
    "a datatype nobody knows": (described(("x", "FP4", [4])), 0, 1),
}


@pytest.mark.parametrize(("metadata", "most", "batch"), WRONG.values(), ids=list(WRONG))
def test_what_the_model_cannot_take_is_refused(metadata: dict[str, Any], most: int, batch: int) -> None:
    with pytest.raises(WrongUse):
        for_model(metadata, most, batch, seed=0)


FOUR = np.arange(4, dtype="<f4").reshape(2, 2)
TENSORS = (
    Tensor("a", "FP32", (2, 2), FOUR.tobytes()),
    Tensor("b", "BYTES", (1,), length_prefixed([b"hello"])),
)


def theirs() -> list[triton_http.InferInput]:
    a = triton_http.InferInput("a", [2, 2], "FP32").set_data_from_numpy(FOUR)
    b = triton_http.InferInput("b", [1], "BYTES").set_data_from_numpy(np.array([b"hello"], dtype=object))
    return [a, b]


def split(request: bytes) -> tuple[dict[str, str], Any, bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {"": lines[0]} | dict(line.split(": ", 1) for line in lines[1:])
    size = int(fields["Inference-Header-Content-Length"])
    assert int(fields["Content-Length"]) == len(body)
    return fields, json.loads(body[:size]), body[size:]


@pytest.mark.parametrize("outputs", [[], ["y", "z"]], ids=["all outputs", "some outputs"])
def test_the_body_is_the_one_tritonclient_makes(outputs: list[str]) -> None:
    fields, told, binary = split(http_request(TENSORS, outputs, host="h:1", model="m"))
    asked = [triton_http.InferRequestedOutput(name) for name in outputs] or None
    body, size = triton_http.InferenceServerClient.generate_request_body(theirs(), outputs=asked)
    assert told == json.loads(body[:size])
    assert binary == body[size:]
    assert fields[""] == "POST /v2/models/m/infer HTTP/1.1"
    assert fields["Host"] == "h:1"
    assert fields["Accept-Encoding"] == "identity"


def test_version_prefix_and_headers_are_in_the_head() -> None:
    sent = [("Authorization", "Bearer x"), ("Host", "other")]
    request = http_request(TENSORS, [], host="h", model="a b/c", version="2", path_prefix="/t", headers=sent)
    fields, _, _ = split(request)
    assert fields[""] == "POST /t/v2/models/a%20b%2Fc/versions/2/infer HTTP/1.1"
    assert fields["Authorization"] == "Bearer x"
    assert request.count(b"Host: ") == 1
    assert fields["Host"] == "other"


BAD_HEADERS = {
    "a line break in a value": ("X", "secret\r\nEvil: 1"),
    "a line feed alone": ("X", "secret\nEvil: 1"),
    "a zero byte": ("X", "secret\0"),
    "text that is no Latin-1": ("X", "secret\u20ac"),
    "a space in a name": ("X Y", "secret"),
    "a line break in a name": ("X\r\nY", "secret"),
    "no name": ("", "secret"),
    "a length of one's own": ("content-LENGTH", "5"),
}


@pytest.mark.parametrize(("name", "value"), BAD_HEADERS.values(), ids=list(BAD_HEADERS))
def test_headers_that_would_change_the_request_are_refused_without_showing_their_value(
    name: str, value: str
) -> None:
    with pytest.raises(WrongUse) as refused:
        http_request(TENSORS, [], host="h", model="m", headers=[("Good", "1"), (name, value)])
    assert "secret" not in str(refused.value)


def test_all_bad_headers_are_told_at_once() -> None:
    with pytest.raises(WrongUse) as refused:
        checked_headers(list(BAD_HEADERS.values()))
    assert len(refused.value.mistakes) == len(BAD_HEADERS)


@pytest.mark.parametrize("place", ["host", "path_prefix"])
def test_an_address_with_line_breaks_is_refused(place: str) -> None:
    with pytest.raises(WrongUse):
        http_request(TENSORS, [], **({"host": "h", "model": "m"} | {place: "x\r\ny"}))


def test_the_grpc_message_says_the_same() -> None:
    message = service_pb2.ModelInferRequest.FromString(grpc_message(TENSORS, ["y"], model="m", version="2"))
    assert (message.model_name, message.model_version) == ("m", "2")
    told = [(i.name, i.datatype, tuple(i.shape)) for i in message.inputs]
    assert told == [(t.name, t.datatype, t.shape) for t in TENSORS]
    assert [output.name for output in message.outputs] == ["y"]
    assert list(message.raw_input_contents) == [tensor.data for tensor in TENSORS]


def test_shared_tensors_are_named_and_not_sent() -> None:
    shared = Shared({"a": Region("in", 16, 4096)}, {"y": Region("out", 8)})
    _, told, binary = split(http_request(TENSORS, ["y", "z"], host="h", model="m", shared=shared))
    placed = {"shared_memory_region": "in", "shared_memory_byte_size": 16, "shared_memory_offset": 4096}
    assert told["inputs"][0]["parameters"] == placed
    assert told["outputs"][0]["parameters"] == {"shared_memory_region": "out", "shared_memory_byte_size": 8}
    assert told["outputs"][1]["parameters"] == {"binary_data": True}
    assert binary == TENSORS[1].data

    message = service_pb2.ModelInferRequest.FromString(
        grpc_message(TENSORS, ["y", "z"], model="m", shared=shared)
    )
    assert message.inputs[0].parameters["shared_memory_region"].string_param == "in"
    assert message.inputs[0].parameters["shared_memory_offset"].int64_param == 4096
    assert message.outputs[0].parameters["shared_memory_byte_size"].int64_param == 8
    assert list(message.raw_input_contents) == [TENSORS[1].data]
