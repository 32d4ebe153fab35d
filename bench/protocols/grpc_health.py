"""Whether a Triton answers gRPC at an address: one call, asked by the process that plans the load."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

_LIVE = "/inference.GRPCInferenceService/ServerLive"
_YES = b"\x08\x01"  # ServerLiveResponse with its one field, `live`, true
_TIMEOUT_S = 5.0
_OPTIONS = [("grpc.enable_http_proxy", 0)]  # a proxy from the environment would answer for itself


def answers_grpc(address: str, headers: Sequence[tuple[str, str]], *, secure: bool) -> bool:
    """`address`: host:port. A gateway that takes the connection and knows no such service is no answer."""
    import grpc  # a tenth of a second, only of a sweep on a cluster

    try:
        channel = _secure(grpc, address) if secure else _plain(grpc, address)
    except OSError:
        return False  # the name is not known here
    with channel:
        call = channel.unary_unary(_LIVE)
        try:
            metadata = [(name.lower(), value) for name, value in headers]
            return bool(call(b"", timeout=_TIMEOUT_S, metadata=metadata) == _YES)
        except grpc.RpcError:
            return False


def _secure(grpc: Any, address: str) -> Any:
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(), _OPTIONS)


def _plain(grpc: Any, address: str) -> Any:
    """Names are resolved as this host does it for the load too; grpcio has a resolver of its own."""
    host, _, port = address.rpartition(":")
    family, *_, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    numeric = f"ipv6:[{where[0]}]:{port}" if family == socket.AF_INET6 else f"ipv4:{where[0]}:{port}"
    return grpc.insecure_channel(numeric, [*_OPTIONS, ("grpc.default_authority", address)])
