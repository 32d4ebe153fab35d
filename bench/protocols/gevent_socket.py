"""One user's TCP connection under gevent, made for waits that cost a single switch.

gevent's own sockets start and stop a watcher and a timer at every wait. Here the read watcher stays
started for the life of the connection, and the deadline is one timer that re-arms itself at most once
per timeout, so that a request costs its system calls and one switch to the hub and back.
"""

from __future__ import annotations

import _socket
import socket as constants
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
from gevent import get_hub, getcurrent

from bench.protocols.connection import DeadlinePassed

_READ, _WRITE = 1, 2


class PlainSocket:
    """A connected plain socket. It belongs to one greenlet at a time.

    Sending and receiving never wait: they raise BlockingIOError, and then a wait is due.
    """

    def __init__(self, sock: _socket.socket, timeout_s: float) -> None:
        hub = get_hub()
        self._sock = sock
        self._timeout_ns = int(timeout_s * 1e9)
        self._deadline_ns = 0
        self._late = False
        self._waiting: Any = None  # the greenlet
        self._switch_to_hub = hub.switch
        self._readable = hub.loop.io(sock.fileno(), _READ)
        self._writable = hub.loop.io(sock.fileno(), _WRITE)
        self._timer = hub.loop.timer(timeout_s)
        self._listening = False
        self.stale = False  # bytes or an end came between exchanges
        self.on_unasked: Callable[[], None] = self.retire
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.sendmsg = sock.sendmsg

    def begin(self, now_ns: int) -> None:
        """An exchange begins: waits end at `now_ns` plus the timeout."""
        self._deadline_ns = now_ns + self._timeout_ns
        if not self._timer.active:
            self._timer.start(self._on_time)
        if not self._listening:
            self.listen()

    def wait(self) -> None:
        """Until there is something to read, or for no reason. Raises DeadlinePassed."""
        self._waiting = getcurrent()
        try:
            self._switch_to_hub()
        finally:
            self._waiting = None
        if self._late:
            raise DeadlinePassed

    def wait_for_room(self) -> bool:
        """Until more can be sent, or there is something to read: True then. Raises DeadlinePassed."""
        self._writable.start(self._on_event)
        try:
            self.wait()
        finally:
            self._writable.stop()
        return self.has_input()

    def has_input(self) -> bool:
        """Whether a read would tell something at once: bytes, an end or an error."""
        try:
            self._sock.recv(1, constants.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def low_water(self, byte_count: int) -> None:
        """Wake no reader before so many bytes are there (or the connection ends)."""
        self._sock.setsockopt(constants.SOL_SOCKET, constants.SO_RCVLOWAT, byte_count)

    def listen(self) -> None:
        self._readable.start(self._on_event)
        self._listening = True

    def retire(self) -> None:
        """Never use it again: it ended, or what came unasked would, unread, wake the loop forever."""
        self.stale = True
        self._readable.stop()
        self._listening = False

    def close(self) -> None:
        for watcher in (self._readable, self._writable, self._timer):
            watcher.stop()
            watcher.close()
        self.on_unasked = _nothing  # it may be a method of this wire's owner: no cycle is left behind
        self._sock.close()

    def _on_event(self) -> None:
        if self._waiting is not None:
            self._waiting.switch()
        else:
            self.on_unasked()

    def _on_time(self) -> None:
        """Most often an exchange after the one that started the timer is under way: then not yet."""
        left_ns = self._deadline_ns - time.monotonic_ns()
        if left_ns > 0:
            self._timer.close()
            self._timer = get_hub().loop.timer(left_ns / 1e9)
            self._timer.start(self._on_time)
        elif self._waiting is not None:
            self._late = True
            self._waiting.switch()


def _nothing() -> None:
    pass


def connect(host: str, port: int, timeout_s: float) -> PlainSocket:
    """Connects, without Nagle's delay. Raises OSError, DeadlinePassed."""
    try:
        with gevent.Timeout(timeout_s, DeadlinePassed):  # looking up the name, too
            sock = gevent.socket.create_connection((host, port), timeout=timeout_s)
    except TimeoutError:
        raise DeadlinePassed from None
    except UnicodeError:
        raise OSError(f"{host!r} is no name of a host") from None
    sock.setsockopt(constants.IPPROTO_TCP, constants.TCP_NODELAY, 1)
    plain = _socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return PlainSocket(plain, timeout_s)
