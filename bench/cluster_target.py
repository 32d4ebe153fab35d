"""A service on a cluster as a target: one that is there (--mlservice), or made for the run (--deploy)."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import platforms
from bench.address import header
from bench.cell import Engine, SharedMemory, Via
from bench.cluster import Cluster
from bench.cluster_serving import ClusterServing, Say, Site
from bench.errors import BenchError
from bench.flags import Flags
from bench.opened import Opened, opened, remote_target
from bench.platforms import DeploymentSpec, Platform
from bench.rollout import Deployed, deploy, found, undeploy
from bench.spec import SweepSpec
from bench.teardown import Teardown
from bench.trial import Target
from bench.units import parse_duration_s

__all__ = ["Place", "opened_at", "place_of", "refuse_cluster"]

# An API call that an interrupt cut off may still be carried out after it.
_IN_FLIGHT_S = 0.5
_NEEDS_CLUSTER = ("replicas", "via", "namespace", "context")
_NEEDS_DEPLOY = ("platform", "triton_image", "gpu", "queue", "set", "keep", "deploy_timeout")


@dataclass(frozen=True, slots=True)
class Place:
    """A service to be found by its name, or to be made as `spec` says."""

    name: str
    spec: DeploymentSpec | None
    namespace: str | None
    context: str | None
    keep: bool
    timeout_s: float
    vias: tuple[Via | None, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def place_of(given: Mapping[str, Any], spec: SweepSpec, flags: Flags) -> Target | Place | None:
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
    return Place(
        name=given.get("mlservice") or "",
        spec=_deployment(given, spec, flags) if given.get("deploy") else None,
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
    if place.spec is None:
        service = found(cluster, Platform.MLSERVICE, place.name)
        what = f"MLService {place.name} in namespace {cluster.namespace}"
        with (
            _serving(place, cluster, service, given["model"], progress) as (site, serving),
            Teardown(serving.restore, f"Taking {place.name} back to what it was first."),
        ):
            yield _opened(site, serving, what)
        return
    spec = replace(place.spec, namespace=cluster.namespace)
    with _deployed(place, cluster, spec, progress) as service:
        what = f"{spec.platform} made for the run from {spec.image}"
        with _serving(place, cluster, service, given["model"], progress) as (site, serving):
            yield _opened(site, serving, what)
            if place.keep:
                serving.restore()


@contextmanager
def _deployed(place: Place, cluster: Cluster, spec: DeploymentSpec, say: Say) -> Iterator[Deployed]:
    state = {"ready": False}

    def undo() -> None:
        if place.keep and state["ready"]:
            say(f"kept {spec.name}; `bench undeploy {spec.name}` removes it")
            return
        if not state["ready"]:
            time.sleep(_IN_FLIGHT_S)
        try:
            undeploy(cluster, say, name=spec.name, run_label=spec.run_label)
        except BenchError as error:
            say(f"{error} `bench undeploy {spec.name}` removes what is left.")
            raise

    with Teardown(undo, f"Removing {spec.name} first; that takes a moment."):
        say(f"deploying {spec.name} as {spec.platform} in namespace {cluster.namespace}")
        service = deploy(cluster, spec, say, place.timeout_s)
        state["ready"] = True
        yield service


@contextmanager
def _serving(
    place: Place, cluster: Cluster, service: Deployed, model: str, say: Say
) -> Iterator[tuple[Site, ClusterServing]]:
    with Site(cluster, service, place.vias, place.headers) as site:
        yield site, ClusterServing(site, model, say, place.timeout_s)


def _opened(site: Site, serving: ClusterServing, what: str) -> Opened:
    triton = serving.triton
    description = f"{what}, {site.describe()}"
    return Opened(triton.target, triton, serving, description, "")


def _deployment(given: Mapping[str, Any], spec: SweepSpec, flags: Flags) -> DeploymentSpec:
    sets = [flags.read("--set", text, _setting, ("", "")) for text in given.get("set") or ()]
    if any(name == "model" for name, _ in sets):
        flags.wrong("--set", "model", "is what --model says")
    stem = re.sub("[^a-z0-9]+", "-", spec.model.lower()).strip("-")[:24]
    name = f"bench-{stem}-{secrets.token_hex(3)}"
    replicas = spec.replicas[0] if spec.replicas else None
    wanted = DeploymentSpec(
        platform=flags.read(
            "--platform", given.get("platform") or "mlservice", _platform, Platform.MLSERVICE
        ),
        name=name,
        namespace=given.get("namespace") or "default",
        image=given.get("triton_image") or "",
        replicas=replicas or 1,
        gpu=flags.read("--gpu", given.get("gpu") or "0", _count, 0),
        queue=given.get("queue") or "",
        run_label=name,
        sets=(("model", spec.model), *(pair for pair in sets if pair[0])),
    )
    # `bench deploy` calls it --image, which is the picture here.
    flags.mistakes.extend(m.replace("--image", "--triton-image") for m in platforms.mistakes(wanted))
    return wanted


def refuse_cluster(given: Mapping[str, Any], verb: str, flags: Flags) -> None:
    """Of a verb that does not know clusters."""
    for name in ("mlservice", "deploy", *_NEEDS_CLUSTER, *_NEEDS_DEPLOY):
        if given.get(name):
            flags.wrong(_flag(name), _text(given[name]), f"goes without {verb}")


def _refuse(given: Mapping[str, Any], spec: SweepSpec, flags: Flags) -> None:
    if given.get("mlservice") and given.get("deploy"):
        flags.wrong("--deploy", "", "makes a service, --mlservice names one that is there; give one of them")
    if not given.get("deploy"):
        for name in _NEEDS_DEPLOY:
            if given.get(name) and name != "deploy_timeout":
                flags.wrong(_flag(name), _text(given[name]), "goes with --deploy")
    here = ("url", "grpc_url", "metrics_url", "tritonserver", "repository", "in_cluster")
    for name in here:
        if given.get(name):
            flags.wrong(_flag(name), _text(given[name]), "goes without --mlservice and --deploy")
    if any(memory is not SharedMemory.NONE for memory in spec.shared_memory):
        flags.wrong("--shared-memory", str(given["shared_memory"]), "needs the server on this host")
    several = any((count or 1) > 1 for count in spec.replicas)
    if several and Via.POD in spec.vias and Engine.PERF_ANALYZER in spec.engines:
        flags.wrong("--via", "pod", "with several --replicas only --engine locust spreads over the pods")


def _header(text: str, flags: Flags) -> tuple[str, str]:
    return flags.read("--header", "NAME:VALUE", lambda _: header(text), ("", ""))  # may be secret


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(value: Any) -> str:
    return "" if value is True else ",".join(value) if isinstance(value, tuple) else str(value)


def _platform(text: str) -> Platform:
    if text not in list(Platform):
        raise ValueError(f"allowed: {', '.join(Platform)}")
    return Platform(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ValueError("give a whole number, of each pod")
    return int(text)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("give NAME=VALUE")
    return name, value
