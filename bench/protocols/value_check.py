"""Compares the values of answers with a reference that was computed without Triton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.trial import Reference
from bench.protocols.answers import Parse, as_array
from bench.protocols.connection import Reply


class Bounds:
    """Holds the values that pass for right: `|a - b| <= absolute + relative * |b|`, as in `numpy.allclose`.

    With `distance` also `|a - b| <= distance * |b|` in the L2 norm of all compared: half precision needs
    wide bounds on single values, and a wrong tensor must not fit between them.

    A reference may cover only the first items of a batch; then only these are compared.
    Raises ValueError for a reference nothing can be compared with.
    """

    def __init__(
        self, reference: NDArray[Any], relative: float, absolute: float, distance: float | None = None
    ) -> None:
        if reference.dtype.kind not in "biuf" or not np.isfinite(reference).all():
            raise ValueError("a reference holds values that are no finite numbers")
        # Bounds of float32 stay in float32: half the memory to walk while other users wait.
        kind = np.float32 if reference.dtype in (np.float16, np.float32) else np.float64
        self._reference = np.atleast_1d(reference)
        exact = self._reference.astype(np.float64)
        slack = absolute + relative * np.abs(exact)
        self._farthest = None if distance is None else distance * float(np.linalg.norm(exact))
        self._lower = (exact - slack).astype(kind)
        self._upper = (exact + slack).astype(kind)

    def wrong(self, name: str, values: NDArray[Any]) -> str:
        """Say how the values of output `name` differ from the reference, or ""."""
        values = np.atleast_1d(values)
        shape = self._reference.shape
        if values.shape[1:] != shape[1:] or len(values) < shape[0]:
            return f"output {name!r} has shape {list(values.shape)}, and the reference {list(shape)}"
        values = values[: shape[0]]
        passes = (values >= self._lower) & (values <= self._upper)  # NaN is within no bounds
        if not bool(passes.all()):
            return self._differences(name, values, int(passes.sum()))
        return "" if self._farthest is None else self._too_far(name, values, self._farthest)

    def _too_far(self, name: str, values: NDArray[Any], farthest: float) -> str:
        away = float(np.linalg.norm(values - self._reference))
        if away <= farthest:
            return ""
        return f"output {name!r} is {away:.3g} from the reference (L2), at most {farthest:.3g} is right"

    def _differences(self, name: str, values: NDArray[Any], right: int) -> str:
        with np.errstate(invalid="ignore", over="ignore"):
            worst = np.abs(values.astype(np.float64) - self._reference).max()  # NaN where any is
        wrong = values.size - right
        of = f"{wrong} of {values.size} values"
        return f"output {name!r}: {of} differ from the reference, by up to {worst:.3g}"


Regions = Mapping[str, memoryview]
NO_REGIONS: Regions = {}


class ValueCheck:
    """Compares one item of an answer's batch with its reference; the next answer's next item, and so on.

    `parse`: the protocol's. `reference`: right answers to the seeded payload, first axis the batch. `batch`:
    items in a request. `max_batch`: the model's; 0: it has no batch axis. Raises ValueError as `Bounds`.
    """

    def __init__(self, parse: Parse, reference: Reference, batch: int, max_batch: int) -> None:
        self._parse = parse
        self._has_batch_axis = max_batch > 0
        self._turn = 0
        with np.load(reference.path) as archive:
            self._items = {
                name: [
                    Bounds(item, reference.relative, reference.absolute, reference.distance)
                    for item in archive[name][:batch]
                ]
                for name in archive.files
            }

    def wrong(self, reply: Reply, regions: Regions = NO_REGIONS) -> str:
        """Say what is wrong with the values of an answer whose frame is right, or "".

        `regions`: the outputs that lie in shared memory instead of in the reply.
        """
        self._turn += 1
        for output in self._parse(reply.body, reply.head_length):
            items = self._items.get(output.name)
            if not items:
                continue
            index = self._turn % len(items)
            data = regions.get(output.name, reply.body[output.start : output.end])
            values = as_array(output, data)
            wrong = items[index].wrong(output.name, values[index] if self._has_batch_axis else values)
            if wrong:
                return f"item {index}: {wrong}"
        return ""
