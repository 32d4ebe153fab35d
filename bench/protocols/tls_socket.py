"""TLS over any of the sockets here, without waits of its own: bytes go through two buffers in memory.

So deadlines, acknowledgements between calls and early answers are what they are without TLS.
"""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.core.target import Tls
from bench.protocols.connection import BrokenAnswer, Bytes

if TYPE_CHECKING:
    from bench.protocols.blocking_socket import BlockingSocket
    from bench.protocols.gevent_socket import PlainSocket

_READ_BYTES = 256 << 10
# So much is encrypted before the rest waits for room.
_WRITE_BYTES = 256 << 10


@functools.cache
def context_of(tls: Tls, application: str) -> ssl.SSLContext:
    """`application`: what is spoken inside, as ALPN names it. Raises OSError for files of no use."""
    context = _context_class()(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([application])
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        context.load_verify_locations(tls.ca)
    else:
        context.load_default_certs()
    if tls.certificate:
        # Without a password here, one of the key's would be asked for on the terminal.
        context.load_cert_chain(tls.certificate, tls.key or None, password=_no_password)
    return context


def _context_class() -> type[ssl.SSLContext]:
    """gevent's: where Locust has patched `ssl` after its import, flags of Python's own cannot be set."""
    from gevent import ssl as patched

    found: type[ssl.SSLContext] = patched.SSLContext
    return found


def _no_password() -> str:
    raise ssl.SSLError("the key has a password: give one without")


def mistake(tls: Tls) -> str:
    """Why these files cannot be used, or ""."""
    try:
        context_of(tls, "http/1.1")
    except ssl.SSLError as error:
        return f"no usable PEM file ({error.reason or error})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""


class TlsSocket:
    """A `PlainSocket` or `BlockingSocket` with TLS on it; it belongs to one greenlet or thread at a time.

    Sending and receiving never wait: they raise BlockingIOError, and then a wait is due.
    """

    def __init__(
        self, inner: PlainSocket | BlockingSocket, context: ssl.SSLContext, server_hostname: str
    ) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._raw = memoryview(bytearray(_READ_BYTES))
        self._unsent = memoryview(b"")  # encrypted, and not yet taken by the kernel
        self._is_dry = True  # nothing is left to decrypt
        self._may_pull = True  # a wait said that there may be something to read
        self.on_unasked: Callable[[], None] = self._refuse_unasked
        inner.on_unasked = self._on_unasked

    @property
    def stale(self) -> bool:
        return self._inner.stale

    def handshake(self) -> None:
        """Raises OSError for a certificate that is not trusted, DeadlinePassed."""
        while True:
            try:
                self._object.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._is_dry = True
                self.wait()
                try:
                    self._pull()
                except BlockingIOError:
                    continue
            finally:
                self._flush()

    def application(self) -> str | None:
        """What the server chose of the application protocols; None: it does not know of such choices."""
        return self._object.selected_alpn_protocol()

    def begin(self, now_ns: int) -> None:
        self._inner.begin(now_ns)

    def wait(self) -> None:
        """Until there may be something to read. Raises DeadlinePassed."""
        try:
            is_flushed = self._flush()
        except (BrokenPipeError, ConnectionResetError):  # why may still be there to read
            self._unsent, is_flushed = memoryview(b""), True
        if not self._is_dry:
            return
        if is_flushed:
            self._inner.wait()
        else:
            self._inner.wait_for_room()
            self._flush()
        self._is_dry, self._may_pull = False, True

    def wait_for_room(self) -> bool:
        """Until more can be sent, or there may be something to read: True then. Raises DeadlinePassed."""
        if self._flush():
            return False
        has_input = self._inner.wait_for_room()
        self._flush()
        if has_input:
            self._is_dry, self._may_pull = False, True
        return has_input

    def low_water(self, byte_count: int) -> None:
        """Nothing: records, not bytes, are waited for."""

    def recv_into(self, buffer: memoryview) -> int:
        try:
            return self._decrypt(buffer)
        except BlockingIOError:
            if not self._may_pull:  # a fast server must not keep others from their turn: wait first
                raise
        self._may_pull = False
        self._pull()
        return self._decrypt(buffer)

    def send(self, data: Bytes) -> int:
        if not self._flush():
            raise BlockingIOError
        if not len(data):
            return 0
        count = self._object.write(memoryview(data)[:_WRITE_BYTES])
        self._flush()
        return count

    def sendmsg(self, buffers: list[Bytes]) -> int:
        sent = 0
        for buffer in buffers:
            try:
                count = self.send(buffer)
            except BlockingIOError:
                if sent:
                    break
                raise
            sent += count
            if count < len(buffer):
                break
        return sent

    def retire(self) -> None:
        self._inner.retire()

    def close(self) -> None:
        self.on_unasked = _nothing
        self._inner.close()

    def _decrypt(self, buffer: memoryview) -> int:
        try:
            count: Any = self._object.read(len(buffer), buffer)
            self._is_dry = False
            return int(count)
        except ssl.SSLWantReadError:
            self._is_dry = True
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return 0
        except ssl.SSLEOFError:
            raise BrokenAnswer("the server closed the connection without TLS's closing message") from None
        finally:
            self._flush()

    def _pull(self) -> None:
        """From the kernel, to be decrypted. Raises BlockingIOError."""
        count = self._inner.recv_into(self._raw)
        if count:
            self._incoming.write(self._raw[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> bool:
        """Hand on what is encrypted; whether the kernel took all of it."""
        while True:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
                if not self._unsent:
                    return True
            try:
                self._unsent = self._unsent[self._inner.send(self._unsent) :]
            except BlockingIOError:
                return False

    def _on_unasked(self) -> None:
        """Between exchanges, in the hub: perhaps only TLS's own messages, such as session tickets."""
        self._is_dry, self._may_pull = False, True
        self.on_unasked()

    def _refuse_unasked(self) -> None:
        try:
            self.recv_into(memoryview(bytearray(1)))
        except BlockingIOError:
            return
        except (OSError, BrokenAnswer):
            pass
        self.retire()


def _nothing() -> None:
    pass


def secured(
    inner: PlainSocket | BlockingSocket, host: str, tls: Tls, application: str, now_ns: int | None = None
) -> TlsSocket:
    """The socket after TLS's handshake. Raises OSError, BrokenAnswer, DeadlinePassed; closes it then."""
    try:
        sock = TlsSocket(inner, context_of(tls, application), host)
        sock.begin(time.monotonic_ns() if now_ns is None else now_ns)
        sock.handshake()
        chosen = sock.application()
        if chosen not in (None, application):
            raise BrokenAnswer(f"the server chose {chosen} inside TLS, not {application}")
    except BaseException:
        inner.close()
        raise
    return sock
