"""TLS in front of a plain server, with certificates made for the occasion."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tls_proxy(
    to: str, certificate: Path, key: Path, *, application: str = "http/1.1", clients: Path | None = None
) -> Iterator[str]:
    """host:port of a TLS server that hands everything on to `to` (host:port).

    `clients`: certificates of those that are let in; without it, everybody is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([application])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    host, _, port = to.rpartition(":")
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=hand_on, args=(listening.accept()[0],), daemon=True).start()

    def hand_on(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection((host, int(port))) as far,
        ):
            near.settimeout(0.02)
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)
            far.shutdown(socket.SHUT_RDWR)
            back.join(5)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Until the source ends. A read that waits does not keep the other direction from its turn."""
    with suppress(OSError):
        while True:
            try:
                data = source.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                return
            send_all(sink, data)


def send_all(sink: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        with suppress(TimeoutError):
            left = left[sink.send(left) :]
