"""What runs a Triton on a cluster: the interface of a platform, and what all of them share. Pure.

A platform is one file with one class: it renders the objects to apply, and reads a service of its kind,
whoever made it. The defaults read an apps/v1 workload behind a Service of the same name.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

from bench.cluster.platforms.pod_template import PORTS
from bench.cluster.platforms.settings import Settings, is_name, settings_of, wrong_settings
from bench.cluster.pods import REVISION, condition
from bench.core.cell import Protocol
from bench.core.paths import MANIFESTS

Item = Mapping[str, Any]  # an object as the API server has it
Read = Callable[[str, str], Item | None]  # (kind, name); None: there is none, or it may not be read

MANAGED = "app.kubernetes.io/managed-by"
MANAGER = "triton-bench"
DEPLOYMENT = "triton-bench/deployment"
RUN = "triton-bench/run"
# Knative adds -predict-v1-00001-deployment-... to a name, and a host name's part ends at 63 characters.
LONGEST_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """What is to run. `sets` is the rest, under the names of `settings.Settings`."""

    platform: Platform
    name: str
    namespace: str
    image: str
    replicas: int = 1
    gpu: int = 0
    queue: str = ""
    run_label: str
    sets: tuple[tuple[str, str], ...] = ()
    traffic: Protocol = Protocol.HTTP  # what the platform's one port takes

    @property
    def settings(self) -> Settings:
        return settings_of(self.sets)

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every object that is made, and of its pods."""
        return {MANAGED: MANAGER, DEPLOYMENT: self.name, RUN: self.run_label}


class Platform(Interface):
    """One way to run a service on a cluster. Subclass it, give `name`, `kinds` and `objects`, register it."""

    name: str  # as --platform has it
    # Kind -> (API, plural) of what `objects` makes beside Services. The service's own kind comes first, since
    # it is removed before what it refers to.
    kinds: Mapping[str, tuple[str, str]]
    one_port: bool = False  # its address takes HTTP or gRPC, so both need two services
    has_queues: bool = False
    replicas_are_a_revision: bool = False  # another number of replicas makes all pods anew

    @property
    def kind(self) -> str:
        """The kind of the service itself."""
        return next(iter(self.kinds))

    @abstractmethod
    def objects(self, spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
        """The manifests to apply, in order. Pods carry `spec.labels` and the label `revision`."""

    def pod_labels(self, item: Item) -> dict[str, str]:
        """Labels that all pods of a service have, of any revision."""
        return dict(item["spec"]["selector"]["matchLabels"])

    def stem(self, name: str) -> str:
        """How the names of what the platform makes for a service begin."""
        return f"{name}-"

    def address(self, item: Item) -> str:
        """A URL to all pods, as `traffic` says; "" as long as there is none."""
        return _service_url(item, "http")

    def grpc_address(self, item: Item) -> str:
        """A URL beside `address` that takes gRPC; "" where there is none."""
        return _service_url(item, "grpc")

    def traffic(self, item: Item, read: Read) -> Protocol:
        """What `address` takes. `read` gets another object that says so."""
        return Protocol.HTTP

    def unsettled(self, item: Item, replicas: int) -> str:
        """What the service's status still waits for, as a phrase; "" when it says that it serves."""
        status = item.get("status", {})
        if int(status.get("observedGeneration") or 0) < item["metadata"].get("generation", 0):
            return "the change to be taken up"
        available = int(status.get("availableReplicas") or 0)
        return "" if available >= replicas else f"available: {available} of {replicas}"

    def scaling(self, item: Item, replicas: int, revision: str) -> list[dict[str, Any]]:
        """A JSON patch to exactly `replicas`. `revision`: label of new pods where replicas make them anew."""
        return [{"op": "add", "path": "/spec/replicas", "value": replicas}]


class Reporting(Platform):
    """A platform whose services report an address and a Ready condition in their status."""

    def address(self, item: Item) -> str:
        """With a scheme, whether the platform gives one or not."""
        status = item.get("status", {})
        url = str(status.get("address", {}).get("url") or status.get("url") or "").rstrip("/")
        return url if not url or "://" in url else f"http://{url}"

    def unsettled(self, item: Item, replicas: int) -> str:
        status = item.get("status", {})
        seen = status.get("observedGeneration")
        if seen is not None and seen < item["metadata"].get("generation", 0):
            return "the change to be taken up"
        if condition(item, "Ready") != "True":
            ready = [one for one in status.get("conditions", ()) if one.get("type") == "Ready"]
            words = (str(one[key]) for one in ready for key in ("status", "reason") if one.get(key))
            return f"Ready, which is {' '.join(words) or 'not reported'}"
        return "" if self.address(item) else "the service's address"


def beside(spec: DeploymentSpec) -> DeploymentSpec:
    """The same service once more, with pods of its own, whose platform port takes gRPC."""
    sets = dict(spec.sets)
    if "runtime" in sets:
        sets["runtime"] += "-grpc"
    return replace(spec, name=f"{spec.name}-grpc", traffic=Protocol.GRPC, sets=tuple(sets.items()))


def mistakes(spec: DeploymentSpec) -> Iterator[str]:
    """Every mistake, with the flag it comes from and what is allowed."""
    if not is_name(spec.name) or "." in spec.name or len(spec.name) > LONGEST_NAME:
        yield f"--name {spec.name}: a-z, 0-9 and -, at most {LONGEST_NAME} characters"
    if not spec.image or any(c.isspace() for c in spec.image):
        yield (
            f"--image {spec.image!r}: name a container image with a tritonserver, here or in "
            f"$BENCH_TRITON_IMAGE; {MANIFESTS}/image has a Dockerfile"
        )
    if spec.replicas < 1:
        yield f"--replicas {spec.replicas}: at least 1"
    if spec.gpu < 0:
        yield f"--gpu {spec.gpu}: 0 (CPU only) or more, for each pod"
    if spec.queue and not spec.platform.has_queues:
        yield f"--queue {spec.queue}: only --platform mlservice has T9k's queues"
    if spec.traffic is Protocol.GRPC and not spec.platform.one_port:
        yield f"--protocol grpc: --platform {spec.platform.name} shows gRPC beside HTTP already; leave it out"
    yield from wrong_settings(spec.sets)


def manifests(spec: DeploymentSpec) -> tuple[dict[str, Any], ...]:
    """In the order to apply. All carry the deployment's and the run's label, pods their revision's too."""
    return tuple(spec.platform.objects(spec, {REVISION: revision_of(spec)}))


def revision_of(spec: DeploymentSpec) -> str:
    """A digest of what the pods are made from."""
    same = spec if spec.platform.replicas_are_a_revision else replace(spec, replicas=1)
    text = json.dumps(spec.platform.objects(same, {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def is_about(platform: Platform, name: str, involved: str) -> bool:
    """Whether an event's object is the service, or something its platform made for it."""
    return involved == name or involved.startswith(platform.stem(name))


def manifest(
    spec: DeploymentSpec, api: str, kind: str, body: Mapping[str, Any], name: str = ""
) -> dict[str, Any]:
    """An object of the deployment; its name is the deployment's unless another is given."""
    meta = {"name": name or spec.name, "namespace": spec.namespace, "labels": spec.labels}
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": dict(body)}


def service(spec: DeploymentSpec) -> dict[str, Any]:
    """One address for all pods, with all three ports."""
    return manifest(spec, "v1", "Service", {"selector": {DEPLOYMENT: spec.name}, "ports": _ports()})


def direct_service(spec: DeploymentSpec) -> dict[str, Any]:
    """Straight to the pods, past proxies and gateways: all three ports, and each pod's address in DNS."""
    body = {"clusterIP": "None", "selector": {DEPLOYMENT: spec.name}, "ports": _ports()}
    return manifest(spec, "v1", "Service", body, f"{spec.name}-direct")


def in_place() -> dict[str, Any]:
    """A change must not need one more GPU than there was."""
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def bounds(at: str, replicas: int) -> list[dict[str, Any]]:
    """A JSON patch that leaves an autoscaler no choice."""
    return [
        {"op": "add", "path": f"{at}/{bound}", "value": replicas} for bound in ("minReplicas", "maxReplicas")
    ]


def is_grpc(port: Item) -> bool:
    """Knative's name for HTTP/2 without TLS is h2c, which gRPC needs."""
    name = str(port.get("name", ""))
    return "h2c" in name or "grpc" in name


def first_port(ports: Any) -> Protocol:
    """What the only port of a platform takes; without one, HTTP."""
    return Protocol.GRPC if ports and is_grpc(ports[0]) else Protocol.HTTP


def _ports() -> list[dict[str, Any]]:
    return [{"name": kind, "port": port, "targetPort": port, "protocol": "TCP"} for kind, port in PORTS]


def _service_url(item: Item, port: str) -> str:
    return f"http://{item['metadata']['name']}.{item['metadata']['namespace']}.svc:{dict(PORTS)[port]}"
