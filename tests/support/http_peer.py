"""A TCP peer that plays a script, for the clients' tests."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

Script = Callable[[Any], None]


@contextmanager
def peer(*scripts: Script, **tls: Any) -> Iterator[str]:
    """host:port of a server whose nth connection runs the nth script; the last one repeats.

    `tls`: `keyfile` and `certfile`.
    """
    count = 0

    def handle(sock: Any, _: Any) -> None:
        nonlocal count
        script = scripts[min(count, len(scripts) - 1)]
        count += 1
        with suppress(ConnectionError, TimeoutError):  # the client went away, as scripts expect
            script(sock)

    server = StreamServer(("127.0.0.1", 0), handle, **tls)
    server.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.stop(timeout=1)


def reset(sock: Any) -> None:
    """End the connection with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 and localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return key, certificate


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


class ScriptedSocket:
    """A `gevent_socket.PlainSocket` that receives the given pieces, and takes a few bytes at each send."""

    stale = False

    def __init__(self, pieces: list[bytes], takes: int = 1 << 30) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._takes = takes
        self.sent = b""

    def begin(self, now_ns: int) -> None: ...

    def wait(self) -> None: ...

    def low_water(self, byte_count: int) -> None: ...

    def close(self) -> None: ...

    def retire(self) -> None: ...

    def send(self, data: bytes | memoryview) -> int:
        taken = bytes(data[: self._takes])
        self.sent += taken
        return len(taken)

    def sendmsg(self, buffers: list[bytes | memoryview]) -> int:
        return self.send(b"".join(buffers))

    def recv_into(self, buffer: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self._pieces.insert(0, piece[count:])
        return count


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the given places (of any range)."""
    places = sorted({place % (len(data) + 1) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
