"""A Triton under test: its addresses."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

# What stands for a secret in everything that is stored or printed.
MASK = "***"
FROM_ENVIRONMENT = "env"  # of --proxy: as the variables http_proxy, https_proxy and no_proxy say
_REFERENCES = ("@env:", "@file:")  # of a header's value: where it is found
_MOST_HEADER_BYTES = 16 << 10

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


SYSTEM_TLS = Tls()


@dataclass(frozen=True, slots=True)
class Way:
    """What lies between us and a server's address. `tls` None: plain TCP. `proxy`: a URL, or ""."""

    tls: Tls | None = None
    proxy: str = field(default="", repr=False)  # may hold a password


PLAIN = Way()
INSECURE_WARNING = (
    "--insecure: the server's certificate is not checked. Whoever is between can read and change all that is "
    "sent, passwords too; --ca FILE trusts this one server."
)


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
    tls: Tls = SYSTEM_TLS  # of addresses that begin with https
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
    url: str,
    grpc_url: str | None,
    metrics_url: str | None,
    headers: Sequence[tuple[str, str]] = (),
    tls: Tls = SYSTEM_TLS,
    proxy: str = "",
) -> Target:
    """A server from as many of its addresses as somebody gave: gRPC is HTTP's port + 1, metrics + 2.

    A user and password in `url` become a header, and are in no address. `proxy`: a URL, "", or "env" for what
    the environment says. Raises ValueError naming what is allowed.
    """
    http_url, headers = normalise_url(url), (*_basic_header(url, headers), *headers)
    parts = urlsplit(http_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else str(parts.hostname)
    grpc_address = (
        host_and_port(grpc_url) if grpc_url else (f"{host}:{parts.port + 1}" if parts.port else None)
    )
    if metrics_url:
        metrics = metrics_address(metrics_url)
    else:
        metrics = f"http://{host}:{parts.port + 2}/metrics" if parts.port else ""
    return Target(http_url, grpc_address, metrics or None, headers, tls=tls, proxy=_proxy_to(http_url, proxy))


def _basic_header(url: str, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    user = _user_of(url)
    if not user:
        return ()
    if any(name.lower() == "authorization" for name, _ in headers):
        raise ValueError("give the password in --url, or --header Authorization, not both")
    name, _, password = user.partition(":")
    return (("Authorization", basic(unquote(name), unquote(password))),)


def _proxy_to(http_url: str, asked: str) -> str:
    if asked != FROM_ENVIRONMENT:
        return asked
    parts = urlsplit(http_url)
    if proxy_bypass(parts.hostname or ""):
        return ""
    found = getproxies().get(parts.scheme, "")
    return proxy_address(found) if found else ""


def basic(user: str, password: str) -> str:
    """The value of an Authorization header. Source: RFC 7617."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def metrics_address(text: str) -> str:
    """A metrics address with its path, /metrics where none is given. Raises ValueError."""
    url = normalise_url(_without_user(text))
    return url if urlsplit(url).path else f"{url}/metrics"


def host_and_port(text: str) -> str:
    """`host:port`, also of a URL. Raises ValueError where there is no port."""
    bare = _without_user(text).partition("://")[2] or text
    url = normalise_url(f"http://{bare}")
    parts = urlsplit(url)
    if parts.port is None:
        raise ValueError(f"{masked_url(text)!r} has no port: give host:port")
    return url.removeprefix("http://").partition("/")[0]


def header(text: str) -> tuple[str, str]:
    """NAME:VALUE, or NAME:@env:VARIABLE or NAME:@file:PATH, whose values come from there.

    Raises ValueError without ever repeating the value, which may be secret.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(c in text for c in "\r\n\0"):
        raise ValueError("give NAME:VALUE, NAME:@env:VARIABLE or NAME:@file:PATH on one line")
    value = _referred(value.strip())
    if any(c in value for c in "\r\n\0"):
        raise ValueError("its value holds line breaks: a header is one line")
    return name.strip(), value


def masked_header(text: str) -> str:
    """As it may be stored: where a value comes from is no secret, the value itself may be."""
    value = text.partition(":")[2].strip()
    return text if value.startswith(_REFERENCES) else MASK


def _referred(value: str) -> str:
    if not value.startswith(_REFERENCES):
        return value
    source, _, name = value.removeprefix("@").partition(":")
    if source == "env":
        if name not in os.environ:
            raise ValueError(f"the variable {name} is not set: export it first")
        return os.environ[name].strip()
    try:
        data = Path(name).expanduser().read_bytes()[: _MOST_HEADER_BYTES + 1]
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"the file {name} cannot be read ({why})") from None
    if len(data) > _MOST_HEADER_BYTES:
        raise ValueError(f"the file {name} has over {_MOST_HEADER_BYTES >> 10} KiB: no header is that long")
    return data.decode("latin-1").strip()


def masked_url(text: str) -> str:
    """The address without user and password."""
    return re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", rf"\1{MASK}@", text, count=1, flags=re.DOTALL)


def given_url(text: str) -> str:
    """As `normalise_url`, with the user and password that were given in it."""
    url, user = normalise_url(text), _user_of(text)
    if user == MASK:
        raise ValueError("its password is masked, as in every file of a run: give it again")
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}@{rest}" if user else url


def proxy_address(text: str) -> str:
    """The value of --proxy. Raises ValueError."""
    if text == FROM_ENVIRONMENT:
        return text
    url = given_url(text)
    if not url.startswith("http://"):
        raise ValueError("give env, or http://HOST:PORT")
    return url


def _user_of(url: str) -> str:
    """user:password of a URL, as it is written there; "" without one."""
    text = url.strip()
    return urlsplit(text if "://" in text else f"http://{text}").netloc.rpartition("@")[0]


def _without_user(text: str) -> str:
    if "@" in text:
        raise ValueError("a user and password belong into --url, or into --header Authorization")
    return text


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
        shown = masked_url(text)
        why = error if shown == text else "is a character of the password %-encoded?"
        raise ValueError(f"{shown!r} is no address ({why}): give host:port or http(s)://host:port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(
            f"{masked_url(text)!r} has the scheme {parts.scheme!r}: give host:port or http(s)://host:port"
        )
    if not parts.hostname or any(c.isspace() for c in text):
        raise ValueError(f"{masked_url(text)!r} names no host: give host:port or http(s)://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
