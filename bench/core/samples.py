"""The record: one row a request, four int64 columns, and nothing else.

Every figure the suite prints about requests is computed from these columns. Times are nanoseconds of
one monotonic clock (`time.monotonic_ns`), which all processes of a host share.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.core.files import write_bytes

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
COLUMNS = ("intended_ns", "sent_ns", "done_ns", "outcome")


class Outcome(IntEnum):
    """How a request ended. Everything but OK is a failure, and stays in the record."""

    OK = 0
    SERVER_ERROR = 1  # Triton answered, with an error
    CONNECTION = 2  # refused, reset, closed, or a broken answer
    TIMEOUT = 3
    WRONG_ANSWER = 4  # status fine; shape, dtype, byte count or values are not
    UNFINISHED = 5  # planned, but without an answer when the trial ended
    CLIENT = 6  # this machine or process had no more files, ports, buffers or memory for it


# How a failure of each kind is called.
KINDS: Mapping[Outcome, str] = {
    Outcome.SERVER_ERROR: "server error",
    Outcome.CONNECTION: "broken connection",
    Outcome.TIMEOUT: "timeout",
    Outcome.WRONG_ANSWER: "wrong answer",
    Outcome.UNFINISHED: "unfinished at the end",
    Outcome.CLIENT: "own limit",
}


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of the monotonic clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Columns of equal length n, int64. `intended_ns` equals `sent_ns` in a closed loop."""

    intended_ns: Int64
    sent_ns: Int64
    done_ns: Int64
    outcome: Int64

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int]]) -> Samples:
        table = np.array(list(rows), dtype=np.int64).reshape(-1, 4)
        return cls(*(np.ascontiguousarray(column) for column in table.T))

    @classmethod
    def merge(cls, parts: Iterable[Samples]) -> Samples:
        """All rows of all parts, ordered by when they were intended; the order of parts is irrelevant."""
        rows = list(parts)
        if not rows:
            return cls.of([])
        table = [np.concatenate([getattr(part, name) for part in rows]) for name in COLUMNS]
        order = np.lexsort(table[::-1])
        return cls(*(column[order] for column in table))

    @classmethod
    def load(cls, path: Path) -> Samples:
        with np.load(path) as archive:
            return cls(*(archive[name] for name in COLUMNS))

    def save(self, path: Path) -> None:
        """Write an .npz atomically. Raises RunFolderError where it cannot be written."""
        archive = io.BytesIO()
        np.savez_compressed(archive, **{name: getattr(self, name) for name in COLUMNS})
        write_bytes(path, archive.getvalue())

    def __len__(self) -> int:
        return len(self.outcome)

    def where(self, mask: NDArray[np.bool_]) -> Samples:
        return Samples(*(getattr(self, name)[mask] for name in COLUMNS))

    def done_in(self, window: Window) -> Samples:
        """Requests that ended inside the window."""
        return self.where((self.done_ns >= window.start_ns) & (self.done_ns < window.end_ns))

    def intended_in(self, window: Window) -> Samples:
        """Requests that were due inside the window, whenever they ended: what an open loop asks about."""
        return self.where((self.intended_ns >= window.start_ns) & (self.intended_ns < window.end_ns))

    def good(self) -> Samples:
        return self.where(self.outcome == Outcome.OK)

    def failed(self) -> Samples:
        return self.where(self.outcome != Outcome.OK)

    def failures(self) -> dict[Outcome, int]:
        """How many failed in each way, for the ways in which some did."""
        counts = {kind: int((self.outcome == kind).sum()) for kind in KINDS}
        return {kind: count for kind, count in counts.items() if count}

    @property
    def response_ns(self) -> Int64:
        """Done minus intended: what a caller who wanted an answer at `intended` waited."""
        return self.done_ns - self.intended_ns

    @property
    def service_ns(self) -> Int64:
        """Done minus sent."""
        return self.done_ns - self.sent_ns

    @property
    def lateness_ns(self) -> Int64:
        """Sent minus intended: the generator's own delay."""
        return self.sent_ns - self.intended_ns
