"""What is in an answer, and whether its frame is right. `value_check` compares the values.

Triton's frame around the tensors (HTTP: the JSON; gRPC: the fields before the raw contents) is the
same for each answer to the same request. So a frame is parsed once, and from then on compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.datatypes import DTYPES
from bench.protocols.connection import MAX_BODY_BYTES


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


# A protocol's parser: the body of a reply and its head length -> the outputs. It raises MalformedAnswer.
Parse = Callable[[memoryview, int], tuple[Output, ...]]


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


@dataclass(frozen=True, slots=True)
class Expected:
    """The outputs asked for: (name, datatype, shape); -1 in a shape fits any length of at least 1."""

    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]

    @classmethod
    def of_model(
        cls, metadata: Mapping[str, Any], max_batch_size: int, batch: int, outputs: Sequence[str] = ()
    ) -> Expected:
        """What a model (`GET /v2/models/M`) answers to `batch` items; no `outputs`: all of them."""
        found = []
        for described in metadata["outputs"]:
            shape = tuple(int(axis) for axis in described["shape"])
            shape = (batch, *shape[1:]) if max_batch_size else shape
            if not outputs or described["name"] in outputs:
                found.append((str(described["name"]), str(described["datatype"]), shape))
        return cls(tuple(found))


# An answer is more than its tensors: descriptions, frames, or an error's text instead.
_SLACK_BYTES = 1 << 20
# Of a model that leaves an axis of an output open, or answers with strings.
_OPEN_BYTES = 64 << 20


def most_bytes(expected: Expected, asked: int | None = None) -> int:
    """The largest answer that is taken: of what the outputs need and what is `asked` for, the smaller."""
    needed = None
    if all(name in DTYPES and min(shape, default=1) >= 0 for _, name, shape in expected.outputs):
        tensors = sum(prod(shape) * DTYPES[name].itemsize for _, name, shape in expected.outputs)
        needed = min(MAX_BODY_BYTES, tensors + tensors // 8 + _SLACK_BYTES)
    if asked is None:
        return _OPEN_BYTES if needed is None else needed
    return asked if needed is None else min(asked, needed)


class AnswerCheck:
    """Checks the frame of each answer to one request: names, datatypes, shapes and byte counts.

    All users of one load can share it: they ask the same and are answered the same.
    """

    def __init__(self, parse: Parse, expected: Expected) -> None:
        self._parse = parse
        self._expected = expected
        self._known: Frame | None = None

    def check(
        self, body: memoryview, head_length: int = 0, regions: Mapping[str, memoryview] | None = None
    ) -> str:
        """Say what is wrong with the answer's frame, or "".

        `regions`: the outputs that lie in shared memory, each blanked before the request.
        """
        if self._known is None or not self._known.fits(body):
            wrong = self._learn(body, head_length, regions or {})
            if wrong:
                return wrong
        return _unwritten(regions) if regions else ""

    def _learn(self, body: memoryview, head_length: int, regions: Mapping[str, memoryview]) -> str:
        try:
            outputs = self._parse(body, head_length)
        except MalformedAnswer as error:
            return str(error)
        data = {output.name: regions.get(output.name, body[output.start : output.end]) for output in outputs}
        wrong = wrong_frame(self._expected, outputs, data)
        if not wrong and all(output.datatype != "BYTES" for output in outputs):
            self._known = Frame.of(body, outputs)
        return wrong


def _unwritten(regions: Mapping[str, memoryview]) -> str:
    for name, region in regions.items():
        if is_blank(region):
            return f"output {name!r} was not written to shared memory"
    return ""


def wrong_frame(expected: Expected, outputs: Sequence[Output], data: Mapping[str, memoryview]) -> str:
    """What is wrong with names, datatypes, shapes and byte counts, or ""."""
    found = {output.name: output for output in outputs}
    for name, datatype, shape in expected.outputs:
        output = found.get(name)
        if output is None:
            return f"output {name!r} is missing"
        if output.datatype != datatype:
            return f"output {name!r} has datatype {output.datatype}, not {datatype}"
        if not _shape_fits(shape, output.shape):
            return f"output {name!r} has shape {list(output.shape)}, not {list(shape)}"
        if wrong := wrong_bytes(output, data[name]):
            return wrong
    return ""


def _shape_fits(expected: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if len(expected) != len(shape):
        return False
    return all(axis == known or (known < 0 and axis > 0) for known, axis in zip(expected, shape, strict=True))


# These bytes mark an output that was not written. They are no likely answer in any datatype; a shorter mark
# could be one.
_BLANK = bytes.fromhex("a55bf2e9c307fd86")


def blank(region: memoryview) -> None:
    """Mark an output's shared memory: an answer that is never written must not pass for the last one."""
    if len(region) >= len(_BLANK):
        region[: len(_BLANK)] = region[-len(_BLANK) :] = _BLANK


def is_blank(region: memoryview) -> bool:
    """Whether the first or the last bytes are still the mark."""
    return bytes(region[: len(_BLANK)]) == _BLANK or bytes(region[-len(_BLANK) :]) == _BLANK
