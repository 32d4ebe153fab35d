"""What stands behind a service of the tests' cluster: real servers, and a gateway for the platform's way."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from bench.embedded import start

REPOSITORY = Path(__file__).parents[1] / "model_repository"


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
    """Three neighbouring ports (HTTP, gRPC, metrics) that pass each connection to the next server."""

    def __init__(self) -> None:
        self.backends: list[tuple[int, int, int]] = []
        self._next = 0
        self._open = True
        self.listeners = _neighbours()
        self.port = int(self.listeners[0].getsockname()[1])
        for index, listener in enumerate(self.listeners):
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
            threading.Thread(target=_relay, args=(client, port), daemon=True).start()


def _neighbours() -> list[socket.socket]:
    while True:
        first = socket.socket()
        first.bind(("127.0.0.1", 0))
        found = [first]
        try:
            for step in (1, 2):
                sock = socket.socket()
                found.append(sock)
                sock.bind(("127.0.0.1", first.getsockname()[1] + step))
            for sock in found:
                sock.listen(64)
            return found
        except (OSError, OverflowError):
            for sock in found:
                sock.close()


def _relay(client: socket.socket, port: int) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server)
    back.join()
    client.close()
    server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either side closes; then the other is told."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    for sock, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            sock.shutdown(how)
