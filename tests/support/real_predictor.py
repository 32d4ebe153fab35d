"""What stands behind a service of the tests' cluster: real servers, and a gateway for the platform's way."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench.server.embedded import start

REPOSITORY = Path(__file__).parents[2] / "model_repository"


class Predictor:
    """A real tritonserver with one of the shipped models loaded."""

    def __init__(self, model: str, log: Path) -> None:
        self._triton = start(REPOSITORY, log=log, models=(model,))
        target = self._triton.target
        urls = (target.http_url, f"http://{target.grpc_address}", target.metrics_url or "")
        http, grpc, metrics = (int(urlsplit(url).port or 0) for url in urls)
        self.addresses = (http, grpc, metrics)

    def stop(self) -> None:
        self._triton.stop()


class Gateway:
    """Ports that pass each connection to the same port of the next server, and count the bytes sent there.

    `shown`: which of a server's three ports (HTTP, gRPC, metrics) there are; `host` and `at`: where exactly.
    """

    def __init__(
        self, shown: Sequence[int] = (0, 1, 2), host: str = "127.0.0.1", at: Sequence[int] = ()
    ) -> None:
        self.backends: list[tuple[int, int, int]] = []
        self.passed = dict.fromkeys(shown, 0)
        self.host = host
        self._next = 0
        self._open = True
        self.listeners = _listening(host, at) if at else _neighbours(len(shown))
        self.port = int(self.listeners[0].getsockname()[1])
        for index, listener in zip(shown, self.listeners, strict=True):
            threading.Thread(target=self._accept, args=(listener, index), daemon=True).start()

    def close(self) -> None:
        self._open = False
        for listener in self.listeners:
            listener.close()

    def _accept(self, listener: socket.socket, index: int) -> None:
        while self._open:
            try:
                if not select.select([listener], [], [], 0.2)[0]:
                    continue
                client, _ = listener.accept()
            except (OSError, ValueError):
                return  # closed
            self._next += 1
            backends = self.backends
            if not backends:
                client.close()
                continue
            port = backends[self._next % len(backends)][index]

            def count(size: int) -> None:
                self.passed[index] += size

            threading.Thread(target=_relay, args=(client, port, count), daemon=True).start()


def _listening(host: str, ports: Sequence[int]) -> list[socket.socket]:
    found = []
    try:
        for port in ports:
            found.append(socket.create_server((host, port), backlog=64))
        return found
    except OSError:
        for sock in found:
            sock.close()
        raise


def _neighbours(count: int) -> list[socket.socket]:
    while True:
        first = socket.socket()
        first.bind(("127.0.0.1", 0))
        found = [first]
        try:
            for step in range(1, count):
                sock = socket.socket()
                found.append(sock)
                sock.bind(("127.0.0.1", first.getsockname()[1] + step))
            for sock in found:
                sock.listen(64)
            return found
        except (OSError, OverflowError):
            for sock in found:
                sock.close()


def _relay(client: socket.socket, port: int, count: Callable[[int], None]) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(server, client, lambda _: None), daemon=True)
    back.start()
    _pump(client, server, count)
    back.join()
    client.close()
    server.close()


def _pump(source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
    """Until either side closes; then the other is told."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
            count(len(data))
    except OSError:
        pass
    for sock, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)
