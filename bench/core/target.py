"""A Triton under test: its addresses."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# How requests get to a service's pods, as trials and tables say it.
SERVICE, GRPC_SERVICE = "service address", "gRPC service's address"
PODS, FORWARDED = "pods", "pods by port-forward"


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server's certificate is judged, and how we show who we are. Paths of PEM files, or ""."""

    ca: str = ""  # authorities to trust; "": those of this machine
    certificate: str = ""  # ours
    key: str = ""  # of our certificate; "": in the same file
    insecure: bool = False  # any certificate will do


@dataclass(frozen=True, slots=True)
class Way:
    """What lies between us and a server's address. `tls` None: plain TCP. `proxy`: a URL, or ""."""

    tls: Tls | None = None
    proxy: str = field(default="", repr=False)  # may hold a password


PLAIN = Way()


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests and control calls go: one server, or a service with its pods, or one of these pods.

    Each address is without a path, such as http://127.0.0.1:8000. An empty one cannot be reached.
    """

    http_url: str
    grpc_address: str | None = None  # host:port
    metrics_url: str | None = None  # with its path
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may be secret: never stored
    pid: int | None = None  # of the server, when it runs on this host and that is known
    name: str = ""  # of a pod
    pods: tuple[Target, ...] = ()  # of a service, each by itself
    way: str = ""  # of a service and of its pods: one of the words above
    over_grpc: Target | None = None  # the service that takes gRPC, where it is another one with its own pods
    tls: Tls = Tls()  # of addresses that begin with https
    proxy: str = field(default="", repr=False)  # a URL, which may hold a password; "": none

    @property
    def access(self) -> Way:
        """The way to the HTTP and gRPC addresses: gRPC has TLS where HTTP has it."""
        return Way(self.tls if self.http_url.startswith("https:") else None, self.proxy)

    @property
    def is_service(self) -> bool:
        """Whether pods stand behind the address: a request there reaches any one of them."""
        return bool(self.pods)


def target_of(
    url: str, grpc_url: str | None, metrics_url: str | None, headers: Sequence[tuple[str, str]] = ()
) -> Target:
    """A server from as many of its addresses as somebody gave: gRPC is HTTP's port + 1, metrics + 2.

    Raises ValueError naming what is allowed.
    """
    http_url = normalise_url(url)
    parts = urlsplit(http_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else str(parts.hostname)
    grpc_address = (
        host_and_port(grpc_url) if grpc_url else (f"{host}:{parts.port + 1}" if parts.port else None)
    )
    if metrics_url:
        metrics = metrics_address(metrics_url)
    else:
        metrics = f"http://{host}:{parts.port + 2}/metrics" if parts.port else ""
    return Target(http_url, grpc_address, metrics or None, tuple(headers))


def basic(user: str, password: str) -> str:
    """The value of an Authorization header. Source: RFC 7617."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def metrics_address(text: str) -> str:
    """A metrics address with its path, /metrics where none is given. Raises ValueError."""
    url = normalise_url(text)
    return url if urlsplit(url).path else f"{url}/metrics"


def host_and_port(text: str) -> str:
    """`host:port`, also of a URL. Raises ValueError where there is no port."""
    bare = text.partition("://")[2] or text
    url = normalise_url(f"http://{bare}")
    parts = urlsplit(url)
    if parts.port is None:
        raise ValueError(f"{text!r} has no port: give host:port")
    return url.removeprefix("http://").partition("/")[0]


def header(text: str) -> tuple[str, str]:
    """NAME:VALUE; raises ValueError without ever repeating the value, which may be secret."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(c in text for c in "\r\n\0"):
        raise ValueError("give NAME:VALUE on one line")
    return name.strip(), value.strip()


def normalise_url(text: str) -> str:
    """`host:port` or a URL -> scheme://host[:port][/path], without a trailing slash.

    Raises ValueError naming what is allowed.
    """
    text = text.strip()
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no address ({error}): give host:port or http(s)://host:port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{text!r} has the scheme {parts.scheme!r}: give host:port or http(s)://host:port")
    if not parts.hostname or any(c.isspace() for c in text):
        raise ValueError(f"{text!r} names no host: give host:port or http(s)://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
