"""The last gate of every deployment: each pod is healthy, serves the model as asked, and answers requests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.pods import Pod
from bench.cluster.port_forward import reach_pod
from bench.core.cell import Protocol
from bench.core.errors import DeployFailed
from bench.core.samples import Outcome
from bench.core.target import Target
from bench.core.trial import Served
from bench.protocols import payload
from bench.protocols.answers import AnswerCheck, Expected, most_bytes
from bench.protocols.payload import Call
from bench.protocols.registry import DRIVERS
from bench.server.control import Triton
from bench.server.model_config import read, served

_REQUEST_TIMEOUT_S = 60.0  # A model's first request may compile it.


def verify(cluster: Cluster, pods: Sequence[Pod], model: str, repository: Path) -> None:
    """Ask every pod by itself: health, model, configuration, one request over HTTP and one over gRPC.

    Raises DeployFailed naming the pod and what differs, or ClusterError where it cannot be reached.
    """
    file = repository / model / "config.pbtxt"
    asked = read(file) if file.exists() else None
    for pod in pods:
        with ExitStack() as forwards:
            _verify_pod(reach_pod(cluster, pod, forwards), model, asked)


def _verify_pod(target: Target, model: str, asked: dict[str, Any] | None) -> None:
    pod = target.name
    with closing(Triton(target)) as triton:
        if not triton.ready():
            raise DeployFailed(f"Pod {pod} is not healthy (/v2/health/ready): see `kubectl logs {pod}`.")
        if not triton.model_ready(model):
            raise DeployFailed(
                f"Pod {pod} has no model {model!r} ready: does the volume hold it? See `kubectl logs {pod}`."
            )
        found = Served(triton.metadata(model), triton.config(model))
    if asked and (different := differences(asked, dict(found.config))):
        raise DeployFailed(
            f"Pod {pod} serves {model!r} not as asked: {'; '.join(different)}. Fill the volume anew, or "
            "say what it was filled from with `bench deploy --repository FOLDER`."
        )
    for protocol, driver in DRIVERS.items():
        if not driver.address(target):
            continue
        if wrong := ask_once(target, protocol, model, found):
            raise DeployFailed(
                f"Pod {pod} does not answer a request for {model!r} over {protocol}: {wrong.rstrip('.')}. "
                f"See `kubectl logs {pod}`."
            )


def ask_once(target: Target, protocol: Protocol, model: str, found: Served) -> str:
    """Send one inference request with seeded inputs. Returns what is wrong with the answer, or ""."""
    tensors = payload.for_model(found.metadata, found.max_batch, 1, seed=0)
    driver = DRIVERS[protocol]
    request = driver.build(Call(model, tensors), target)
    expected = Expected.of_model(found.metadata, found.max_batch, 1)
    check = AnswerCheck(driver.parse, expected)
    with closing(driver.connection(target, _REQUEST_TIMEOUT_S, most_bytes(expected))) as connection:
        reply = connection.exchange(request)
        return check.check(reply.body, reply.head_length) if reply.outcome == Outcome.OK else reply.error


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
