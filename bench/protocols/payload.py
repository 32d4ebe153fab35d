"""What a request carries, whatever protocol takes it to Triton: seeded tensors, and where they lie.

Every byte is fixed by (metadata, batch, seed, image size), so two processes send the same requests
and a reference computed elsewhere belongs to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from bench.core.datatypes import DTYPES, IMAGE
from bench.core.errors import WrongUse
from bench.protocols.images import images, jpegs

# An axis whose length the model leaves open gets this length.
_FREE_AXIS = 16
# No larger input is made up, so that a model's word about its shape cannot fill the memory.
_MOST_INPUT_BYTES = 1 << 30
_STRING_BYTES = 16  # about, of one made up for an input of strings


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as it goes over the wire. `shape` has the batch axis first where the model has one."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Region:
    """A registered shared-memory region that holds one tensor."""

    name: str
    byte_size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """Which tensors lie in shared memory instead of in the request and the answer."""

    inputs: Mapping[str, Region] = field(default_factory=dict)
    outputs: Mapping[str, Region] = field(default_factory=dict)


NOTHING_SHARED = Shared()


@dataclass(frozen=True, slots=True)
class Call:
    """An inference request before a protocol has put it into bytes."""

    model: str
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()  # those that are wanted; (): all
    version: str = ""


def for_model(
    metadata: Mapping[str, Any],
    max_batch_size: int,
    batch: int,
    *,
    seed: int,
    image_height: int = 224,
    image_width: int = 224,
) -> tuple[Tensor, ...]:
    """One request's inputs for the model whose Triton metadata (`GET /v2/models/M`) is given.

    An input named `image` with a last axis of 3 gets images; JPEG files when it is BYTES, or UINT8 with one
    axis (zeros after the shorter ones); all others get seeded finite data.
    Raises WrongUse when the model cannot take that batch.
    """
    _check_batch(metadata, max_batch_size, batch)
    tensors = []
    for index, described in enumerate(metadata["inputs"]):
        name, datatype = str(described["name"]), str(described["datatype"])
        shape = [int(axis) for axis in described["shape"]]
        lead = [batch] if max_batch_size else []
        axes = shape[len(lead) :]
        if name == IMAGE and datatype == "BYTES":
            shape = lead + _closed(axes, 1)
            files = jpegs(seed, prod(shape), image_height, image_width)
            tensor = Tensor(name, datatype, tuple(shape), length_prefixed(files))
        elif name == IMAGE and datatype == "UINT8" and axes == [-1]:
            tensor = padded(name, jpegs(seed, batch, image_height, image_width), bool(lead))
        elif name == IMAGE and datatype in ("FP32", "UINT8") and len(axes) == 3 and axes[2] in (-1, 3):
            height = axes[0] if axes[0] > 0 else image_height
            width = axes[1] if axes[1] > 0 else image_width
            _check_size(name, datatype, [*lead, height, width, 3])
            pixels = images(seed, batch, height, width).astype(DTYPES[datatype])
            tensor = Tensor(name, datatype, (*lead, height, width, 3), pixels.tobytes())
        else:
            _check_size(name, datatype, lead + _closed(axes, _FREE_AXIS))
            tensor = _other(name, datatype, lead + _closed(axes, _FREE_AXIS), [seed, index])
        tensors.append(tensor)
    return tuple(tensors)


def _check_batch(metadata: Mapping[str, Any], max_batch_size: int, batch: int) -> None:
    name = metadata.get("name", "")
    if batch < 1:
        raise WrongUse([f"--batch {batch}: give a whole number of at least 1."])
    if max_batch_size == 0 and batch > 1:
        raise WrongUse(
            [f"--batch {batch}: the model {name!r} has no batch axis, so only --batch 1 is possible."]
        )
    if batch > max_batch_size > 0:
        raise WrongUse([f"--batch {batch}: the model {name!r} takes at most {max_batch_size} a request."])


def _check_size(name: str, datatype: str, shape: Sequence[int]) -> None:
    item_bytes = DTYPES[datatype].itemsize if datatype in DTYPES else _STRING_BYTES
    size = prod(shape) * item_bytes
    if size > _MOST_INPUT_BYTES:
        raise WrongUse(
            [
                f"input {name!r} has {size} bytes in the shape {list(shape)}, and a request carries at most "
                f"{_MOST_INPUT_BYTES >> 20} MiB: lower --batch, or --image, or measure a smaller model."
            ]
        )


def _closed(axes: Sequence[int], length: int) -> list[int]:
    return [axis if axis >= 0 else length for axis in axes]


def padded(name: str, files: Sequence[bytes], has_batch_axis: bool) -> Tensor:
    """Files of several lengths as one UINT8 tensor: a row each."""
    longest = max(map(len, files))
    shape = (len(files), longest) if has_batch_axis else (longest,)
    return Tensor(name, "UINT8", shape, b"".join(file.ljust(longest, b"\0") for file in files))


def _other(name: str, datatype: str, shape: Sequence[int], seed: list[int]) -> Tensor:
    rng = np.random.default_rng(seed)
    count = prod(shape)
    if datatype == "BYTES":
        data = length_prefixed(b"item %d" % number for number in rng.integers(0, 10**6, count))
    elif datatype == "BF16":
        data = (rng.random(count, dtype=np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    elif datatype in ("FP16", "FP32", "FP64"):
        data = rng.random(count).astype(DTYPES[datatype]).tobytes()
    elif datatype in DTYPES:
        data = rng.integers(0, 2 if datatype == "BOOL" else 100, count).astype(DTYPES[datatype]).tobytes()
    else:
        raise WrongUse([f"input {name!r} has the datatype {datatype!r}, which no request can be made for."])
    return Tensor(name, datatype, tuple(shape), data)


def length_prefixed(items: Any) -> bytes:
    """Triton's BYTES layout: each item after its length as a little-endian uint32."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


def placement(region: Region) -> dict[str, str | int]:
    """The parameters, the same over each protocol, that say where in shared memory a tensor lies."""
    parameters: dict[str, str | int] = {
        "shared_memory_region": region.name,
        "shared_memory_byte_size": region.byte_size,
    }
    return parameters | ({"shared_memory_offset": region.offset} if region.offset else {})
