"""One TCP connection for a thread that makes no load: the moves of `gevent_socket`, with poll(2) for waits.

It needs no gevent, so control calls can come from any thread of any process.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable

from bench.protocols.connection import Bytes, DeadlinePassed


class BlockingSocket:
    """A connected socket. Sending and receiving never wait: they raise BlockingIOError, and a wait is due."""

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._timeout_ns = int(timeout_s * 1e9)
        self._deadline_ns = 0
        self._retired = False
        self.on_unasked: Callable[[], None] = self.retire  # nobody looks between exchanges
        self.recv_into = sock.recv_into
        self.send = sock.send

    @property
    def stale(self) -> bool:
        """Whether it ended, or something came unasked, since the last exchange."""
        return self._retired or self.has_input()

    def begin(self, now_ns: int) -> None:
        """An exchange begins: waits end at `now_ns` plus the timeout."""
        self._deadline_ns = now_ns + self._timeout_ns

    def wait(self) -> None:
        """Until there is something to read. Raises DeadlinePassed."""
        self._poll(select.POLLIN)

    def wait_for_room(self) -> bool:
        """Until more can be sent, or there is something to read: True then. Raises DeadlinePassed."""
        self._poll(select.POLLIN | select.POLLOUT)
        return self.has_input()

    def has_input(self) -> bool:
        """Whether a read would tell something at once: bytes, an end or an error."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def sendmsg(self, buffers: list[Bytes]) -> int:
        return self._sock.sendmsg(buffers)

    def low_water(self, byte_count: int) -> None:
        """Nothing: control answers are short."""

    def retire(self) -> None:
        """Never use it again."""
        self._retired = True

    def close(self) -> None:
        self._sock.close()

    def _poll(self, events: int) -> None:
        left_ns = self._deadline_ns - time.monotonic_ns()
        poll = select.poll()
        poll.register(self._sock, events)
        if left_ns <= 0 or not poll.poll(math.ceil(left_ns / 1e6)):
            raise DeadlinePassed


def connect(host: str, port: int, timeout_s: float) -> BlockingSocket:
    """Connects, without Nagle's delay. Raises OSError, DeadlinePassed."""
    deadline_s = time.monotonic() + timeout_s
    failed: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in _resolved(host, port, timeout_s):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DeadlinePassed
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return BlockingSocket(sock, timeout_s)
        except TimeoutError:
            sock.close()
            raise DeadlinePassed from None
        except OSError as error:
            sock.close()
            failed = error
    raise failed


Address = tuple[int, int, int, str, tuple[object, ...]]


def _resolved(host: str, port: int, timeout_s: float) -> list[Address]:
    """The addresses of a name. A hanging resolver is left to its thread. Raises OSError, DeadlinePassed."""
    found: list[list[Address] | OSError] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]  # of a stream socket the addresses are of IP
        except OSError as error:
            found.append(error)
        except UnicodeError:
            found.append(OSError(f"{host!r} is no name of a host"))

    thread = threading.Thread(target=look_up, daemon=True, name="bench-resolve")
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise DeadlinePassed
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
