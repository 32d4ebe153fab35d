"""HTTP/2 frames and header blocks, as far as a unary gRPC call needs them. Source: RFC 9113, RFC 7541."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import hpack

from bench.protocols.gevent_socket import BrokenAnswer

INFER = "/inference.GRPCInferenceService/ModelInfer"
HEADER_BYTES = 9
DEFAULT_WINDOW = 65_535
DEFAULT_MAX_FRAME = 16_384
MOST_WINDOW = 2**31 - 1
MOST_FRAME = 2**24 - 1


# Plain numbers: looking members of an enumeration up costs microseconds a call.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 3, 4, 5  # kinds
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32  # flags
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5  # settings

ERROR_NAMES = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
# Source: grpc/grpc, doc/statuscodes.md.
STATUS_NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
DEADLINE_EXCEEDED = 4

# length and kind in the first word, then flags and stream
_HEADER = struct.Struct(">IBI")
unpack_header = _HEADER.unpack_from


def name_of(code: int, names: tuple[str, ...]) -> str:
    return names[code] if code < len(names) else str(code)


def frame_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _HEADER.pack(length << 8 | kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def settings(pairs: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    if len(payload) % 6:
        raise BrokenAnswer("broken HTTP/2 settings")
    return list(struct.iter_unpack(">HI", payload))


# No dynamic table, so that equal header blocks mean equal headers; windows that never close.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings(
    [
        (HEADER_TABLE_SIZE, 0),
        (ENABLE_PUSH, 0),
        (INITIAL_WINDOW_SIZE, MOST_WINDOW),
        (MAX_FRAME_SIZE, MOST_FRAME),
    ]
)


def request_block(authority: str, method: str, metadata: Iterable[tuple[str, str]]) -> bytes:
    """The header block of a unary call; nothing in it enters a table, so it is the same for each call."""
    pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "triton-bench"),
        *((name.lower(), value) for name, value in metadata),
    ]
    block: bytes = hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(*pair) for pair in pairs], huffman=False
    )
    return block


@dataclass(frozen=True, slots=True)
class Block:
    """What a response's header block says. None: not in this block."""

    http_status: str | None
    grpc_status: int | None
    grpc_message: str


def parse_block(data: bytes) -> Block:
    """Raises BrokenAnswer. Source: grpc/grpc, doc/PROTOCOL-HTTP2.md."""
    decoder = hpack.Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        found = dict(decoder.decode(data))
        status = found.get("grpc-status")
        return Block(
            http_status=found.get(":status"),
            grpc_status=int(status) if status is not None else None,
            grpc_message=unquote(found.get("grpc-message", ""), errors="replace"),
        )
    except (hpack.HPACKError, ValueError) as error:
        raise BrokenAnswer(f"broken HTTP/2 headers: {error}") from None


def unpadded(flags: int, start: int, end: int, buffer: bytearray) -> tuple[int, int]:
    """Bounds of a frame's content without its padding and priority fields."""
    if flags & PADDED:
        end -= buffer[start] if end > start else 1
        start += 1
    if flags & PRIORITY:
        start += 5
    if start > end:
        raise BrokenAnswer("an HTTP/2 frame with more padding than content")
    return start, end
