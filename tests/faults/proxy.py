"""A proxy before a real Triton, which plays a fault in place of chosen answers and passes the rest on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

# A play gets the client's socket and what the real server answered, and says what it likes instead.
Play = Callable[[socket.socket, bytes], None]
_PIECE = 64 << 10


@dataclass
class Proxy:
    """Listens on `port` of the loopback. `play` is used where `path` is in the request's first line.

    Without a play it is a plain reverse proxy. `stop` ends plays that would go on for ever.
    """

    upstream: tuple[str, int]
    is_http: bool = True
    path: str = ""
    play: Play | None = None
    port: int = 0
    played: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """host:port of the proxy."""
        return f"127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Talk to one client until it, or a play, ends the connection."""
        with closing(client), suppress(OSError):
            client.settimeout(20)
            if self.is_http:
                while self._exchange(client):
                    pass
            elif self.play is None:
                self._relay(client)
            else:
                self._play_grpc(client)

    def _exchange(self, client: socket.socket) -> bool:
        request = read_message(client)
        if not request:
            return False
        is_chosen = self.play is not None and self.path in request.split(b"\r\n", 1)[0].decode()
        with socket.create_connection(self.upstream, timeout=20) as server:
            server.sendall(request)
            answer = read_message(server)
        if not is_chosen:
            client.sendall(answer)
            return True
        assert self.play is not None
        self.played += 1
        self.play(client, answer)
        return False

    def _play_grpc(self, client: socket.socket) -> None:
        """A play of HTTP/2 begins when the first call has come, as far as the first window lets it."""
        assert self.play is not None
        come = client.recv(_PIECE)
        client.sendall(bytes.fromhex("000000040000000000"))  # empty settings
        while b"\x00\x01\x00\x00\x00\x01" not in come and len(come) < _PIECE:  # data that end stream 1
            if not (piece := client.recv(_PIECE)):
                return
            come += piece
        self.played += 1
        self.play(client, b"")

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(self.upstream, timeout=20) as server:
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def read_message(sock: socket.socket) -> bytes:
    """A whole HTTP/1.1 message with a content length; b"" when the peer has ended the connection."""
    come = b""
    while b"\r\n\r\n" not in come:
        if not (piece := sock.recv(_PIECE)):
            return b""
        come += piece
    head, _, body = come.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
    pieces = [come]
    while missing > 0:
        if not (piece := sock.recv(_PIECE)):
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(upstream: str, *, is_http: bool = True) -> Iterator[Proxy]:
    """A proxy before `upstream` (host:port) that lives as long as the block."""
    host, _, port = upstream.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = Proxy((host, int(port)), is_http, port=listening.getsockname()[1])
        listening.settimeout(0.05)

        def accept() -> None:
            while not one.stop.is_set():
                with suppress(TimeoutError):
                    client, _ = listening.accept()
                    threading.Thread(target=one.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield one
        finally:
            one.stop.set()
            thread.join()
