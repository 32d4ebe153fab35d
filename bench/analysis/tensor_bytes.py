"""Bytes of tensors that travel for one image, from the model's configuration. Headers are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from bench.protocols.payload import DTYPES, IMAGE


def image_bytes(config: Mapping[str, Any], height: int, width: int) -> tuple[int | None, int | None]:
    """(in, out). None where an axis is open, or a size is the data's own (JPEG files, strings)."""
    return _total(config.get("input") or (), height, width), _total(config.get("output") or (), height, width)


def _total(section: Sequence[Mapping[str, Any]], height: int, width: int) -> int | None:
    sizes = [_bytes(entry, height, width) for entry in section]
    return None if not sizes or None in sizes else sum(size or 0 for size in sizes)


def _bytes(entry: Mapping[str, Any], height: int, width: int) -> int | None:
    datatype = str(entry.get("data_type", "")).removeprefix("TYPE_")
    dims = [int(axis) for axis in entry.get("dims") or ()]
    if entry.get("name") == IMAGE and len(dims) == 3:
        dims = [axis if axis > 0 else size for axis, size in zip(dims, (height, width, 3), strict=True)]
    if datatype not in DTYPES or any(axis < 0 for axis in dims):
        return None
    return prod(dims) * DTYPES[datatype].itemsize
