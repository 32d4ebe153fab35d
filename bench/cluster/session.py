"""A service on a cluster as a target: one that is there (--mlservice), or made for the run (--deploy)."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.deploy.lifecycle import deployed
from bench.cluster.deploy.rollout import Deployed, find_service
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms import base as platforms
from bench.cluster.platforms.base import DeploymentSpec, Platform
from bench.cluster.service import ClusterServing, ReachableService, Say
from bench.core.cell import Engine, Protocol, SharedMemory, Via
from bench.core.errors import DeployFailed
from bench.core.mistakes import Mistakes
from bench.core.spec import SweepSpec
from bench.core.target import Target, header
from bench.core.teardown import Teardown
from bench.core.units import parse_duration_s
from bench.server.session import Opened, opened, refuse_embedded, remote_target

__all__ = ["Place", "opened_at", "place_of", "refuse_cluster"]

IMAGE_VARIABLE = "BENCH_TRITON_IMAGE"  # a cluster's image seldom changes, and its name is long
_NEEDS_CLUSTER = ("replicas", "via", "namespace", "context", "platform")
_NEEDS_DEPLOY = ("triton_image", "gpu", "queue", "set", "keep", "deploy_timeout")


@dataclass(frozen=True, slots=True)
class Place:
    """Services to be found by their names, or to be made as `specs` say; two where gRPC has its own."""

    platform: Platform
    names: tuple[str, ...]
    specs: tuple[DeploymentSpec, ...]
    protocols: tuple[Protocol, ...]
    most_replicas: int
    namespace: str | None
    context: str | None
    keep: bool
    timeout_s: float
    vias: tuple[Via | None, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def place_of(given: Mapping[str, Any], spec: SweepSpec, flags: Mistakes) -> Target | Place | None:
    """From --url, --mlservice or --deploy; None: a server is started here. Mistakes are left in `flags`."""
    if not (given.get("mlservice") or given.get("deploy")):
        free = ("namespace", "context") if given.get("in_cluster") else ()
        for name in (*_NEEDS_CLUSTER, *_NEEDS_DEPLOY):
            if given.get(name) and name not in free:
                need = "--deploy" if name in _NEEDS_DEPLOY else "--mlservice NAME or --deploy"
                flags.wrong(_flag(name), _text(given[name]), f"goes with {need}")
        return remote_target(given, flags)
    _refuse(given, spec, flags)
    timeout = given.get("deploy_timeout") or "10m"
    platform = flags.read(
        "--platform", given.get("platform") or "mlservice", _platform, PLATFORMS["mlservice"]
    )
    return Place(
        platform=platform,
        names=flags.read("--mlservice", given.get("mlservice") or "", _names, ()),
        specs=_specs(_deployment(given, platform, spec, flags), spec) if given.get("deploy") else (),
        protocols=spec.protocols,
        most_replicas=max(count or 1 for count in spec.replicas),
        namespace=given.get("namespace"),
        context=given.get("context"),
        keep=bool(given.get("keep")),
        timeout_s=flags.read("--deploy-timeout", timeout, parse_duration_s, 600.0),
        vias=spec.vias,
        headers=tuple(_header(text, flags) for text in given.get("header") or ()),
    )


@contextmanager
def opened_at(
    given: Mapping[str, Any], place: Target | Place | None, progress: Callable[[str], None], log: Path
) -> Iterator[Opened]:
    """As `opened`, and on a cluster too.

    Raises ClusterError or DeployFailed; what --deploy made is gone when the block ends, however it ends.
    """
    if not isinstance(place, Place):
        with opened(given, place, progress, log) as target:
            yield target
        return
    cluster = Cluster.connect(place.namespace, place.context)
    if not place.specs:
        services = _found(place, cluster)
        what = f"{place.platform.kind} {' and '.join(place.names)} in namespace {cluster.namespace}"
        with (
            _serving(place, cluster, services, given["model"], progress) as (site, serving),
            Teardown(serving.restore, f"Taking {' and '.join(place.names)} back to what it was first."),
        ):
            yield _opened(site, serving, what)
        return
    with deployed_for(place, cluster, progress) as services:
        what = f"{place.platform.name} made for the run from {place.specs[0].image}"
        with _serving(place, cluster, services, given["model"], progress) as (site, serving):
            yield _opened(site, serving, what)
            if place.keep:
                serving.restore()


@contextmanager
def deployed_for(place: Place, cluster: Cluster, say: Say) -> Iterator[tuple[Deployed, ...]]:
    """What `place` wants made, served in the block and gone after it, unless it is to be kept."""
    say(cost(place))
    specs = [replace(spec, namespace=cluster.namespace) for spec in place.specs]
    with deployed(cluster, specs, say, place.timeout_s, keep_serving=place.keep) as services:
        yield services


def cost(place: Place) -> str:
    """What --deploy will hold, said before anything is applied."""
    pods = place.most_replicas * len(place.specs)
    gpus = sum(place.most_replicas * spec.gpu for spec in place.specs)
    holds = f"needs up to {pods} pod{'s' * (pods != 1)} with {gpus} GPU{'s' * (gpus != 1)} in all"
    if len(place.specs) == 1:
        return holds
    return (
        f"{holds}: a platform's port is HTTP or gRPC, so each has a service with pods of its own. Half of it "
        "will do with one --protocol, or with --via pod"
    )


def _found(place: Place, cluster: Cluster) -> tuple[Deployed, ...]:
    """Raises DeployFailed where one is not there, or two take the same protocol."""
    services = tuple(find_service(cluster, place.platform, name) for name in place.names)
    if len({service.traffic for service in services}) < len(services):
        raise DeployFailed(
            f"--mlservice {','.join(place.names)}: the addresses of both take {services[0].traffic}; give "
            "one of them, or one for HTTP and one for gRPC (its runtime's port named h2c)."
        )
    return services


@contextmanager
def _serving(
    place: Place, cluster: Cluster, services: tuple[Deployed, ...], model: str, say: Say
) -> Iterator[tuple[ReachableService, ClusterServing]]:
    with ReachableService(cluster, services, place.vias, place.protocols, place.headers) as site:
        yield site, ClusterServing(site, model, say, place.timeout_s)


def _opened(site: ReachableService, serving: ClusterServing, what: str) -> Opened:
    triton = serving.triton
    description = f"{what}, {site.describe()}"
    return Opened(triton, serving, description, "")


def _specs(wanted: DeploymentSpec, spec: SweepSpec) -> tuple[DeploymentSpec, ...]:
    """A second service for gRPC, where both protocols are to go through addresses of one port each."""
    if not wanted.platform.one_port or Protocol.GRPC not in spec.protocols:
        return (wanted,)
    if set(spec.vias) == {Via.POD}:
        return (wanted,)
    if Protocol.HTTP not in spec.protocols:
        return (replace(wanted, traffic=Protocol.GRPC),)
    return (wanted, platforms.beside(wanted))


def _deployment(
    given: Mapping[str, Any], platform: Platform, spec: SweepSpec, flags: Mistakes
) -> DeploymentSpec:
    sets = [flags.read("--set", text, _setting, ("", "")) for text in given.get("set") or ()]
    if any(name == "model" for name, _ in sets):
        flags.wrong("--set", "model", "is what --model says")
    stem = re.sub("[^a-z0-9]+", "-", spec.model.lower()).strip("-")[:18].rstrip("-")
    name = f"bench-{stem}-{secrets.token_hex(3)}"
    replicas = spec.replicas[0] if spec.replicas else None
    wanted = DeploymentSpec(
        platform=platform,
        name=name,
        namespace=given.get("namespace") or "default",
        image=given.get("triton_image") or os.environ.get(IMAGE_VARIABLE, ""),
        replicas=replicas or 1,
        gpu=flags.read("--gpu", given.get("gpu") or "0", _count, 0),
        queue=given.get("queue") or "",
        run_label=name,
        sets=(("model", spec.model), *(pair for pair in sets if pair[0])),
    )
    # `bench deploy` calls it --image, which is the picture here.
    flags.mistakes.extend(m.replace("--image", "--triton-image") for m in platforms.mistakes(wanted))
    return wanted


def refuse_cluster(given: Mapping[str, Any], verb: str, flags: Mistakes) -> None:
    """Of a verb that does not know clusters."""
    for name in ("mlservice", "deploy", *_NEEDS_CLUSTER, *_NEEDS_DEPLOY):
        if given.get(name):
            flags.wrong(_flag(name), _text(given[name]), f"goes without {verb}")


def _refuse(given: Mapping[str, Any], spec: SweepSpec, flags: Mistakes) -> None:
    if given.get("mlservice") and given.get("deploy"):
        flags.wrong("--deploy", "", "makes a service, --mlservice names one that is there; give one of them")
    if not given.get("deploy"):
        for name in _NEEDS_DEPLOY:
            if given.get(name) and name != "deploy_timeout":
                flags.wrong(_flag(name), _text(given[name]), "goes with --deploy")
    for name in ("url", "grpc_url", "metrics_url"):
        if given.get(name):
            flags.wrong(_flag(name), _text(given[name]), "goes without --mlservice and --deploy")
    refuse_embedded(given, "--mlservice and --deploy", flags)
    if any(memory is not SharedMemory.NONE for memory in spec.shared_memory):
        flags.wrong("--shared-memory", str(given["shared_memory"]), "needs the server on this host")
    several = any((count or 1) > 1 for count in spec.replicas)
    if several and Via.POD in spec.vias and Engine.PERF_ANALYZER in spec.engines:
        flags.wrong("--via", "pod", "with several --replicas only --engine locust spreads over the pods")


def _header(text: str, flags: Mistakes) -> tuple[str, str]:
    return flags.read("--header", "NAME:VALUE", lambda _: header(text), ("", ""))  # may be secret


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(value: Any) -> str:
    return "" if value is True else ",".join(value) if isinstance(value, tuple) else str(value)


def _platform(text: str) -> Platform:
    if text not in PLATFORMS:
        raise ValueError(f"allowed: {', '.join(PLATFORMS)}")
    return PLATFORMS[text]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    if len(names) > 2 or len(set(names)) < len(names) or (text and not names):
        raise ValueError("give NAME, or two: one whose address takes HTTP and one for gRPC")
    return names


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ValueError("give a whole number, of each pod")
    return int(text)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("give NAME=VALUE")
    return name, value
