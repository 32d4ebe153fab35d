"""Unary gRPC over HTTP/2: a request's message, which is built once, a connection, and what is in an answer.

A connection has one call in flight and needs no threads. What grpcio does with a pool of threads it does with
two system calls, for a quarter of the CPU. It knows no compression. `GrpcDriver` is what the rest of the
suite sees of this module.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.core.samples import Outcome
from bench.core.target import PLAIN, Target, Way
from bench.protocols import http2 as h2
from bench.protocols.answers import MalformedAnswer, Output
from bench.protocols.connection import (
    LOW_WATER_FROM,
    LOW_WATER_MOST,
    MAX_BODY_BYTES,
    BrokenAnswer,
    Bytes,
    Connection,
    Reply,
    SocketConnection,
    checked_headers,
)
from bench.protocols.http2 import INFER, FrameReceiver
from bench.protocols.payload import NOTHING_SHARED, Call, Region, Shared, Tensor, placement

if TYPE_CHECKING:
    from bench.protocols.connection import Socket


def grpc_message(
    tensors: Sequence[Tensor],
    outputs: Sequence[str],
    *,
    model: str,
    version: str = "",
    shared: Shared = NOTHING_SHARED,
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
    for name, value in placement(region).items():
        if isinstance(value, str):
            parameters[name].string_param = value
        else:
            parameters[name].int64_param = value


def parse_answer(body: memoryview, _head_length: int = 0) -> tuple[Output, ...]:
    """Outputs of a serialized ModelInferResponse. Raises MalformedAnswer.

    Source: Triton's grpc_service.proto.
    """
    described: list[tuple[str, str, tuple[int, ...]]] = []
    contents: list[tuple[int, int]] = []
    for number, _, start, end in _fields(body, 0, len(body)):
        if number == 5:
            described.append(_output_tensor(body, start, end))
        elif number == 6:
            contents.append((start, end))
    if len(contents) > len(described):
        raise MalformedAnswer("the answer has more raw contents than outputs")
    nowhere = (len(body), len(body))  # no contents: the tensor lies in shared memory
    contents += [nowhere] * (len(described) - len(contents))
    return tuple(Output(*tensor, *place) for tensor, place in zip(described, contents, strict=True))


def _output_tensor(body: memoryview, start: int, end: int) -> tuple[str, str, tuple[int, ...]]:
    texts = {1: "", 2: ""}
    shape: list[int] = []
    for number, value, first, last in _fields(body, start, end):
        if number in texts:
            texts[number] = bytes(body[first:last]).decode("utf-8", "replace")
        elif number == 3 and value is not None:
            shape.append(value)
        elif number == 3:  # packed, as proto3 does
            while first < last:
                axis, first = _varint(body, first, last)
                shape.append(axis)
    return texts[1], texts[2], tuple(axis - (1 << 64) if axis >> 63 else axis for axis in shape)


def _fields(body: memoryview, at: int, end: int) -> Iterator[tuple[int, int | None, int, int]]:
    """Protobuf fields: number, value of a varint, bounds of the content."""
    while at < end:
        tag, at = _varint(body, at, end)
        number, wire_type = tag >> 3, tag & 7
        value: int | None = None
        if wire_type == 0:
            start = at
            value, after = _varint(body, at, end)
        elif wire_type == 2:
            length, start = _varint(body, at, end)
            after = start + length
        elif wire_type in (1, 5):
            start, after = at, at + (8 if wire_type == 1 else 4)
        else:
            raise MalformedAnswer("the answer is no protobuf message")
        if after > end:
            raise MalformedAnswer("the answer's protobuf message is cut short")
        yield number, value, start, after
        at = after


def _varint(body: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise MalformedAnswer("the answer's protobuf message is cut short")


# The first bytes of a connection; they open its receiving window as far as it goes.
_HELLO = h2.PREFACE + h2.window_update(0, h2.MOST_WINDOW - h2.DEFAULT_WINDOW)


class GrpcConnection(SocketConnection):
    """One user's connection to `address` (host:port). Raises WrongUse for metadata that cannot be sent."""

    application = "h2"

    def __init__(
        self,
        address: str,
        *,
        method: str = INFER,
        timeout_s: float,
        metadata: tuple[tuple[str, str], ...] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        way: Way = PLAIN,
        blocking: bool = False,
    ) -> None:
        parts = urlsplit(f"//{address}")
        super().__init__(parts.hostname or "", parts.port or 8001, timeout_s, way, blocking=blocking)
        scheme = "http" if way.tls is None else "https"
        self._request_block = h2.request_block(address, method, checked_headers(metadata), scheme)
        self._receiver = FrameReceiver(max_body_bytes)
        self._cut = False  # a frame was not sent whole: nothing can follow it
        self._low_water = 1

    def _release(self) -> None:
        self._receiver.release()

    def _is_used_up(self) -> bool:
        return self._receiver.going_away or self._receiver.stream + 2 > h2.MOST_WINDOW

    def _greet(self, sock: Socket) -> None:
        self._receiver.reset()
        self._cut, self._low_water = False, 1
        self._send(sock, [_HELLO])
        while not self._receiver.greeted:
            sock.wait()
            self._receive(sock)
        self._send(sock, [])
        sock.on_unasked = self._between_calls

    def _converse(self, sock: Socket, request: Bytes, reply: Reply) -> None:
        receiver = self._receiver
        receiver.open_stream()
        self._send_call(sock, request)
        while not receiver.ended:
            sock.wait()
            self._receive(sock)
            self._acknowledge(sock)  # a keepalive of the server does not wait for the answer
        reply.done_ns = time.monotonic_ns()
        reply.outcome, reply.error = self._status()
        reply.body = receiver.message() if reply.outcome == Outcome.OK else memoryview(b"")
        if self._cut:
            self.close()
        else:
            self._acknowledge(sock)

    def _status(self) -> tuple[int, str]:
        trailers, http_status = self._receiver.trailers, self._receiver.headers.http_status
        if trailers.grpc_status == 0 and http_status == "200":
            return Outcome.OK, ""
        if trailers.grpc_status is None:
            if http_status in (None, "200"):
                raise BrokenAnswer("an answer without a gRPC status")
            return Outcome.SERVER_ERROR, f"HTTP {http_status}, which no gRPC server answers"
        name = h2.name_of(trailers.grpc_status, h2.STATUS_NAMES)
        told = f"{trailers.grpc_message} ({name})" if trailers.grpc_message else name
        late = trailers.grpc_status == h2.DEADLINE_EXCEEDED
        return Outcome.TIMEOUT if late else Outcome.SERVER_ERROR, told

    def _send_call(self, sock: Socket, message: Bytes) -> None:
        """Headers and data within the server's frame size and windows; less when the answer comes first."""
        receiver = self._receiver
        prefix = struct.pack(">BI", 0, len(message))
        total = 5 + len(message)
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, receiver.stream, self._request_block)
        at = 0
        while at < total and not receiver.ended and not self._cut:
            size = min(total - at, receiver.max_frame, receiver.window, receiver.stream_window)
            if size > 0:
                end = at + size
                flags = h2.END_STREAM if end == total else 0
                head += h2.frame_header(h2.DATA, flags, receiver.stream, size) + prefix[at:end]
                receiver.window -= size
                receiver.stream_window -= size
                self._send(sock, [head, memoryview(message)[max(0, at - 5) : max(0, end - 5)]])
                at = end
            else:  # the windows are closed until the server opens them
                self._send(sock, [head])
                sock.wait()
                self._receive(sock)
            head = b""
        self._cut = self._cut or at < total

    def _send(self, sock: Socket, buffers: list[Bytes]) -> None:
        """Whole frames, after pending acknowledgements; cut when the answer, or an end, comes first."""
        if self._receiver.pending:
            buffers.insert(0, bytes(self._receiver.pending))
            self._receiver.pending.clear()
        left = sum(map(len, buffers))
        try:
            while left:
                try:
                    sent = sock.sendmsg(buffers)
                    left -= sent
                    if left:
                        buffers = _after(buffers, sent)
                except BlockingIOError:
                    if sock.wait_for_room():
                        self._receive(sock)
                    if self._receiver.ended:
                        self._cut = True
                        return
        except (BrokenPipeError, ConnectionResetError):
            self._cut = True  # why may still be there to read

    def _receive(self, sock: Socket) -> None:
        try:
            count = sock.recv_into(self._receiver.space())
        except BlockingIOError:
            return
        if not count:
            raise BrokenAnswer("the server closed the connection")
        self._receiver.filled(count)
        missing = min(self._receiver.missing(), LOW_WATER_MOST)
        wanted = missing if missing >= LOW_WATER_FROM else 1
        if wanted != self._low_water:
            sock.low_water(wanted)
            self._low_water = wanted

    def _between_calls(self) -> None:
        """In the hub: settings, pings and ends must not wait for the next call."""
        sock = self._socket
        if sock is None:
            return
        try:
            self._receive(sock)
            self._acknowledge(sock)
        except (OSError, BrokenAnswer):
            sock.retire()

    def _acknowledge(self, sock: Socket) -> None:
        """Between frames: as many pending acknowledgements as there is room for; the rest goes first next."""
        pending = self._receiver.pending
        if not pending or self._cut:
            return
        try:
            sent = sock.send(memoryview(bytes(pending)))
            del pending[:sent]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._cut = True  # why may still be there to read


def _after(buffers: list[Bytes], sent: int) -> list[Bytes]:
    """What is left of the buffers once so many bytes are sent."""
    left: list[Bytes] = []
    for buffer in buffers:
        skip = min(sent, len(buffer))
        sent -= skip
        if skip < len(buffer):
            left.append(memoryview(buffer)[skip:])
    return left


class GrpcDriver:
    """Triton's gRPC endpoint, as a `registry.Driver`."""

    takes_shared_memory = True
    address_hint = "give the server's gRPC address with --grpc-url host:port"

    def service(self, target: Target) -> Target:
        return target.over_grpc or target

    def address(self, target: Target) -> str:
        return target.grpc_address or ""

    def build(self, call: Call, target: Target, shared: Shared = NOTHING_SHARED) -> bytes:  # noqa: ARG002
        return grpc_message(call.tensors, call.outputs, model=call.model, version=call.version, shared=shared)

    def parse(self, body: memoryview, head_length: int) -> tuple[Output, ...]:
        return parse_answer(body, head_length)

    def connection(
        self, target: Target, timeout_s: float, max_body_bytes: int = MAX_BODY_BYTES
    ) -> Connection:
        return GrpcConnection(
            self.address(target),
            timeout_s=timeout_s,
            metadata=target.headers,
            max_body_bytes=max_body_bytes,
            way=target.access,
        )


_LIVE = "/inference.GRPCInferenceService/ServerLive"
# A ServerLiveResponse whose one field, `live`, is true.
_YES = b"\x08\x01"
_HEALTH_TIMEOUT_S = 5.0
_HEALTH_BYTES = 64 << 10


def answers_grpc(address: str, headers: Sequence[tuple[str, str]], way: Way = PLAIN) -> bool:
    """Ask Triton at `address` (host:port) whether it is alive.

    A gateway that takes the connection and does not know Triton's service counts as no answer.
    """
    connection = GrpcConnection(
        address,
        method=_LIVE,
        timeout_s=_HEALTH_TIMEOUT_S,
        metadata=tuple(headers),
        max_body_bytes=_HEALTH_BYTES,
        way=way,
        blocking=True,
    )
    reply = connection.exchange(b"")
    answer = bytes(reply.body)
    connection.close()
    return reply.outcome == Outcome.OK and answer == _YES
