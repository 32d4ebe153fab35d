"""System shared memory: tensors of requests and answers stay on the host, and only their places travel.

One POSIX segment a process holds the inputs, written once, and a slot for each user's outputs; it is
registered at the server as one region. The segment's file is locked while its owner lives, so that
leftovers of a crash can be told from a neighbour's segment, and are removed by the next start.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from bench.core.datatypes import DTYPES
from bench.core.errors import TargetError, ToolError, Unreachable, WrongUse
from bench.core.samples import Outcome
from bench.core.scratch import SEGMENTS, SHARED_MEMORY, is_held
from bench.core.target import Target
from bench.protocols.answers import Expected, blank
from bench.protocols.http1 import HttpConnection, control_request
from bench.protocols.payload import Region, Shared, Tensor

PREFIX, FOLDER = SEGMENTS, SHARED_MEMORY
_CONTROL_TIMEOUT_S = 10.0
_CONTROL_BYTES = 16 << 20
# Slots begin at multiples of a page, so that no two users write to the same one.
_PAGE = 4096
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Slot:
    """One user's part: where its request says the tensors are, and the outputs' bytes."""

    shared: Shared
    outputs: Mapping[str, memoryview]

    def blank(self) -> None:
        """Before each request: the last answer must not pass for the next."""
        for region in self.outputs.values():
            blank(region)


class SharedSegment:
    """The segment of one process. Use as a context manager, or `close` it.

    Raises WrongUse for outputs without a fixed size, ToolError when the host has no room for it,
    TargetError when the server cannot map it.
    """

    def __init__(self, target: Target, tensors: Sequence[Tensor], expected: Expected, users: int) -> None:
        self._target = target
        self._output_bytes = output_bytes(expected)
        inputs_end = sum(map(_paged, (len(tensor.data) for tensor in tensors)))
        slot_bytes = sum(map(_paged, self._output_bytes.values()))
        self._size = max(_PAGE, inputs_end + users * slot_bytes)
        self._first_slot, self._slot_bytes = inputs_end, slot_bytes
        remove_leftovers(target)
        self.name, self._file = _create(self._size)
        try:
            self._map = mmap.mmap(self._file, self._size)
            self._view = memoryview(self._map)
            self._inputs = self._write(tensors)
            body = {"key": f"/{self.name}", "offset": 0, "byte_size": self._size}
            _control(target, "POST", f"region/{self.name}/register", body)
        except BaseException:
            self._remove_file()
            raise

    def __enter__(self) -> SharedSegment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def slot(self, user: int) -> Slot:
        """The part of the `user`th user, from 0."""
        at = self._first_slot + user * self._slot_bytes
        regions, views = {}, {}
        for name, size in self._output_bytes.items():
            regions[name] = Region(self.name, size, at)
            views[name] = self._view[at : at + size]
            at += _paged(size)
        return Slot(Shared(self._inputs, regions), views)

    def close(self) -> None:
        """Unregister and remove. A server that is gone has forgotten the region by itself."""
        with suppress(TargetError):
            _control(self._target, "POST", f"region/{self.name}/unregister", {})
        self._remove_file()

    def _write(self, tensors: Sequence[Tensor]) -> dict[str, Region]:
        regions, at = {}, 0
        for tensor in tensors:
            size = len(tensor.data)
            self._view[at : at + size] = tensor.data
            regions[tensor.name] = Region(self.name, size, at)
            at += _paged(size)
        return regions

    def _remove_file(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(FOLDER / self.name)
        with suppress(OSError):
            os.close(self._file)


def _paged(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def output_bytes(expected: Expected) -> dict[str, int]:
    """Bytes of each output. Raises WrongUse, all mistakes at once, where they are not fixed."""
    sizes, mistakes = {}, []
    for name, datatype, shape in expected.outputs:
        if datatype not in DTYPES or min(shape, default=1) < 0:
            mistakes.append(
                f"--shared-memory system: output {name!r} ({datatype} {list(shape)}) has no fixed size; "
                "use --shared-memory none with this model."
            )
        else:
            sizes[name] = prod(shape) * DTYPES[datatype].itemsize
    if mistakes:
        raise WrongUse(mistakes)
    return sizes


def _create(size: int) -> tuple[str, int]:
    """A new segment, locked. Raises ToolError."""
    while True:
        name = f"{PREFIX}{os.getpid()}_{next(_serial)}"
        try:
            file = os.open(FOLDER / name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except FileExistsError:  # of a dead process with this number, and a neighbour's lock on it
            continue
        except OSError as error:
            raise ToolError(
                f"{FOLDER} cannot be written ({error.strerror}): leave out --shared-memory."
            ) from error
        fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_at(file, FOLDER / name):  # somebody's clean-up came between creating and locking
            os.close(file)
            continue
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            os.unlink(FOLDER / name)
            os.close(file)
            raise ToolError(
                f"{FOLDER} has no room for {size >> 20} MiB of shared memory ({error.strerror}): "
                "ask for fewer users or a smaller batch, or enlarge it (docker run --shm-size)."
            ) from error
        return name, file


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def remove_leftovers(target: Target) -> None:
    """Unregister and remove segments whose owners are dead. Raises TargetError without a reachable server."""
    for name in _registered(target):
        if name.startswith(PREFIX) and not is_held(FOLDER / name):
            _control(target, "POST", f"region/{name}/unregister", {})
    for path in FOLDER.glob(f"{PREFIX}*"):
        if not is_held(path):
            path.unlink(missing_ok=True)


def _registered(target: Target) -> Iterator[str]:
    regions = _control(target, "GET", "status")
    for region in regions if isinstance(regions, list) else []:
        if isinstance(region, dict):
            yield str(region.get("name", ""))


def _control(target: Target, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One call of Triton's system shared memory extension. Raises TargetError."""
    content = json.dumps(body).encode() if body is not None else b""
    url = f"{target.http_url}/v2/systemsharedmemory/{path}"
    connection = HttpConnection(
        target.http_url, timeout_s=_CONTROL_TIMEOUT_S, max_body_bytes=_CONTROL_BYTES, way=target.access
    )
    reply = connection.exchange(control_request(method, url, target.headers, content))
    connection.close()
    if reply.outcome == Outcome.SERVER_ERROR:
        raise TargetError(
            f"{target.http_url} refused shared memory: {reply.error} The server must run on this host and "
            "see the same /dev/shm (docker run --ipc=host); else leave out --shared-memory."
        )
    if reply.outcome != Outcome.OK:
        raise Unreachable(f"Nothing answers at {target.http_url} ({reply.error}): is the server up?")
    try:
        return json.loads(bytes(reply.body)) if reply.body else None
    except (ValueError, RecursionError):
        raise TargetError(f"{url} answered no JSON: is it a Triton?") from None
