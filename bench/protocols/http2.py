"""HTTP/2 frames as gRPC needs them, and the receiving half of a connection with one call in flight.

Bytes in, state out, no I/O.
The answer stays where it was received; its parts are moved together as they come.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import hpack

from bench.protocols.connection import BrokenAnswer, too_large

INFER = "/inference.GRPCInferenceService/ModelInfer"
HEADER_BYTES = 9
DEFAULT_WINDOW = 65_535
DEFAULT_MAX_FRAME = 16_384
MOST_WINDOW = 2**31 - 1
MOST_FRAME = 2**24 - 1


# Plain numbers: looking up members of an enumeration would cost microseconds a call.
# Kinds of frames, flags of frames, and names of settings.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5

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

# A frame's header: its length and kind in one word, then flags, then the number of the stream.
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


def request_block(
    authority: str, method: str, metadata: Iterable[tuple[str, str]], scheme: str = "http"
) -> bytes:
    """The header block of a unary call; nothing in it enters a table, so it is the same for each call."""
    pairs = [
        (":method", "POST"),
        (":scheme", scheme),
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


_FIRST_BUFFER_BYTES = 64 << 10
_MAX_BLOCK_BYTES = 64 << 10
# A block that is longer is parsed each time, so that a server cannot fill the memory with known blocks.
_MOST_KNOWN_BLOCKS, _LONGEST_KNOWN_BLOCK = 64, 1 << 10
# No frame but DATA is longer, of what gRPC servers send.
_MAX_OTHER_FRAME_BYTES = 64 << 10
# A server that asks for so many bytes of acknowledgements and takes none of them is given up.
_MAX_PENDING_BYTES = 1 << 20
# After so many bytes of data the connection's window is opened again.
_GRANT_BYTES = 1 << 29
_PREFIX_BYTES = 5  # before a message: whether it is compressed, and its length
_NO_BLOCK = Block(None, None, "")
_LENGTHS = {PING: 8, RST_STREAM: 4, WINDOW_UPDATE: 4}


class FrameReceiver:
    """What has come on a connection, and what it says. Methods raise BrokenAnswer.

    Memory is bounded by `max_body_bytes`, whatever comes: the message's parts are moved together as they
    come, and what is read is overwritten.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._known_blocks: dict[bytes, Block] = {}
        self.reset()

    def reset(self) -> None:
        """A new connection: nothing has come."""
        self.greeted = False  # the server's settings have come
        self.going_away = False  # no call after this one
        self.window = self.stream_window = DEFAULT_WINDOW  # what may still be sent
        self.max_frame = DEFAULT_MAX_FRAME
        self.pending = bytearray()  # acknowledgements to send, between frames
        self._first_window = DEFAULT_WINDOW
        self._received = 0  # bytes of data since the last grant
        self._read = self._have = 0  # bytes of the buffer taken, and filled
        self.stream = -1
        self.open_stream()
        self.stream = -1

    def release(self) -> None:
        """After a failure: give back what a large answer took."""
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self.reset()

    def open_stream(self) -> None:
        """The next call: its number is in `stream`; the last message's bytes are overwritten from here on."""
        self.stream += 2
        self.stream_window = self._first_window
        self.ended = False
        self.headers = self.trailers = _NO_BLOCK
        self._partial_block: bytearray | None = None
        self._block_cost = 0
        self._block_ends_stream = False
        self._has_message = False
        self._message_start = self._message_end = 0  # where the message's bytes lie in the buffer
        self._move_unread(0)

    def space(self) -> memoryview:
        """Where to receive to; never empty."""
        if self._have == len(self._buffer):
            if self._read - self._message_end >= len(self._buffer) // 2:
                self._move_unread(self._message_end)
            else:
                self._grow()
        return self._view[self._have :]

    def missing(self) -> int:
        """Bytes of the frame under way that have not come; 0 when that is not known."""
        if self._have - self._read < HEADER_BYTES:
            return 0
        word, _, _ = unpack_header(self._buffer, self._read)
        return int(self._read + HEADER_BYTES + (word >> 8) - self._have)

    def filled(self, count: int) -> None:
        """So many bytes came; take the frames that are whole."""
        self._have += count
        at, have = self._read, self._have
        while have - at >= HEADER_BYTES:
            word, flags, stream = unpack_header(self._buffer, at)
            kind, start = word & 255, at + HEADER_BYTES
            end = start + (word >> 8)
            if not self.greeted and kind != SETTINGS:
                raise BrokenAnswer("the server speaks no HTTP/2: is this its gRPC address?")
            if end > have:
                self._refuse_long(kind, end - start)
                break
            at = self._read = end
            if self._partial_block is not None and kind != CONTINUATION:
                raise BrokenAnswer("HTTP/2 headers without an end")
            if kind == DATA:
                self._take_data(flags, stream, start, end)
            elif kind in (HEADERS, CONTINUATION):
                self._take_headers(kind, flags, stream, start, end)
            else:
                self._take_control(kind, flags, stream, bytes(self._view[start:end]))

    def message(self) -> memoryview:
        """The message of a call that has ended, valid until the next one opens."""
        if not self._has_message:
            raise BrokenAnswer("an answer without a message")
        start, end = self._message_start, self._message_end
        if end - start < _PREFIX_BYTES or self._buffer[start]:
            raise BrokenAnswer("a broken or compressed gRPC message")
        if self._told_length() != end - start - _PREFIX_BYTES:
            raise BrokenAnswer("a gRPC message of another length than it says")
        return self._view[start + _PREFIX_BYTES : end]

    def _told_length(self) -> int:
        """Of the message, as its prefix says."""
        start = self._message_start
        return int.from_bytes(self._view[start + 1 : start + _PREFIX_BYTES], "big")

    def _refuse_long(self, kind: int, length: int) -> None:
        """A frame that is not whole yet: what it says of its length is not believed beyond measure."""
        if kind == DATA:
            self._refuse_large(self._message_end - self._message_start + length)
        elif kind in (HEADERS, CONTINUATION) and length > _MAX_BLOCK_BYTES:
            raise _long_headers()
        elif length > _MAX_OTHER_FRAME_BYTES:
            raise BrokenAnswer(f"an HTTP/2 frame of kind {kind} with {length} bytes")

    def _refuse_large(self, message_bytes: int) -> None:
        if message_bytes > self._max_body_bytes + _PREFIX_BYTES:
            raise too_large(self._max_body_bytes)

    def _grow(self) -> None:
        most = 2 * (self._max_body_bytes + _FIRST_BUFFER_BYTES)
        if self._have >= most:
            raise too_large(self._max_body_bytes)
        buffer = bytearray(min(most, 2 * len(self._buffer)))
        buffer[: self._have] = self._view[: self._have]
        self._buffer, self._view = buffer, memoryview(buffer)

    def _move_unread(self, to: int) -> None:
        """Over what has been taken: the bytes that have not, which belong to a frame that is not whole."""
        left = self._have - self._read
        if left:
            self._view[to : to + left] = self._view[self._read : self._have]
        self._read, self._have = to, to + left

    def _answer(self, acknowledgement: bytes) -> None:
        self.pending += acknowledgement
        if len(self.pending) > _MAX_PENDING_BYTES:
            raise BrokenAnswer("a flood of HTTP/2 pings or settings")

    def _take_data(self, flags: int, stream: int, start: int, end: int) -> None:
        self._received += end - start
        if self._received >= _GRANT_BYTES:
            self._answer(window_update(0, self._received))
            self._received = 0
        if stream != self.stream or self.ended:
            return
        if flags & PADDED:
            start, end = unpadded(PADDED, start, end, self._buffer)
        if end > start:
            self._join(start, end)
        self.ended = flags & END_STREAM != 0

    def _join(self, start: int, end: int) -> None:
        """Another part of the message: beside the parts before it."""
        if not self._has_message:
            self._has_message = True
            self._message_start = self._message_end = start
        to, length = self._message_end, end - start
        if to != start:
            self._view[to : to + length] = self._view[start:end]
        self._message_end = to + length
        size = self._message_end - self._message_start
        self._refuse_large(max(size, self._told_length() if size >= _PREFIX_BYTES else 0))

    def _take_headers(self, kind: int, flags: int, stream: int, start: int, end: int) -> None:
        cost = HEADER_BYTES + end - start  # of an empty frame, too: there may be no end of them
        if kind == HEADERS:
            if flags & (PADDED | PRIORITY):
                start, end = unpadded(flags, start, end, self._buffer)
            self._partial_block, self._block_ends_stream = bytearray(), flags & END_STREAM != 0
            self._block_cost = 0
        elif self._partial_block is None:
            raise BrokenAnswer("an HTTP/2 continuation of nothing")
        self._partial_block += self._view[start:end]
        self._block_cost += cost
        if self._block_cost > _MAX_BLOCK_BYTES:
            raise _long_headers()
        if flags & END_HEADERS:
            data, self._partial_block = bytes(self._partial_block), None
            if stream == self.stream and not self.ended:
                self._take_block(self._block(data))

    def _block(self, data: bytes) -> Block:
        block = self._known_blocks.get(data)
        if block is None:
            block = parse_block(data)
            if len(self._known_blocks) >= _MOST_KNOWN_BLOCKS:
                self._known_blocks.clear()
            if len(data) <= _LONGEST_KNOWN_BLOCK:
                self._known_blocks[data] = block
        return block

    def _take_block(self, block: Block) -> None:
        if block.http_status and block.http_status[0] != "1":
            self.headers = block
        if self._block_ends_stream:
            self.trailers = block
            self.ended = True

    def _take_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != _LENGTHS.get(kind, len(payload)):
            raise BrokenAnswer("a broken HTTP/2 frame")
        if kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self._answer(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._take_window_update(stream, int.from_bytes(payload, "big") & MOST_WINDOW)
        elif kind == GOAWAY:
            self._take_goaway(payload)
        elif kind == RST_STREAM and stream == self.stream and not self.ended:
            name = name_of(int.from_bytes(payload, "big"), ERROR_NAMES)
            raise BrokenAnswer(f"the server reset the stream: {name}")
        elif kind == PUSH_PROMISE:
            raise BrokenAnswer("the server pushed, which was refused")

    def _take_settings(self, payload: bytes) -> None:
        for setting, value in read_settings(payload):
            if setting == INITIAL_WINDOW_SIZE and value <= MOST_WINDOW:
                self.stream_window += value - self._first_window
                self._first_window = value
            elif setting == MAX_FRAME_SIZE and DEFAULT_MAX_FRAME <= value <= MOST_FRAME:
                self.max_frame = value
            elif setting in (INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE):
                raise BrokenAnswer(f"broken HTTP/2 settings: {setting} is {value}")
        self.greeted = True
        self._answer(frame(SETTINGS, ACK, 0))

    def _take_window_update(self, stream: int, increment: int) -> None:
        if stream == 0:
            self.window += increment
        elif stream == self.stream:
            self.stream_window += increment

    def _take_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise BrokenAnswer("a broken HTTP/2 frame")
        self.going_away = True
        last, code = struct.unpack_from(">II", payload)
        if self.stream > last & MOST_WINDOW and not self.ended:
            name = name_of(code, ERROR_NAMES)
            told = f"{name} {payload[8:].decode('utf-8', 'replace')}".rstrip()
            raise BrokenAnswer(f"the server is going away: {told}")


def _long_headers() -> BrokenAnswer:
    return BrokenAnswer(f"headers of over {_MAX_BLOCK_BYTES >> 10} KiB")
