"""The last gate of every deployment: each pod is healthy, has the model ready, and serves it as asked."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.pods import Pod
from bench.cluster.port_forward import PortForward, dial_pod
from bench.core.errors import DeployFailed
from bench.core.target import Target
from bench.server.control import Triton
from bench.server.model_config import read, served

_REACH_S = 1.0


def pass_gate(cluster: Cluster, pods: Sequence[Pod], model: str, repository: Path) -> None:
    """Raises DeployFailed naming the pod and what differs, or ClusterError where it cannot be reached."""
    file = repository / model / "config.pbtxt"
    asked = read(file) if file.exists() else None
    for pod in pods:
        with _reached(cluster, pod) as triton:
            _check(triton, pod.name, model, asked)


@contextlib.contextmanager
def _reached(cluster: Cluster, pod: Pod) -> Iterator[Triton]:
    """Directly where its address can be connected to, else forwarded by the API server."""
    with contextlib.ExitStack() as stack:
        host, port = pod.ip, pod.http_port
        if not _connects(host, port):
            forward = stack.enter_context(PortForward(dial_pod(cluster, pod.name), [port]))
            host, port = "127.0.0.1", forward.local[port]
        triton = Triton(Target(f"http://{host}:{port}", name=pod.name))
        stack.callback(triton.close)
        yield triton


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except OSError:
        return False
    return True


def _check(triton: Triton, pod: str, model: str, asked: dict[str, Any] | None) -> None:
    if not triton.ready():
        raise DeployFailed(f"Pod {pod} is not healthy (/v2/health/ready): see `kubectl logs {pod}`.")
    if not triton.model_ready(model):
        raise DeployFailed(
            f"Pod {pod} has no model {model!r} ready: does the volume hold it? See `kubectl logs {pod}`."
        )
    found = differences(asked, triton.config(model)) if asked else ()
    if found:
        raise DeployFailed(
            f"Pod {pod} serves {model!r} not as asked: {'; '.join(found)}. Fill the volume anew, or "
            "name what it was filled from with --repository."
        )


def differences(asked: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    """One phrase for each thing served differently from the repository's file.

    Not parameters: where the weights lie differs from place to place, by design.
    """
    want, have = served(asked), served(config)
    pairs = (
        ("instances", want.instances, have.instances),
        ("max batch", want.max_batch, have.max_batch),
        ("queue delay in us", want.queue_delay_us, have.queue_delay_us),
        ("inputs", _names(asked, "input"), _names(config, "input")),
        ("outputs", _names(asked, "output"), _names(config, "output")),
    )
    return tuple(f"{what}: asked {a}, served {s}" for what, a, s in pairs if a != s)


def _names(config: dict[str, Any], side: str) -> tuple[str, ...]:
    return tuple(one["name"] for one in config.get(side, ()))
