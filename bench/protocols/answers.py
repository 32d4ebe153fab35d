"""What a right answer looks like: its frame is checked each time, its values now and then.

Triton's frame around the tensors (HTTP: the JSON; gRPC: the fields before the raw contents) is the
same for each answer to the same request. So a frame is parsed once, and from then on compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bench.core.cell import Protocol
from bench.protocols.answer_parser import Frame, MalformedAnswer, Output, as_array, parse, wrong_bytes
from bench.protocols.value_check import Bounds


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


class AnswerCheck:
    """Can be shared by all users of one load: they ask the same and are answered the same."""

    def __init__(
        self, protocol: Protocol, expected: Expected, bounds: Mapping[str, Bounds] | None = None
    ) -> None:
        self._protocol = protocol
        self._expected = expected
        self._bounds = bounds or {}
        self._known: Frame | None = None
        asked = {name for name, _, _ in expected.outputs}
        if unknown := sorted(set(self._bounds) - asked):
            raise ValueError(f"the reference has outputs that are not asked for: {', '.join(unknown)}")

    @classmethod
    def for_model(
        cls,
        metadata: Mapping[str, Any],
        max_batch_size: int,
        batch: int,
        protocol: Protocol,
        *,
        outputs: Sequence[str] = (),
        reference: tuple[Mapping[str, NDArray[Any]], float, float] | None = None,
    ) -> AnswerCheck:
        """`reference`: (output name -> array, first axis the batch; relative and absolute tolerance)."""
        expected = Expected.of_model(metadata, max_batch_size, batch, outputs)
        arrays, relative, absolute = reference or ({}, 0.0, 0.0)
        bounds = {
            name: Bounds(array if max_batch_size else array[0], relative, absolute)
            for name, array in arrays.items()
        }
        return cls(protocol, expected, bounds)

    @property
    def has_reference(self) -> bool:
        return bool(self._bounds)

    def check(
        self, body: memoryview, head_length: int = 0, regions: Mapping[str, memoryview] | None = None
    ) -> str:
        """What is wrong with the answer's frame, or "".

        `regions`: the outputs that lie in shared memory, each blanked before the request.
        """
        if self._known is None or not self._known.fits(body):
            wrong = self._learn(body, head_length, regions or {})
            if wrong:
                return wrong
        return _unwritten(regions) if regions else ""

    def check_values(
        self, body: memoryview, head_length: int = 0, regions: Mapping[str, memoryview] | None = None
    ) -> str:
        """What is wrong with the values of an answer whose frame is right, or ""."""
        known = self._known
        try:
            outputs = (
                known.outputs if known and known.fits(body) else parse(self._protocol, body, head_length)
            )
        except MalformedAnswer as error:
            return str(error)
        for output in outputs:
            if output.name in self._bounds:
                data = (regions or {}).get(output.name, body[output.start : output.end])
                wrong = self._bounds[output.name].wrong(output.name, as_array(output, data))
                if wrong:
                    return wrong
        return ""

    def _learn(self, body: memoryview, head_length: int, regions: Mapping[str, memoryview]) -> str:
        try:
            outputs = parse(self._protocol, body, head_length)
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


# No likely answer, in any datatype. Below 8 bytes it could be one.
_BLANK = bytes.fromhex("a55bf2e9c307fd86")


def blank(region: memoryview) -> None:
    """Mark an output's shared memory: an answer that is never written must not pass for the last one."""
    if len(region) >= len(_BLANK):
        region[: len(_BLANK)] = region[-len(_BLANK) :] = _BLANK


def is_blank(region: memoryview) -> bool:
    """Whether the first or the last bytes are still the mark."""
    return bytes(region[: len(_BLANK)]) == _BLANK or bytes(region[-len(_BLANK) :]) == _BLANK
