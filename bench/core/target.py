"""A Triton under test: its addresses, and which of them a load's requests take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bench.core.cell import Load, Protocol, Via
from bench.core.errors import ToolError

# How requests get to a service's pods, as trials and tables say it.
SERVICE, GRPC_SERVICE = "service address", "gRPC service's address"
PODS, FORWARDED = "pods", "pods by port-forward"


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

    @property
    def is_service(self) -> bool:
        """Whether pods stand behind the address: a request there reaches any one of them."""
        return bool(self.pods)

    def takes(self, protocol: Protocol) -> bool:
        """Whether there is an address for the protocol, the pods' own not counted."""
        return bool(self.grpc_address if protocol is Protocol.GRPC else self.http_url)

    def service_for(self, protocol: Protocol) -> Target:
        """The service that takes a protocol, with no pods but its own: a platform's port is HTTP or gRPC."""
        if protocol is Protocol.GRPC and self.over_grpc is not None:
            return self.over_grpc
        return self if self.over_grpc is None else replace(self, over_grpc=None)

    def routes(self, load: Load) -> tuple[Target, ...]:
        """Where the users of a load send their requests: all to one address, or spread over the pods.

        A service whose address does not take the protocol leaves it the way straight to the pods.
        """
        service = self.service_for(load.protocol)
        is_straight = load.via is Via.POD or not service.takes(load.protocol)
        return service.pods if is_straight and service.is_service else (service,)

    def only_route(self, load: Load) -> Target:
        """The route of a load generator that takes one address. Raises ToolError where there are several."""
        routes = self.routes(load)
        if len(routes) > 1:
            raise ToolError(
                f"This engine takes one address, and straight to the pods there are {len(routes)}: "
                "use --engine locust, --replicas 1, or --via platform."
            )
        return routes[0]

    def route_record(self, load: Load) -> dict[str, str]:
        """How a load's requests went, in words and as an address, to keep with its trial; {} off clusters."""
        first = self.routes(load)[0]
        address = first.grpc_address if load.protocol is Protocol.GRPC else first.http_url
        return {"way": first.way, "address": address or ""} if first.way else {}

    def missing_route(self, protocol: Protocol, vias: tuple[Via | None, ...]) -> str:
        """What to do where a protocol is asked for and there is no address for it; ""."""
        service = self.service_for(protocol)
        if service.takes(protocol) or (service.is_service and Via.PLATFORM not in vias):
            return ""
        if service.is_service:
            return (
                f"the service's address does not take {protocol}: name a service that does beside it "
                "(--mlservice A,B), leave out --via, or give --via pod"
            )
        return "needs --grpc-url host:port, since --url has no port to count from"


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
        _host_and_port(grpc_url) if grpc_url else (f"{host}:{parts.port + 1}" if parts.port else None)
    )
    if metrics_url:
        metrics = normalise_url(metrics_url)
        metrics = metrics if urlsplit(metrics).path else f"{metrics}/metrics"
    else:
        metrics = f"http://{host}:{parts.port + 2}/metrics" if parts.port else ""
    return Target(http_url, grpc_address, metrics or None, tuple(headers))


def _host_and_port(text: str) -> str:
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
