"""A small server that speaks the API server's side of port-forward: RFC 6455 by hand, a thread each."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 2, 8


class ForwardServer:
    """Connects `?ports=N` to 127.0.0.1:N. A context manager; `requests` keeps paths and headers."""

    def __init__(self, status: int = 101, error: str = "") -> None:
        self.status, self.error = status, error
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        _thread(self._accept)

    def __enter__(self) -> ForwardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                _thread(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError, EOFError), peer.makefile("rb") as lines:
            path = lines.readline().decode().split(" ")[1]
            headers = dict(_headers(lines.readline))
            self.requests.append((path, headers))
            if self.status != 101:
                peer.sendall(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\n\r\n".encode())
                return
            proof = hashlib.sha1((headers["sec-websocket-key"] + _GUID).encode()).digest()
            peer.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {base64.b64encode(proof).decode()}\r\n".encode()
                + f"Sec-WebSocket-Protocol: {headers['sec-websocket-protocol']}\r\n\r\n".encode()
            )
            self._forward(peer, lines.read, int(parse_qs(urlsplit(path).query)["ports"][0]))

    def _forward(self, peer: socket.socket, read: Callable[[int], bytes], port: int) -> None:
        for channel in (b"\0", b"\1"):
            peer.sendall(_frame(channel + struct.pack("<H", port)))
        if self.error:
            peer.sendall(_frame(b"\1" + self.error.encode()))
            return
        with socket.create_connection(("127.0.0.1", port)) as pod:
            _thread(_copy_down, pod, peer)
            while (message := _message(read)) is not None:
                assert message[:1] == b"\0"
                pod.sendall(message[1:])


def _copy_down(pod: socket.socket, peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := pod.recv(1 << 16):
            peer.sendall(_frame(b"\0" + data))
        peer.sendall(_frame(b"", _CLOSE))
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)


def _frame(data: bytes, opcode: int = _BINARY) -> bytes:
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size) if size < 1 << 16 else None
    return bytes([0x80 | opcode]) + (length or b"\x7f" + struct.pack(">Q", size)) + data


def _message(read: Callable[[int], bytes]) -> bytes | None:
    """One unfragmented message of a client, unmasked; None at a close."""
    head = _exactly(read, 2)
    size = head[1] & 0x7F
    if size >= 126:
        size = int.from_bytes(_exactly(read, 2 if size == 126 else 8), "big")
    mask, data = _exactly(read, 4), _exactly(read, size)
    if head[0] & 0x0F == _CLOSE:
        return None
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError
    return data


def _headers(line: Callable[[], bytes]) -> list[tuple[str, str]]:
    found = []
    while text := line().decode().strip():
        name, _, value = text.partition(":")
        found.append((name.lower(), value.strip()))
    return found


def _thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
