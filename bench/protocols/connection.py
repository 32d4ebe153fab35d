"""One user's connection to a server: exchanges one after another, whose failures are told and never raised.

This is what the protocols share. Each of them says how a connection is opened and how one request and its
answer are talked over. gevent is imported when a connection opens, since only processes that make load need
it.
"""

from __future__ import annotations

import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from bench.core.errors import WrongUse
from bench.core.samples import Outcome
from bench.core.target import PLAIN, Way, basic

if TYPE_CHECKING:
    from bench.protocols.blocking_socket import BlockingSocket
    from bench.protocols.gevent_socket import PlainSocket
    from bench.protocols.tls_socket import TlsSocket

    Socket: TypeAlias = PlainSocket | BlockingSocket | TlsSocket

Bytes = bytes | memoryview
# An answer that is larger than this is refused before it fills the memory.
MAX_BODY_BYTES = 1 << 30
# For an answer of which at least `LOW_WATER_FROM` bytes are missing, the kernel is asked (SO_RCVLOWAT) to
# wake the reader only when many bytes have come. More than `LOW_WATER_MOST` at once is slower: copying what
# has come while the rest arrives saves time.
LOW_WATER_FROM, LOW_WATER_MOST = 64 << 10, 256 << 10


class Reply:
    """What an exchange came to; one object a connection, valid until its next exchange.

    `outcome` is a `samples.Outcome`; times are nanoseconds of the monotonic clock; `body` is the answer
    without its transport; `head_length` is Triton's `Inference-Header-Content-Length` (0: none); `status` is
    HTTP's; `was_reused`: whether an earlier exchange had opened the connection.
    """

    __slots__ = ("body", "done_ns", "error", "head_length", "outcome", "sent_ns", "status", "was_reused")

    def __init__(self) -> None:
        self.outcome = 0
        self.sent_ns = 0
        self.done_ns = 0
        self.error = ""
        self.head_length = self.status = 0
        self.was_reused = False
        self.body: memoryview = memoryview(b"")


class DeadlinePassed(Exception):
    """The exchange's time is up."""


class BrokenAnswer(Exception):
    """The peer closed early, or sent what its protocol does not allow."""


def too_large(limit: int) -> BrokenAnswer:
    """Of an answer that is given up before it fills the memory."""
    return BrokenAnswer(f"an answer of over {limit} bytes: --max-answer allows more")


def reason(error: Exception) -> str:
    """An error of the transport in a few words."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        why = getattr(error, "verify_message", "")
        return f"its certificate is not trusted ({why}): give its authority with --ca".lower()
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


# Errors of the system that say that this process, or this machine, has no more of something.
_OWN_LIMITS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


def outcome_of(error: Exception) -> Outcome:
    """Whose failure an error of the transport is: the connection's, or that of this machine's own limits."""
    is_ours = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OWN_LIMITS)
    return Outcome.CLIENT if is_ours else Outcome.CONNECTION


class Connection(Protocol):
    """What makes load of a connection, whoever implements it."""

    def connect(self) -> str: ...
    def exchange(self, request: bytes) -> Reply: ...
    def close(self) -> None: ...


class SocketConnection(ABC):
    """A connection over one socket. After any failure it connects again by itself.

    An exchange that has to connect counts the time of connecting, since its user waits for it; `connect`
    beforehand keeps that time out of the first exchange.
    """

    application = ""  # what is spoken, as TLS names it

    def __init__(
        self, host: str, port: int, timeout_s: float, way: Way = PLAIN, *, blocking: bool = False
    ) -> None:
        self._host, self._port, self._way = host, port, way
        self._timeout_s = timeout_s
        self._blocking = blocking
        self._socket: Socket | None = None
        self._reply = Reply()

    @abstractmethod
    def _converse(self, sock: Socket, request: Bytes, reply: Reply) -> None:
        """Send a request and fill the reply in. Raises OSError, BrokenAnswer, DeadlinePassed."""

    def _greet(self, sock: Socket) -> None:  # noqa: B027
        """Whatever a protocol says before its first request. Raises as `_converse`."""

    def _release(self) -> None:  # noqa: B027
        """After a failure: give back the memory of an answer that may have been large."""

    def _is_used_up(self) -> bool:
        """Whether the peer, or the protocol, allows no further exchange on this socket."""
        return False

    def connect(self) -> str:
        """Connect now. Returns why that failed, or ""."""
        try:
            self._open()
        except DeadlinePassed:
            self.close()
            return f"not connected within {self._timeout_s:g} s"
        except (OSError, BrokenAnswer, MemoryError) as error:
            self.close()
            return reason(error)
        return ""

    def exchange(self, request: Bytes) -> Reply:
        """Send the request and receive its answer. The reply tells of a failure; none is raised."""
        reply = self._reply
        reply.error = ""
        reply.sent_ns = time.monotonic_ns()
        try:
            sock = self._socket
            reply.was_reused = not (sock is None or sock.stale or self._is_used_up())
            if sock is None or not reply.was_reused:
                sock = self._open()
            sock.begin(reply.sent_ns)
            self._converse(sock, request, reply)
        except DeadlinePassed:
            self._fail(Outcome.TIMEOUT, f"no answer within {self._timeout_s:g} s")
        except (OSError, BrokenAnswer, MemoryError) as error:
            self._fail(outcome_of(error), reason(error))
        except BaseException:  # The rest of an exchange that was killed must not meet the next request.
            self.close()
            raise
        return reply

    def close(self) -> None:
        """Close the socket; the next exchange opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> Socket:
        self.close()
        began_ns = time.monotonic_ns()
        plain = self._connected()
        sock: Socket = plain
        self._socket = sock
        sock.begin(began_ns)
        if self._way.proxy:
            _tunnel(plain, self._way.proxy, self._host, self._port)
        if self._way.tls is not None:
            # ssl takes time to import, and most targets need none of it.
            from bench.protocols.tls_socket import secured

            sock = self._socket = secured(plain, self._host, self._way.tls, self.application, began_ns)
        self._greet(sock)
        return sock

    def _connected(self) -> PlainSocket | BlockingSocket:
        host, port = self._host, self._port
        if self._way.proxy:
            parts = urlsplit(self._way.proxy)
            host, port = parts.hostname or "", parts.port or 80
        if self._blocking:
            from bench.protocols import blocking_socket

            return blocking_socket.connect(host, port, self._timeout_s)
        from bench.protocols import gevent_socket

        return gevent_socket.connect(host, port, self._timeout_s)

    def _fail(self, outcome: Outcome, error: str) -> None:
        reply = self._reply
        reply.done_ns = time.monotonic_ns()
        reply.outcome, reply.error = outcome, error
        reply.body, reply.head_length = memoryview(b""), 0
        self.close()
        self._release()


_MOST_TUNNEL_BYTES = 16 << 10


def _tunnel(sock: PlainSocket | BlockingSocket, proxy: str, host: str, port: int) -> None:
    """Ask a proxy for a connection to the server. Raises BrokenAnswer, OSError, DeadlinePassed.

    Source: RFC 9110, section 9.3.6.
    """
    parts = urlsplit(proxy)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        lines.append(f"Proxy-Authorization: {basic(user, password)}")
    rest = memoryview("\r\n".join([*lines, "", ""]).encode("latin-1"))
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            sock.wait_for_room()
    # Byte by byte: what follows the head is the server's already.
    head, byte = bytearray(), memoryview(bytearray(1))
    while not head.endswith(b"\r\n\r\n"):
        sock.wait()
        try:
            count = sock.recv_into(byte)
        except BlockingIOError:
            continue
        if not count or len(head) > _MOST_TUNNEL_BYTES:
            raise BrokenAnswer("the proxy of --proxy gave no answer")
        head += byte
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        first = bytes(head.split(b"\r\n", 1)[0][:80]).decode("latin-1")
        raise BrokenAnswer(f"the proxy of --proxy refused: {first}")


# Headers that a request already has, or that would change how its bytes are read.
_OURS = frozenset(
    [
        *("accept-encoding", "connection", "content-length", "content-type", "expect"),
        *("inference-header-content-length", "te", "transfer-encoding", "upgrade"),
    ]
)
# The characters of a header name, in lower case.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def checked_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers, if they can be sent as they are. Values are never shown: they may be secret.

    Raises WrongUse, all mistakes at once. Source of the grammar: RFC 9110, section 5.
    """
    mistakes = []
    for name, value in headers:
        if not name or not _TOKEN.issuperset(name.lower()):
            mistakes.append(f"{name!r} is no header name: letters, digits and - only.")
        elif name.lower() in _OURS:
            mistakes.append(f"the header {name!r} is set by the suite: leave it out.")
        elif any(not (c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff") for c in value):
            mistakes.append(f"the value of the header {name!r} holds line breaks or control characters.")
    if mistakes:
        raise WrongUse(mistakes)
    return [(name, value.strip(" \t")) for name, value in headers]
