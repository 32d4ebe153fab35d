"""From manifests to pods that serve: apply, wait, find, scale, remove."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from bench.cluster.api import Cluster
from bench.cluster.deploy.failures import refused
from bench.cluster.deploy.readiness import Baseline, Change, Wanted, wait_until_serving
from bench.cluster.platforms import platform_kinds
from bench.cluster.platforms.base import (
    DEPLOYMENT,
    MANAGED,
    MANAGER,
    RUN,
    DeploymentSpec,
    Item,
    Platform,
    manifests,
    revision_of,
    selector,
)
from bench.cluster.pods import REVISION, Pod
from bench.core.cell import Protocol
from bench.core.errors import ClusterError, DeployFailed

Say = Callable[[str], None]
GONE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """A service that serves. `selector` finds its pods, `url` is the platform's way to them."""

    platform: Platform
    name: str
    url: str
    pods: tuple[Pod, ...]
    selector: str
    traffic: Protocol = Protocol.HTTP  # what `url` takes
    grpc_url: str = ""  # takes gRPC beside it


def deploy_all(
    cluster: Cluster, specs: Sequence[DeploymentSpec], say: Say, timeout_s: float = 600
) -> tuple[Deployed, ...]:
    """Apply all, then wait until these very changes serve, whatever ran there before.

    Raises DeployFailed with the cause, or ClusterError. What was applied stays, to be looked at.
    """
    for item in (item for spec in specs for item in manifests(spec)):
        _refuse_foreign(cluster, item)
    return _served(cluster, [_applied(cluster, spec, say) for spec in specs], say, timeout_s)


def find_service(cluster: Cluster, platform: Platform, name: str) -> Deployed:
    """A service that is there already, whoever made it.

    Raises DeployFailed where there is none, or it does not serve.
    """
    item = cluster.read(platform.kind, name)
    if item is None:
        there = ", ".join(sorted(one["metadata"]["name"] for one in cluster.items(platform.kind)))
        raise DeployFailed(
            f"No {platform.kind} {name!r} in namespace {cluster.namespace!r}; there are: {there or 'none'}. "
            "Give another name or --namespace, or make it with --deploy."
        )
    labels = platform.pod_labels(item)
    pods = tuple(pod for pod in cluster.pods(selector(labels)) if pod.ready)
    deployed = _deployed(cluster, Wanted(platform, name, len(pods), labels), item, pods)
    if not pods or not deployed.url:
        raise DeployFailed(
            f"{platform.kind} {name!r} has no ready pod or no address: see `kubectl describe "
            f"{platform.kind.lower()} {name}`, and wait until it is ready."
        )
    return deployed


def scale(cluster: Cluster, deployed: Deployed, replicas: int, say: Say, timeout_s: float = 600) -> Deployed:
    """Exactly so many pods, and no autoscaling. Raises DeployFailed with the cause, or ClusterError."""
    platform, name = deployed.platform, deployed.name
    item = cluster.read(platform.kind, name)
    if item is None:
        raise DeployFailed(f"{platform.kind} {name!r} is gone: somebody else removed it; deploy it again.")
    labels, revision = platform.pod_labels(item), ""
    if platform.replicas_are_a_revision:
        revision = f"replicas-{replicas}-{item['metadata']['resourceVersion']}"
        labels |= {REVISION: revision}
        say(
            f"{name}: {replicas} replicas are a new revision; until its pods are ready, the pods of both "
            "revisions may hold GPUs"
        )
    baseline = Baseline.of(cluster, platform, name)
    cluster.patch_json(platform.kind, name, platform.scaling(item, replicas, revision))
    change = Change(Wanted(platform, name, replicas, labels), baseline)
    return _served(cluster, [change], say, timeout_s)[0]


def undeploy(
    cluster: Cluster,
    say: Say,
    *,
    names: Collection[str] = (),
    run_label: str = "",
    timeout_s: float = GONE_TIMEOUT_S,
) -> tuple[str, ...]:
    """Remove what `deploy` made under these names and label, and nothing else; returns "Kind name" of each.

    Raises DeployFailed when something is still there after `timeout_s`.
    """
    if not (names or run_label):
        raise ValueError("names or run_label: without either, everything of ours would go")
    ours = selector({MANAGED: MANAGER, **({RUN: run_label} if run_label else {})})
    if names:
        ours += f",{DEPLOYMENT} in ({','.join(names)})"
    removed = []
    for kind, one in _objects(cluster, ours):
        cluster.delete(kind, one)
        removed.append(f"{kind} {one}")
        say(f"removed {kind} {one}")
    deadline = time.monotonic() + timeout_s
    # Pods hold GPUs until they have ended, so a deployment is gone when they are.
    while left := [
        *(f"{kind} {one}" for kind, one in _objects(cluster, ours)),
        *(f"Pod {item['metadata']['name']}" for item in cluster.items("Pod", ours)),
    ]:
        if time.monotonic() > deadline:
            raise DeployFailed(
                f"Still there {timeout_s:g} s after removal: {', '.join(left)}. See `kubectl describe` of "
                "them, and run `bench undeploy` again."
            )
        time.sleep(0.2)  # Polled, since a watch would need one more verb than list.
    return tuple(removed)


def _applied(cluster: Cluster, spec: DeploymentSpec, say: Say) -> Change:
    baseline = Baseline.of(cluster, spec.platform, spec.name)
    for item in manifests(spec):
        _apply(cluster, spec.platform, item)
        say(f"applied {item['kind']} {item['metadata']['name']}")
    labels = {DEPLOYMENT: spec.name, REVISION: revision_of(spec)}
    wanted = Wanted(spec.platform, spec.name, spec.replicas, labels)
    return Change(wanted, baseline, bool(spec.queue))


def _apply(cluster: Cluster, platform: Platform, item: Item) -> None:
    kind, name = item["kind"], item["metadata"]["name"]
    try:
        cluster.apply(item)
    except ClusterError as error:
        reason = refused(str(error))
        if error.status == 404 and kind in platform.kinds and "namespaces" not in str(error):
            reason = refused("could not find the requested resource")
        raise DeployFailed(reason or f"{kind} {name} was refused: {error}") from error


def _refuse_foreign(cluster: Cluster, item: Item) -> None:
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


def _objects(cluster: Cluster, ours: str) -> Iterator[tuple[str, str]]:
    """Kind and name of what any platform may have made. A service comes before what it refers to."""
    for kind in (*platform_kinds(), "Service"):
        for item in cluster.items(kind, ours):
            yield kind, item["metadata"]["name"]


def _served(cluster: Cluster, changes: list[Change], say: Say, timeout_s: float) -> tuple[Deployed, ...]:
    serving = wait_until_serving(cluster, changes, say, timeout_s)
    return tuple(
        _deployed(cluster, change.wanted, *one) for change, one in zip(changes, serving, strict=True)
    )


def _deployed(cluster: Cluster, wanted: Wanted, item: Item, pods: Sequence[Pod]) -> Deployed:
    def read(kind: str, name: str) -> Item | None:
        try:
            return cluster.read(kind, name)
        except ClusterError as error:
            if error.status == 403:
                return None
            raise

    platform = wanted.platform
    return Deployed(
        platform,
        wanted.name,
        platform.address(item),
        tuple(pods),
        selector(wanted.labels),
        platform.traffic(item, read),
        platform.grpc_address(item),
    )
