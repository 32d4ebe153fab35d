"""The receiving half of an HTTP/2 connection with one call in flight: bytes in, state out, no I/O.

The answer stays where it was received. Its parts are moved together only when it is whole.
"""

from __future__ import annotations

import struct

from bench.protocols import http2_frames as h2
from bench.protocols.gevent_socket import BrokenAnswer
from bench.protocols.http2_frames import Block

_FIRST_BUFFER_BYTES = 64 << 10
_MAX_BLOCK_BYTES = 64 << 10
_MOST_KNOWN_BLOCKS = 64
_GRANT_BYTES = 1 << 29  # received before the connection's window is opened again
_NO_BLOCK = Block(None, None, "")


class Inbox:
    """What has come on a connection, and what it says. Methods raise BrokenAnswer."""

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
        self.window = self.stream_window = h2.DEFAULT_WINDOW  # what may still be sent
        self.max_frame = h2.DEFAULT_MAX_FRAME
        self.pending = b""  # acknowledgements to send, between frames
        self._first_window = h2.DEFAULT_WINDOW
        self._received = 0  # bytes of data since the last grant
        self._read = self._have = 0  # bytes of the buffer taken, and filled
        self.stream = -1
        self.open_stream()
        self.stream = -1

    def open_stream(self) -> None:
        """The next call: its number is in `stream`; the last message's bytes are overwritten from here on."""
        self.stream += 2
        self.stream_window = self._first_window
        self.ended = False
        self.headers = self.trailers = _NO_BLOCK
        self._partial_block: bytes | None = None
        self._block_ends_stream = False
        self._parts: list[tuple[int, int]] = []  # where the message's bytes lie in the buffer
        left = self._have - self._read
        if left:
            self._view[:left] = bytes(self._view[self._read : self._have])
        self._read, self._have = 0, left

    def space(self) -> memoryview:
        """Where to receive to; never empty."""
        if self._have == len(self._buffer):
            if self._have > self._max_body_bytes:
                raise BrokenAnswer(f"an answer of over {self._max_body_bytes} bytes")
            buffer = bytearray(2 * len(self._buffer))
            buffer[: self._have] = self._view[: self._have]
            self._buffer, self._view = buffer, memoryview(buffer)
        return self._view[self._have :]

    def missing(self) -> int:
        """Bytes of the frame under way that have not come; 0 when that is not known."""
        if self._have - self._read < h2.HEADER_BYTES:
            return 0
        word, _, _ = h2.unpack_header(self._buffer, self._read)
        return int(self._read + h2.HEADER_BYTES + (word >> 8) - self._have)

    def filled(self, count: int) -> None:
        """So many bytes came; take the frames that are whole."""
        self._have += count
        at, have = self._read, self._have
        while have - at >= h2.HEADER_BYTES:
            word, flags, stream = h2.unpack_header(self._buffer, at)
            kind, start = word & 255, at + h2.HEADER_BYTES
            end = start + (word >> 8)
            if not self.greeted and kind != h2.SETTINGS:
                raise BrokenAnswer("the server speaks no HTTP/2: is this its gRPC address?")
            if end > have:
                break
            at = self._read = end
            if self._partial_block is not None and kind != h2.CONTINUATION:
                raise BrokenAnswer("HTTP/2 headers without an end")
            if kind == h2.DATA:
                self._take_data(flags, stream, start, end)
            elif kind == h2.HEADERS or kind == h2.CONTINUATION:
                self._take_headers(kind, flags, stream, start, end)
            else:
                self._take_control(kind, flags, stream, bytes(self._view[start:end]))

    def message(self) -> memoryview:
        """The message of a call that has ended, valid until the next one opens."""
        if not self._parts:
            raise BrokenAnswer("an answer without a message")
        start, end = self._parts[0]
        view = self._view
        for part_start, part_end in self._parts[1:]:
            length = part_end - part_start
            view[end : end + length] = view[part_start:part_end]
            end += length
        if end - start < 5 or self._buffer[start]:
            raise BrokenAnswer("a broken or compressed gRPC message")
        if int.from_bytes(view[start + 1 : start + 5], "big") != end - start - 5:
            raise BrokenAnswer("a gRPC message of another length than it says")
        return view[start + 5 : end]

    def _take_data(self, flags: int, stream: int, start: int, end: int) -> None:
        self._received += end - start
        if self._received >= _GRANT_BYTES:
            self.pending += h2.window_update(0, self._received)
            self._received = 0
        if stream != self.stream or self.ended:
            return
        if flags & h2.PADDED:
            start, end = h2.unpadded(h2.PADDED, start, end, self._buffer)
        if end > start:
            self._parts.append((start, end))
        self.ended = flags & h2.END_STREAM != 0

    def _take_headers(self, kind: int, flags: int, stream: int, start: int, end: int) -> None:
        if kind == h2.HEADERS:
            if flags & (h2.PADDED | h2.PRIORITY):
                start, end = h2.unpadded(flags, start, end, self._buffer)
            self._partial_block, self._block_ends_stream = b"", flags & h2.END_STREAM != 0
        elif self._partial_block is None:
            raise BrokenAnswer("an HTTP/2 continuation of nothing")
        data = self._partial_block = self._partial_block + bytes(self._view[start:end])
        if len(data) > _MAX_BLOCK_BYTES:
            raise BrokenAnswer(f"headers of over {_MAX_BLOCK_BYTES >> 10} KiB")
        if flags & h2.END_HEADERS:
            self._partial_block = None
            if stream == self.stream and not self.ended:
                self._take_block(self._block(data))

    def _block(self, data: bytes) -> Block:
        block = self._known_blocks.get(data)
        if block is None:
            block = h2.parse_block(data)
            if len(self._known_blocks) >= _MOST_KNOWN_BLOCKS:
                self._known_blocks.clear()
            self._known_blocks[data] = block
        return block

    def _take_block(self, block: Block) -> None:
        if block.http_status and block.http_status[0] != "1":
            self.headers = block
        if self._block_ends_stream:
            self.trailers = block
            self.ended = True

    def _take_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == h2.SETTINGS and not flags & h2.ACK:
            self._take_settings(payload)
        elif kind == h2.PING and not flags & h2.ACK:
            self.pending += h2.frame(h2.PING, h2.ACK, 0, payload)
        elif kind == h2.WINDOW_UPDATE:
            self._take_window_update(stream, int.from_bytes(payload, "big") & h2.MOST_WINDOW)
        elif kind == h2.GOAWAY:
            self._take_goaway(payload)
        elif kind == h2.RST_STREAM and stream == self.stream and not self.ended:
            name = h2.name_of(int.from_bytes(payload, "big"), h2.ERROR_NAMES)
            raise BrokenAnswer(f"the server reset the stream: {name}")
        elif kind == h2.PUSH_PROMISE:
            raise BrokenAnswer("the server pushed, which was refused")

    def _take_settings(self, payload: bytes) -> None:
        for setting, value in h2.read_settings(payload):
            if setting == h2.INITIAL_WINDOW_SIZE:
                self.stream_window += value - self._first_window
                self._first_window = value
            elif setting == h2.MAX_FRAME_SIZE:
                self.max_frame = value
        self.greeted = True
        self.pending += h2.frame(h2.SETTINGS, h2.ACK, 0)

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
        if self.stream > last & h2.MOST_WINDOW and not self.ended:
            name = h2.name_of(code, h2.ERROR_NAMES)
            told = f"{name} {payload[8:].decode('utf-8', 'replace')}".rstrip()
            raise BrokenAnswer(f"the server is going away: {told}")
