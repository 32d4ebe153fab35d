"""The perf_analyzer command of one load level, and the files it reads: input data and arrivals."""

from __future__ import annotations

import base64
import json
import math
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.cell import Protocol, SharedMemory
from bench.core.errors import TargetError, WrongUse
from bench.core.samples import Int64
from bench.core.target import Target
from bench.core.trial import Plan, Served
from bench.loadgen.arrivals import tape_ns
from bench.protocols import payload
from bench.protocols.answers import Expected
from bench.protocols.registry import DRIVERS
from bench.protocols.routes import only_route
from bench.protocols.shared_memory import output_bytes
from bench.server.reference_answers import PAYLOAD_SEED

# perf_analyzer wants at least three windows. With the tolerance below it asks for no more.
WINDOWS = 3
# Its windows are this much longer than what --measurement-interval says.
_SLEEP_FACTOR = 1.2
# It gives no numbers at all where it calls them unstable, so it is told to accept differences of this many
# percent.
_NEVER_UNSTABLE = "1000000"
# An open loop has so many threads, and fewer for requests of `_LARGE_BYTES` or more. With more threads
# requests are late less often, but each thread keeps the tensors of a request and of an answer.
_THREADS, _THREADS_OF_LARGE, _LARGE_BYTES = 16, 4, 2 << 20
# Each input item gets a shared-memory region for a whole batch. All of them together take no more than this.
_MOST_REGION_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Files:
    """All in the trial's own scratch folder. The export's must not exist when perf_analyzer starts."""

    folder: Path

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs.json"

    @property
    def intervals(self) -> Path:
        return self.folder / "intervals-us.txt"

    @property
    def export(self) -> Path:
        return self.folder / "export.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.csv"


def command(
    binary: Path, plan: Plan, target: Target, served: Served, files: Files, span_s: float, request_bytes: int
) -> list[str]:
    """For a load of `span_s` seconds. Holds the target's headers as they are: see `masked`.

    Raises TargetError without a gRPC address, WrongUse for outputs whose size is not fixed.
    """
    load = plan.cell.load
    target = only_route(target, load)
    dialect = _DIALECTS.get(load.protocol)
    if dialect is None:
        known = ", ".join(_DIALECTS)
        raise WrongUse([f"--engine perf_analyzer: not with --protocol {load.protocol}; allowed: {known}"])
    words = [str(binary), "-m", plan.cell.server.model]
    words += ["-x", plan.model_version] if plan.model_version else []
    words += ["-i", load.protocol.value, "-u", _address(target, load.protocol)]
    words += _tls(target, dialect, load.protocol) + _headers(target, dialect)
    words += ["-b", str(load.batch), "--input-data", str(files.inputs)]
    words += _level(plan, files, request_bytes)
    words += _shared_memory(plan, served)
    interval_ms = math.ceil(span_s * 1000 / WINDOWS / _SLEEP_FACTOR)
    words += ["--measurement-interval", str(interval_ms), "-s", _NEVER_UNSTABLE, "-r", str(WINDOWS)]
    words += ["-f", str(files.report), "--verbose-csv", "-v", "--profile-export-file", str(files.export)]
    return words


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The options that perf_analyzer has for one protocol only."""

    use_tls: tuple[str, ...]  # with a TLS address; (): the scheme of the address says so
    authorities: str  # the option that takes a file of authorities to trust
    certificate: str  # that takes our certificate
    key: str  # that takes its key
    any_certificate: tuple[str, ...]  # trusts whatever the server shows; (): it has no such option
    lower_case_headers: bool = False  # it aborts at others


_DIALECTS = {
    Protocol.HTTP: _Dialect(
        (),
        "--ssl-https-ca-certificates-file",
        "--ssl-https-client-certificate-file",
        "--ssl-https-private-key-file",
        ("--ssl-https-verify-peer", "0", "--ssl-https-verify-host", "0"),
    ),
    Protocol.GRPC: _Dialect(
        ("--ssl-grpc-use-ssl",),
        "--ssl-grpc-root-certifications-file",
        "--ssl-grpc-certificate-chain-file",
        "--ssl-grpc-private-key-file",
        (),
        lower_case_headers=True,
    ),
}


def _address(target: Target, protocol: Protocol) -> str:
    driver = DRIVERS[protocol]
    address = driver.address(target)
    if not address:
        raise TargetError(f"The server has no address for --protocol {protocol}: {driver.address_hint}.")
    return address.removeprefix("http://")


def _tls(target: Target, dialect: _Dialect, protocol: Protocol) -> list[str]:
    """Raises WrongUse for what perf_analyzer cannot do."""
    if target.proxy:
        raise WrongUse(["--engine perf_analyzer: not with --proxy; use --engine locust"])
    tls = target.access.tls
    if tls is None:
        return []
    if tls.insecure and not dialect.any_certificate:
        raise WrongUse(
            [f"--engine perf_analyzer: no --insecure with --protocol {protocol}; give the server's --ca"]
        )
    authorities = "" if tls.insecure else tls.ca or ssl.get_default_verify_paths().cafile
    files = {dialect.authorities: authorities, dialect.certificate: tls.certificate}
    files |= {dialect.key: tls.certificate and (tls.key or tls.certificate)}
    words = [word for option, path in files.items() if path for word in (option, path)]
    return [*dialect.use_tls, *(dialect.any_certificate if tls.insecure else ()), *words]


def _headers(target: Target, dialect: _Dialect) -> list[str]:
    words = []
    for name, value in target.headers:
        words += ["-H", f"{name.lower() if dialect.lower_case_headers else name}: {value}"]
    return words


def _level(plan: Plan, files: Files, request_bytes: int) -> list[str]:
    load = plan.cell.load
    if load.is_open_loop:
        # Without --async a handful of threads would make it a closed loop.
        threads = _THREADS if request_bytes < _LARGE_BYTES else _THREADS_OF_LARGE
        return ["--request-intervals", str(files.intervals), "--async", "--max-threads", str(threads)]
    return ["--concurrency-range", str(load.concurrency), "--sync"]


def _shared_memory(plan: Plan, served: Served) -> list[str]:
    load = plan.cell.load
    if load.shared_memory is SharedMemory.NONE:
        return []
    sizes = output_bytes(Expected.of_model(served.metadata, served.max_batch, load.batch))
    largest = str(max(sizes.values()))  # one option for all outputs
    return ["--shared-memory", load.shared_memory.value, "--output-shared-memory-size", largest]


def masked(words: Iterable[str], target: Target) -> list[str]:
    """The command without the values of headers: they may be secret."""
    hidden = {f"{name}: {value}".lower(): name for name, value in target.headers}
    return [f"{hidden[word.lower()]}: ***" if word.lower() in hidden else word for word in words]


def without_secrets(text: str, target: Target) -> str:
    for _, value in target.headers:
        text = text.replace(value, "***") if len(value) > 3 else text
    return text


def write_inputs(plan: Plan, served: Served, files: Files) -> int:
    """The seeded payload of the other engine, item by item: perf_analyzer puts batches together itself.

    Returns the bytes of one request's tensors.

    With as many items as a batch has, every request carries the same bytes as the other engine's.
    Raises WrongUse when the model cannot take that batch.
    """
    tensors = payload.for_model(
        served.metadata,
        served.max_batch,
        plan.cell.load.batch,
        seed=PAYLOAD_SEED,
        image_height=plan.image_height,
        image_width=plan.image_width,
    )
    items = plan.cell.load.batch if served.max_batch else 1
    kept, request_bytes = items, sum(len(tensor.data) for tensor in tensors)
    if plan.cell.load.shared_memory is not SharedMemory.NONE:
        kept = max(1, min(items, _MOST_REGION_BYTES // max(1, request_bytes)))
    with files.inputs.open("w") as file:  # item by item: a batch as one text would need twice the memory
        for index in range(kept):
            file.write('{"data": [' if index == 0 else ", ")
            json.dump(_item(tensors, index, items, bool(served.max_batch)), file)
        file.write("]}")
    return request_bytes


def _item(tensors: Sequence[payload.Tensor], index: int, items: int, batched: bool) -> Mapping[str, Any]:
    return {
        tensor.name: {
            "b64": base64.b64encode(_slice(tensor, index, items)).decode(),
            "shape": list(tensor.shape[1:] if batched else tensor.shape),
        }
        for tensor in tensors
    }


def _slice(tensor: payload.Tensor, index: int, items: int) -> bytes:
    """The bytes of one item of a batch. BYTES elements have a length before each."""
    if tensor.datatype != "BYTES":
        size = len(tensor.data) // items
        return tensor.data[index * size : (index + 1) * size]
    starts = [0]
    while starts[-1] < len(tensor.data):
        at = starts[-1]
        starts.append(at + 4 + int.from_bytes(tensor.data[at : at + 4], "little"))
    each = (len(starts) - 1) // items
    return tensor.data[starts[index * each] : starts[(index + 1) * each]]


def tape(plan: Plan, span_s: float) -> Int64:
    """When requests are due, in ns after the start: the other engine's arrivals for the same seed."""
    load = plan.cell.load
    assert load.rate_per_s is not None
    return tape_ns(load.arrival, load.rate_per_s, span_s, plan.seed)


def write_intervals(due_ns: Int64, files: Files) -> None:
    """Whole microseconds that add up to the tape: no drift. perf_analyzer starts over at their end."""
    due_us = np.round(due_ns / 1000).astype(np.int64)
    files.intervals.write_text("".join(f"{gap}\n" for gap in np.diff(due_us, prepend=0)))
