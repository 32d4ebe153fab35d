"""Whether a change has landed: its own pods, not an older READY. Pure.

An MLService has no observedGeneration, so its Ready condition may still be about what ran before. Each
change therefore gives its pods a label of their own, and has landed when these pods are all ready, none
of another revision is left (it would still take requests, and hold a GPU), and the service says Ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cluster.deploy.manifests import Platform
from bench.cluster.pods import Pod, condition


@dataclass(frozen=True, slots=True)
class Wanted:
    """`labels` tell the pods of this change from those of others."""

    platform: Platform
    name: str
    namespace: str
    replicas: int
    labels: Mapping[str, str]


def missing(wanted: Wanted, item: Mapping[str, Any] | None, pods: Sequence[Pod]) -> str:
    """What is still waited for, as a phrase; "" when the change has landed.

    `pods` are all of the service, of any revision, without those being ended.
    """
    if item is None:
        return "the service to exist"
    mine, others = split(wanted, pods)
    ready = sum(pod.ready for pod in mine)
    if ready < wanted.replicas:
        return f"pods of this revision: {ready} of {wanted.replicas} ready"
    if len(mine) > wanted.replicas:
        return f"{len(mine) - wanted.replicas} pods too many to end"
    if others:
        return f"{len(others)} pods of an earlier revision to end"
    return _unsettled(wanted, item)


def split(wanted: Wanted, pods: Sequence[Pod]) -> tuple[tuple[Pod, ...], tuple[Pod, ...]]:
    """Pods of this change, and the others; without those that have ended by themselves."""
    alive = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    mine = tuple(pod for pod in alive if wanted.labels.items() <= pod.labels.items())
    return mine, tuple(pod for pod in alive if pod not in mine)


def address(wanted: Wanted, item: Mapping[str, Any]) -> str:
    """With a scheme, whether the platform gives one or not; "" where it gives no address yet."""
    if wanted.platform is Platform.DEPLOYMENT:
        return f"http://{wanted.name}.{wanted.namespace}.svc:8000"
    status = item.get("status", {})
    given = str(status.get("address", {}).get("url") or status.get("url") or "").rstrip("/")
    return given if not given or "://" in given else f"http://{given}"


def _unsettled(wanted: Wanted, item: Mapping[str, Any]) -> str:
    status = item.get("status", {})
    seen, generation = status.get("observedGeneration"), item["metadata"].get("generation", 0)
    if wanted.platform is Platform.DEPLOYMENT:
        if (seen or 0) < generation:
            return "the change to be taken up"
        available = int(status.get("availableReplicas") or 0)
        return "" if available >= wanted.replicas else f"available: {available} of {wanted.replicas}"
    if seen is not None and seen < generation:
        return "the change to be taken up"
    if condition(item, "Ready") != "True":
        return f"Ready, which is {_ready(item)}"
    counted = _release(item).get("readyReplicas")
    if counted is not None and counted != wanted.replicas:
        return f"the service to count its replicas: {counted} of {wanted.replicas}"
    return "" if address(wanted, item) else "the service's address"


def _ready(item: Mapping[str, Any]) -> str:
    for one in item.get("status", {}).get("conditions", ()):
        if one.get("type") == "Ready":
            return " ".join(str(one[key]) for key in ("status", "reason") if one.get(key))
    return "not said"


def _release(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Status of the default release; {} where there is none, or the platform has no releases."""
    default = item["spec"].get("default")
    releases = item.get("status", {}).get("releases", ())
    return next((one for one in releases if one.get("name") == default), {})
