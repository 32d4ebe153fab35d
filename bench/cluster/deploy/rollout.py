"""From manifests to pods that serve: apply, wait for this very change, say why when it fails, take away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.deploy.failures import refused
from bench.cluster.deploy.ports import grpc_beside, runtime_of, traffic_of
from bench.cluster.deploy.readiness import Before, Change, Wanted, address, wait
from bench.cluster.platforms import base as platforms
from bench.cluster.platforms.base import DEPLOYMENT, KIND, MANAGED, MANAGER, RUN, DeploymentSpec, Platform
from bench.cluster.pods import REVISION, Pod
from bench.core.cell import Protocol
from bench.core.errors import ClusterError, DeployFailed

Say = Callable[[str], None]
GONE_TIMEOUT_S = 120.0
# A service before what it refers to, so that nothing restarts for want of it.
_REMOVED = ("MLService", "InferenceService", "Deployment", "MLServiceRuntime", "Service")


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service that serves. `selector` finds its pods, `url` is the platform's way to them."""

    platform: Platform
    name: str
    namespace: str
    replicas: int
    url: str
    pods: tuple[Pod, ...]
    selector: str
    traffic: Protocol = Protocol.HTTP  # what `url` takes
    grpc_url: str = ""  # takes gRPC beside it


def deploy(cluster: Cluster, spec: DeploymentSpec, say: Say, timeout_s: float = 600) -> Deployed:
    """Apply and wait until this change serves, whatever ran there before.

    Raises DeployFailed with the cause, or ClusterError. What was applied stays, to be looked at.
    """
    return deploy_all(cluster, (spec,), say, timeout_s)[0]


def deploy_all(
    cluster: Cluster, specs: Sequence[DeploymentSpec], say: Say, timeout_s: float = 600
) -> tuple[Deployed, ...]:
    """As `deploy`, several at once: all are applied before any is waited for."""
    for item in (item for spec in specs for item in platforms.manifests(spec)):
        _refuse_foreign(cluster, item)
    changes = [_applied(cluster, spec, say) for spec in specs]
    landed = wait(cluster, changes, say, timeout_s)
    return tuple(_deployed(cluster, change.wanted, *one) for change, one in zip(changes, landed, strict=True))


def _applied(cluster: Cluster, spec: DeploymentSpec, say: Say) -> Change:
    objects = platforms.manifests(spec)
    before = Before.of(cluster, spec.platform, spec.name)
    for item in objects:
        _apply(cluster, item)
        say(f"applied {item['kind']} {item['metadata']['name']}")
    labels = {DEPLOYMENT: spec.name, REVISION: platforms.revision_of(objects)}
    wanted = Wanted(spec.platform, spec.name, spec.namespace, spec.replicas, labels)
    return Change(wanted, before, bool(spec.queue))


def found(cluster: Cluster, platform: Platform, name: str) -> Deployed:
    """A service that is there already, whoever made it.

    Raises DeployFailed where there is none, or it does not serve.
    """
    item = cluster.read(KIND[platform], name)
    if item is None:
        there = ", ".join(sorted(one["metadata"]["name"] for one in cluster.items(KIND[platform])))
        raise DeployFailed(
            f"No {KIND[platform]} {name!r} in namespace {cluster.namespace!r}; there are: {there or 'none'}. "
            "Give another name or --namespace, or make it with --deploy."
        )
    labels = platforms.pods_of(platform, item)
    pods = tuple(pod for pod in cluster.pods(platforms.selector(labels)) if pod.ready)
    wanted = Wanted(platform, name, cluster.namespace, len(pods), labels)
    deployed = _deployed(cluster, wanted, item, pods)
    if not pods or not deployed.url:
        raise DeployFailed(
            f"{KIND[platform]} {name!r} has no ready pod or no address: see `kubectl describe "
            f"{KIND[platform].lower()} {name}`, and wait until it is ready."
        )
    return deployed


def scale(cluster: Cluster, deployed: Deployed, replicas: int, say: Say, timeout_s: float = 600) -> Deployed:
    """Exactly so many pods, and no autoscaling. Raises DeployFailed with the cause, or ClusterError."""
    kind = KIND[deployed.platform]
    item = cluster.read(kind, deployed.name)
    if item is None:
        raise DeployFailed(f"{kind} {deployed.name!r} is gone: somebody else removed it; deploy it again.")
    labels = platforms.pods_of(deployed.platform, item)
    if deployed.platform is Platform.MLSERVICE:
        labels = {**labels, REVISION: f"replicas-{replicas}-{item['metadata']['resourceVersion']}"}
        say(
            f"{deployed.name}: {replicas} replicas are a new revision; until its pods are ready, Knative may "
            "hold the GPUs of both"
        )
    before = Before.of(cluster, deployed.platform, deployed.name)
    cluster.patch_json(kind, deployed.name, _scaling(deployed.platform, item, replicas, labels))
    wanted = Wanted(deployed.platform, deployed.name, deployed.namespace, replicas, labels)
    (landed,) = wait(cluster, [Change(wanted, before)], say, timeout_s)
    return _deployed(cluster, wanted, *landed)


def undeploy(
    cluster: Cluster,
    say: Say,
    *,
    name: str = "",
    run_label: str = "",
    timeout_s: float = GONE_TIMEOUT_S,
) -> tuple[str, ...]:
    """Remove what `deploy` made under that name or label, and nothing else; returns "Kind name" of each.

    Raises DeployFailed when something is still there after `timeout_s`.
    """
    if not (name or run_label):
        raise ValueError("name or run_label: without either, everything of ours would go")
    labels = {MANAGED: MANAGER, DEPLOYMENT: name, RUN: run_label}
    selector = platforms.selector({key: value for key, value in labels.items() if value})
    removed = []
    for kind, one in _ours(cluster, selector):
        cluster.delete(kind, one)
        removed.append(f"{kind} {one}")
        say(f"removed {kind} {one}")
    deadline = time.monotonic() + timeout_s
    while left := [
        *(f"{kind} {one}" for kind, one in _ours(cluster, selector)),
        *_running(cluster, selector),
    ]:
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"Still there {timeout_s:g} s after removal: {', '.join(left)}. See `kubectl describe` of "
                "them, and run `bench undeploy` again."
            )
        time.sleep(0.2)  # polled: a watch would need one more verb than list
    return tuple(removed)


def _ours(cluster: Cluster, selector: str) -> Iterator[tuple[str, str]]:
    for kind in _REMOVED:
        for item in cluster.items(kind, selector):
            yield kind, item["metadata"]["name"]


def _running(cluster: Cluster, selector: str) -> Iterator[str]:
    """Pods hold GPUs until they have ended, so a deployment is gone when they are."""
    yield from (f"Pod {item['metadata']['name']}" for item in cluster.items("Pod", selector))


def _apply(cluster: Cluster, item: Mapping[str, Any]) -> None:
    kind, name = item["kind"], item["metadata"]["name"]
    try:
        cluster.apply(item)
    except ClusterError as error:
        known = refused(str(error))
        if error.status == 404 and known is None and kind in ("MLServiceRuntime", "InferenceService"):
            known = refused("could not find the requested resource")
        raise DeployFailed(known or f"{kind} {name} was refused: {error}") from error


def _refuse_foreign(cluster: Cluster, item: Mapping[str, Any]) -> None:
    """Taking over somebody's object would change their service, and `undeploy` would then remove it."""
    kind, name, mine = item["kind"], item["metadata"]["name"], item["metadata"]["labels"]
    there = cluster.read(kind, name)
    if there is None:
        return
    theirs = there["metadata"].get("labels", {})
    if any(theirs.get(key) != mine[key] for key in (MANAGED, DEPLOYMENT)):
        raise DeployFailed(
            f"{kind} {name!r} is there already and was not made by this deployment: give another --name, or "
            "measure it as it is with `bench sweep --mlservice NAME`."
        )


def _scaling(
    platform: Platform, item: Mapping[str, Any], replicas: int, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    if platform is Platform.DEPLOYMENT:
        return [{"op": "add", "path": "/spec/replicas", "value": replicas}]
    at = "/spec/predictor"
    if platform is Platform.MLSERVICE:
        names = [one["name"] for one in item["spec"]["releases"]]
        at = f"/spec/releases/{names.index(item['spec']['default'])}/predictor"
    bounds = [
        {"op": "add", "path": f"{at}/{bound}", "value": replicas} for bound in ("minReplicas", "maxReplicas")
    ]
    return bounds if platform is Platform.KSERVE else [*bounds, *_labelling(item, at, labels[REVISION])]


def _labelling(item: Mapping[str, Any], at: str, revision: str) -> list[dict[str, Any]]:
    """A patch adds to what is there, so what holds the label is made first where it is missing."""
    operations: list[dict[str, Any]] = []
    here = next(one for one in item["spec"]["releases"] if one["name"] == item["spec"]["default"])[
        "predictor"
    ]
    path = at
    for part in ("template", "metadata", "labels"):
        path = f"{path}/{part}"
        if part not in here:
            operations.append({"op": "add", "path": path, "value": {}})
        here = here.get(part, {})
    key = REVISION.replace("~", "~0").replace("/", "~1")
    return [*operations, {"op": "add", "path": f"{path}/{key}", "value": revision}]


def _runtime(cluster: Cluster, item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """None where it may not be read: then its port counts as the usual one, HTTP."""
    try:
        return cluster.read("MLServiceRuntime", runtime_of(item))
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _deployed(cluster: Cluster, wanted: Wanted, item: Mapping[str, Any], pods: Sequence[Pod]) -> Deployed:
    runtime = _runtime(cluster, item) if wanted.platform is Platform.MLSERVICE else None
    return Deployed(
        wanted.platform,
        wanted.name,
        wanted.namespace,
        wanted.replicas,
        address(wanted, item),
        tuple(pods),
        platforms.selector(wanted.labels),
        traffic_of(wanted.platform, item, runtime),
        grpc_beside(wanted.platform, item),
    )
