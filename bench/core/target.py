"""The three addresses of a Triton, from as many of them as somebody gave."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from bench.core.trial import Target
from bench.server.control import normalise_url


def target_of(
    url: str, grpc_url: str | None, metrics_url: str | None, headers: Sequence[tuple[str, str]] = ()
) -> Target:
    """Triton's own ports are neighbours: gRPC is HTTP's + 1, metrics + 2.

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
