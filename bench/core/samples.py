"""The record: one row a request, four int64 columns, and nothing else.

Every figure the suite prints about requests is computed from these columns. Times are nanoseconds of
one monotonic clock (`time.monotonic_ns`), which all processes of a host share.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from bench.core.files import write_bytes

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
COLUMNS = ("intended_ns", "sent_ns", "done_ns", "outcome")
# Samples pack to about a third of their size, since times differ. An archive that would unpack to more than
# so many times its size, and to more than so many bytes, was not written by us.
_MOST_RATIO = 32
_LEAST_BOUND_BYTES = 64 << 20
# What Python's zip reader raises for archives that are damaged, encrypted, or packed in another way.
_NO_ARCHIVE = (BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, struct.error, RuntimeError)
_NPY_HEAD = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<i8', 'fortran_order': False, 'shape': \((?P<n>\d{1,18}),\), \} *\n",
    re.DOTALL,
)


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
        """Read what `save` wrote. Raises OSError, and ValueError for a file that `save` did not write.

        Memory is bounded by the file's size: nothing is unpacked that claims to be much larger.
        """
        with path.open("rb") as file:
            try:
                with ZipFile(file) as archive:
                    return cls._of(archive, os.fstat(file.fileno()).st_size)
            except _NO_ARCHIVE as error:
                raise ValueError(f"it is no archive of samples ({error})") from error

    @classmethod
    def _of(cls, archive: ZipFile, size: int) -> Samples:
        entries = [archive.getinfo(f"{name}.npy") for name in COLUMNS]
        if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
            raise ValueError("it is packed in a way that samples are not")
        if sum(entry.file_size for entry in entries) > _LEAST_BOUND_BYTES + _MOST_RATIO * size:
            raise ValueError("its columns would be far larger than samples of this file's size are")
        columns = [_column(archive.read(entry)) for entry in entries]
        if len({len(column) for column in columns}) > 1:
            raise ValueError("its columns are of unequal length")
        return cls(*columns)

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


def _column(content: bytes) -> Int64:
    """A one-dimensional int64 array as numpy's format 1.0 has it. Raises ValueError for anything else."""
    head = _NPY_HEAD.match(content)
    if head is None or head.end() != 10 + int.from_bytes(content[8:10], "little"):
        raise ValueError("a column is no array of whole numbers")
    if len(content) != head.end() + 8 * int(head["n"]):
        raise ValueError("a column is cut off")
    return np.frombuffer(content, np.int64, offset=head.end()).copy()
