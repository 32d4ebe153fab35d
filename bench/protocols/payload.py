"""What a request carries: seeded tensors, and the bytes that take them to Triton, built once.

Every byte is fixed by (metadata, batch, seed, image size), so two processes send the same requests
and a reference computed elsewhere belongs to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any
from urllib.parse import quote

import numpy as np

from bench.core.datatypes import DTYPES, IMAGE
from bench.core.errors import WrongUse
from bench.protocols.images import images, jpegs

_FREE_AXIS = 16  # length of an axis the model leaves open


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


_NOTHING_SHARED = Shared()


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
            pixels = images(seed, batch, height, width).astype(DTYPES[datatype])
            tensor = Tensor(name, datatype, (*lead, height, width, 3), pixels.tobytes())
        else:
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


def http_request(
    tensors: Sequence[Tensor],
    outputs: Sequence[str],
    *,
    host: str,
    model: str,
    version: str = "",
    headers: Sequence[tuple[str, str]] = (),
    path_prefix: str = "",
    shared: Shared = _NOTHING_SHARED,
) -> bytes:
    """A whole HTTP/1.1 inference request: head, JSON, and the tensors as binary data.

    No `outputs`: all of them. Raises WrongUse for headers that would break or change the request.
    Source: the binary-data and shared-memory extensions of the KServe v2 protocol.
    """
    parts = [tensor.data for tensor in tensors if tensor.name not in shared.inputs]
    described = json.dumps(_http_json(tensors, outputs, shared), separators=(",", ":")).encode()
    path = f"{path_prefix}/v2/models/{quote(model, safe='')}"
    path += f"/versions/{quote(version, safe='')}/infer" if version else "/infer"
    lines = [f"POST {path} HTTP/1.1"]
    lines += [] if any(name.lower() == "host" for name, _ in headers) else [f"Host: {host}"]
    # Without `identity`, a client library's or proxy's default lets Triton compress tensors.
    lines += ["Accept-Encoding: identity", "Connection: keep-alive", "Content-Type: application/octet-stream"]
    lines += [f"Inference-Header-Content-Length: {len(described)}"]
    lines += [f"Content-Length: {len(described) + sum(map(len, parts))}"]
    lines += [f"{name}: {value}" for name, value in checked_headers(headers)]
    head = "\r\n".join([*lines, "", ""])
    _refuse_control(path + host, "the address")
    return b"".join([head.encode("latin-1"), described, *parts])


_OURS = frozenset(
    [
        *("accept-encoding", "connection", "content-length", "content-type", "expect"),
        *("inference-header-content-length", "te", "transfer-encoding", "upgrade"),
    ]
)
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def checked_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers, if they can be sent as they are. Values are never shown: they may be secret.

    Raises WrongUse, all mistakes at once. Source of the grammar: RFC 9110, section 5.
    """
    mistakes = []
    for name, value in headers:
        if not name or not _TOKEN.issuperset(name.lower()):
            mistakes.append(f"{name!r} is no header name: letters, digits and - only.")
        elif name.lower() in _OURS:
            mistakes.append(f"the header {name!r} is set by the suite: leave it out.")
        elif any(not (c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff") for c in value):
            mistakes.append(f"the value of the header {name!r} holds line breaks or control characters.")
    if mistakes:
        raise WrongUse(mistakes)
    return [(name, value.strip(" \t")) for name, value in headers]


def _refuse_control(text: str, what: str) -> None:
    if any(c <= " " or c > "~" for c in text):
        raise WrongUse([f"{what} {text!r} holds spaces or characters outside ASCII."])


def _http_json(tensors: Sequence[Tensor], outputs: Sequence[str], shared: Shared) -> dict[str, Any]:
    inputs = []
    for tensor in tensors:
        region = shared.inputs.get(tensor.name)
        placed = _placed(region) if region else {"binary_data_size": len(tensor.data)}
        inputs.append(
            {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, "parameters": placed}
        )
    wanted = []
    for name in outputs:
        region = shared.outputs.get(name)
        wanted.append({"name": name, "parameters": _placed(region) if region else {"binary_data": True}})
    if not wanted:
        return {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return {"inputs": inputs, "outputs": wanted}


def _placed(region: Region) -> dict[str, str | int]:
    placed: dict[str, str | int] = {
        "shared_memory_region": region.name,
        "shared_memory_byte_size": region.byte_size,
    }
    return placed | ({"shared_memory_offset": region.offset} if region.offset else {})


def grpc_message(
    tensors: Sequence[Tensor],
    outputs: Sequence[str],
    *,
    model: str,
    version: str = "",
    shared: Shared = _NOTHING_SHARED,
) -> bytes:
    """A serialized `inference.ModelInferRequest`, tensors as raw contents. No `outputs`: all of them."""
    from tritonclient.grpc import service_pb2  # grpc takes 0.3 s to import, and HTTP needs none of it

    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for tensor in tensors:
        described = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.name in shared.inputs:
            _place(described.parameters, shared.inputs[tensor.name])
        else:
            request.raw_input_contents.append(tensor.data)
    for name in outputs:
        wanted = request.outputs.add(name=name)
        if name in shared.outputs:
            _place(wanted.parameters, shared.outputs[name])
    message: bytes = request.SerializeToString(deterministic=True)
    return message


def _place(parameters: Any, region: Region) -> None:
    for name, value in _placed(region).items():
        if isinstance(value, str):
            parameters[name].string_param = value
        else:
            parameters[name].int64_param = value
