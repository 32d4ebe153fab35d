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
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from bench.core.errors import WrongUse
from bench.core.samples import Outcome

if TYPE_CHECKING:
    from bench.protocols.gevent_socket import PlainSocket, TlsSocket

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
    without its transport; `head_length` is Triton's `Inference-Header-Content-Length` (0: none).
    """

    __slots__ = ("body", "done_ns", "error", "head_length", "outcome", "sent_ns")

    def __init__(self) -> None:
        self.outcome = 0
        self.sent_ns = 0
        self.done_ns = 0
        self.error = ""
        self.head_length = 0
        self.body: memoryview = memoryview(b"")


class DeadlinePassed(Exception):
    """The exchange's time is up."""


class BrokenAnswer(Exception):
    """The peer closed early, or sent what its protocol does not allow."""


def reason(error: Exception) -> str:
    """An error of the transport in a few words."""
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


AnySocket = TypeVar("AnySocket", bound="PlainSocket | TlsSocket")


class SocketConnection(ABC, Generic[AnySocket]):
    """A connection over one socket. After any failure it connects again by itself.

    An exchange that has to connect counts the time of connecting, since its user waits for it; `connect`
    beforehand keeps that time out of the first exchange.
    """

    def __init__(self, host: str, port: int, timeout_s: float, tls: Any = None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s = timeout_s
        self._socket: AnySocket | None = None
        self._reply = Reply()

    @abstractmethod
    def _converse(self, sock: AnySocket, request: Bytes, reply: Reply) -> None:
        """Send a request and fill the reply in. Raises OSError, BrokenAnswer, DeadlinePassed."""

    def _greet(self, sock: AnySocket) -> None:
        """Whatever a protocol says before its first request. Raises as `_converse`."""

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
            if sock is None or sock.stale or self._is_used_up():
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

    def _open(self) -> AnySocket:
        from bench.protocols.gevent_socket import connect

        self.close()
        sock: Any = connect(self._host, self._port, self._timeout_s, self._tls)
        self._socket = sock
        self._greet(sock)
        opened: AnySocket = sock
        return opened

    def _fail(self, outcome: Outcome, error: str) -> None:
        reply = self._reply
        reply.done_ns = time.monotonic_ns()
        reply.outcome, reply.error = outcome, error
        reply.body, reply.head_length = memoryview(b""), 0
        self.close()


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
