"""Taking answers of both protocols apart: what is a tensor, and what is the frame around it.

Triton's frame around the tensors (HTTP: the JSON; gRPC: the fields before the raw contents) is the
same for each answer to the same request. So a frame is parsed once, and from then on compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.cell import Protocol
from bench.core.datatypes import DTYPES


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of an answer. `start` and `end`: where its bytes lie in the body."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Frame:
    """An answer without its tensors: equal frames and equal lengths, equal answers up to values."""

    length: int
    outputs: tuple[Output, ...]
    pieces: tuple[tuple[int, int, bytes], ...]  # (start, end, content) of all that is no tensor

    @classmethod
    def of(cls, body: memoryview, outputs: Sequence[Output]) -> Frame:
        pieces = []
        at = 0
        for output in sorted(outputs, key=lambda output: output.start):
            pieces.append((at, output.start, bytes(body[at : output.start])))
            at = output.end
        pieces.append((at, len(body), bytes(body[at:])))
        kept = tuple(piece for piece in pieces if piece[2])
        return cls(len(body), tuple(outputs), kept)

    def fits(self, body: memoryview) -> bool:
        if len(body) != self.length:
            return False
        return all(bytes(body[start:end]) == content for start, end, content in self.pieces)


class MalformedAnswer(Exception):
    """The body is no inference answer."""


def parse_http(body: memoryview, head_length: int) -> tuple[Output, ...]:
    """Outputs of an HTTP answer. Raises MalformedAnswer. Source: Triton's binary-data extension."""
    at = head_length or len(body)
    try:
        described = json.loads(bytes(body[:at]))["outputs"]
        outputs = []
        for entry in described:
            if "data" in entry:
                raise MalformedAnswer(f"output {entry['name']!r} came as JSON, not as binary data")
            # No size: the tensor lies in shared memory.
            end = at + int(entry.get("parameters", {}).get("binary_data_size", 0))
            shape = tuple(int(axis) for axis in entry["shape"])
            outputs.append(Output(str(entry["name"]), str(entry["datatype"]), shape, at, end))
            at = end
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedAnswer(f"the answer's JSON is not what Triton sends ({error})") from None
    if at != len(body):
        raise MalformedAnswer(f"the answer has {len(body)} bytes, and its JSON tells of {at}")
    return tuple(outputs)


def parse_grpc(body: memoryview) -> tuple[Output, ...]:
    """Outputs of a serialized ModelInferResponse. Raises MalformedAnswer.

    Source: Triton's grpc_service.proto.
    """
    described: list[tuple[str, str, tuple[int, ...]]] = []
    contents: list[tuple[int, int]] = []
    for number, _, start, end in _fields(body, 0, len(body)):
        if number == 5:
            described.append(_output_tensor(body, start, end))
        elif number == 6:
            contents.append((start, end))
    if len(contents) > len(described):
        raise MalformedAnswer("the answer has more raw contents than outputs")
    nowhere = (len(body), len(body))  # no contents: the tensor lies in shared memory
    contents += [nowhere] * (len(described) - len(contents))
    return tuple(Output(*told, *placed) for told, placed in zip(described, contents, strict=True))


def _output_tensor(body: memoryview, start: int, end: int) -> tuple[str, str, tuple[int, ...]]:
    texts = {1: "", 2: ""}
    shape: list[int] = []
    for number, value, first, last in _fields(body, start, end):
        if number in texts:
            texts[number] = bytes(body[first:last]).decode("utf-8", "replace")
        elif number == 3 and value is not None:
            shape.append(value)
        elif number == 3:  # packed, as proto3 does
            while first < last:
                axis, first = _varint(body, first, last)
                shape.append(axis)
    return texts[1], texts[2], tuple(axis - (1 << 64) if axis >> 63 else axis for axis in shape)


def _fields(body: memoryview, at: int, end: int) -> Iterator[tuple[int, int | None, int, int]]:
    """Protobuf fields: number, value of a varint, bounds of the content."""
    while at < end:
        tag, at = _varint(body, at, end)
        number, wire_type = tag >> 3, tag & 7
        value: int | None = None
        if wire_type == 0:
            start = at
            value, after = _varint(body, at, end)
        elif wire_type == 2:
            length, start = _varint(body, at, end)
            after = start + length
        elif wire_type in (1, 5):
            start, after = at, at + (8 if wire_type == 1 else 4)
        else:
            raise MalformedAnswer("the answer is no protobuf message")
        if after > end:
            raise MalformedAnswer("the answer's protobuf message is cut short")
        yield number, value, start, after
        at = after


def _varint(body: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise MalformedAnswer("the answer's protobuf message is cut short")


def wrong_bytes(output: Output, data: memoryview) -> str:
    """Whether as many bytes came as datatype and shape ask for."""
    if output.datatype == "BYTES":
        items = _count_items(data)
        if items != prod(output.shape):
            return f"output {output.name!r} has {items} strings, and its shape asks for {prod(output.shape)}"
        return ""
    if output.datatype not in DTYPES:
        return f"output {output.name!r} has the unknown datatype {output.datatype}"
    right = prod(output.shape) * DTYPES[output.datatype].itemsize
    if len(data) != right:
        return f"output {output.name!r} has {len(data)} bytes, and its shape asks for {right}"
    return ""


def _count_items(data: memoryview) -> int:
    """Strings in Triton's BYTES layout; -1: cut short."""
    at = items = 0
    while at + 4 <= len(data):
        at += 4 + int.from_bytes(data[at : at + 4], "little")
        items += 1
    return items if at == len(data) else -1


def as_array(output: Output, data: memoryview) -> NDArray[Any]:
    """The output's values: a view of `data`; BF16 becomes float32, and BYTES objects of bytes."""
    if output.datatype == "BYTES":
        return np.array(list(_items(data)), dtype=object).reshape(output.shape)
    values = np.frombuffer(data, DTYPES[output.datatype])
    if output.datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(output.shape)


def _items(data: memoryview) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        yield bytes(data[at + 4 : end])
        at = end


def parse(protocol: Protocol, body: memoryview, head_length: int) -> tuple[Output, ...]:
    """Outputs of an answer. Raises MalformedAnswer."""
    return parse_http(body, head_length) if protocol is Protocol.HTTP else parse_grpc(body)
