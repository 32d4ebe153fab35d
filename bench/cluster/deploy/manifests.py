"""One Triton on three platforms: what to apply, and where each says how it goes. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from bench.cluster.deploy import pod_template as pod
from bench.cluster.deploy.settings import is_name, settings_of, wrong_settings
from bench.cluster.pods import REVISION
from bench.core.cell import Protocol
from bench.core.paths import MANIFESTS

MANAGED = "app.kubernetes.io/managed-by"
MANAGER = "triton-bench"
DEPLOYMENT = "triton-bench/deployment"
RUN = "triton-bench/run"
RELEASE = "v1"
# Knative adds -predict-v1-00001-deployment-... to it, and a host name's part ends at 63 characters.
LONGEST_NAME = 40


class Platform(StrEnum):
    MLSERVICE = "mlservice"
    KSERVE = "kserve"
    DEPLOYMENT = "deployment"


KIND: Mapping[Platform, str] = {
    Platform.MLSERVICE: "MLService",
    Platform.KSERVE: "InferenceService",
    Platform.DEPLOYMENT: "Deployment",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """What is to run. `sets` is the rest, under the names of `deploy_settings`."""

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
    if spec.queue and spec.platform is not Platform.MLSERVICE:
        yield f"--queue {spec.queue}: only --platform mlservice has T9k's queues"
    if spec.traffic is Protocol.GRPC and spec.platform is not Platform.MLSERVICE:
        yield f"--protocol grpc: --platform {spec.platform} shows gRPC beside HTTP already; leave it out"
    yield from wrong_settings(spec.sets)


def manifests(spec: DeploymentSpec) -> tuple[dict[str, Any], ...]:
    """In the order to apply. All carry the deployment's and the run's label, pods their revision's too."""
    render = {
        Platform.MLSERVICE: _mlservice,
        Platform.KSERVE: _kserve,
        Platform.DEPLOYMENT: _deployment,
    }[spec.platform]
    # Other replicas are other pods to Knative alone.
    same = spec if spec.platform is Platform.MLSERVICE else replace(spec, replicas=1)
    return tuple(render(spec, {REVISION: _digest(render(same, {}))}))


def revision_of(objects: tuple[Mapping[str, Any], ...]) -> str:
    """The revision their pods will carry."""
    return str(next(label for item in objects if (label := template_of(item)["labels"].get(REVISION))))


def template_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of the pods an object makes; its labels are {} where it makes none."""
    spec = item["spec"]
    if item["kind"] == "MLService":
        name = spec["default"]
        release = next(one for one in spec["releases"] if one["name"] == name)
        found = release["predictor"].get("template", {}).get("metadata", {})
    elif item["kind"] == "InferenceService":
        found = spec["predictor"]
    elif item["kind"] == "Deployment":
        found = spec["template"].get("metadata", {})
    else:
        found = {}
    return {"labels": found.get("labels", {}), "annotations": found.get("annotations", {})}


def labels(spec: DeploymentSpec) -> dict[str, str]:
    return {MANAGED: MANAGER, DEPLOYMENT: spec.name, RUN: spec.run_label}


def selector(wanted: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def pods_of(platform: Platform, item: Mapping[str, Any]) -> dict[str, str]:
    """Labels of the pods of a service, whoever made it: those its platform puts on them."""
    name = item["metadata"]["name"]
    if platform is Platform.MLSERVICE:
        return {"serving.knative.dev/service": f"{name}-predict-{item['spec']['default']}"}
    if platform is Platform.KSERVE:
        return {"serving.kserve.io/inferenceservice": name}
    return dict(item["spec"]["selector"]["matchLabels"])


def is_about(name: str, platform: Platform, involved: str) -> bool:
    """Whether an event's object is the service, or something its platform made for it."""
    stem = {
        Platform.MLSERVICE: f"{name}-predict-",
        Platform.KSERVE: f"{name}-predictor",
        Platform.DEPLOYMENT: f"{name}-",
    }[platform]
    return involved == name or involved.startswith(stem)


def _digest(objects: list[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(objects, sort_keys=True).encode()).hexdigest()[:12]


def _object(api: str, kind: str, name: str, spec: DeploymentSpec, body: Mapping[str, Any]) -> dict[str, Any]:
    meta = {"name": name, "namespace": spec.namespace, "labels": labels(spec)}
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": dict(body)}


def _direct(spec: DeploymentSpec) -> dict[str, Any]:
    """Straight to the pods, past proxies and gateways: all three ports, and each pod's address in DNS."""
    ports: list[dict[str, Any]] = [
        {"name": kind, "port": port, "targetPort": port, "protocol": "TCP"} for kind, port in pod.PORTS
    ]
    body = {"clusterIP": "None", "selector": {DEPLOYMENT: spec.name}, "ports": ports}
    return _object("v1", "Service", f"{spec.name}-direct", spec, body)


def _mlservice(spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
    """A runtime is the container, a service patches it: image there, replicas, data and labels here."""
    settings = settings_of(spec.sets)
    runtime = settings.runtime or spec.name
    release = {
        "name": RELEASE,
        "predictor": {
            # Equal: unset means unbounded autoscaling, which would change what is measured.
            "minReplicas": spec.replicas,
            "maxReplicas": spec.replicas,
            "model": {"runtime": runtime, "parameters": {"MODEL": settings.model}},
            "containersResources": [
                {"name": "user-container", "resources": pod.resources(settings, spec.gpu)}
            ],
            "template": {
                "metadata": {
                    "labels": {**labels(spec), **revision},
                    # 0 takes Knative's activator out of the requests' way.
                    "annotations": {"autoscaling.knative.dev/target-burst-capacity": "0"},
                },
                "spec": {
                    "containers": [{"name": "user-container", "volumeMounts": pod.data_mounts(settings)}],
                    "volumes": [pod.data_volume(settings)],
                    **pod.placement(settings),
                },
            },
        },
    }
    body: dict[str, Any] = {"default": RELEASE, "releases": [release]}
    if spec.queue:
        body["scheduler"] = {"t9kScheduler": {"queue": spec.queue}}
    api = "tensorstack.dev/v1beta1"
    return [
        _runtime(spec, api, runtime),
        _object(api, "MLService", spec.name, spec, body),
        _direct(spec),
    ]


def _runtime(spec: DeploymentSpec, api: str, name: str) -> dict[str, Any]:
    settings = settings_of(spec.sets)
    container = {
        "name": "user-container",
        "image": spec.image,
        **pod.command("{{if .MODEL}}{{.MODEL}}{{else}}python_vit{{end}}"),
        # One port is all that T9k and Knative take; the pods' others are reached through -direct.
        "ports": [_port(spec.traffic)],
        "readinessProbe": pod.readiness(None if spec.traffic is Protocol.HTTP else 8000),
        "volumeMounts": [pod.shared_memory_mount()],
    }
    template = {
        "metadata": {"annotations": {"serving.knative.dev/progress-deadline": settings.progress_deadline}},
        "spec": {"containers": [container], "volumes": [pod.shared_memory(settings)]},
    }
    return _object(api, "MLServiceRuntime", name, spec, {"enabled": True, "template": template})


def _port(traffic: Protocol) -> dict[str, Any]:
    """h2c is Knative's name for HTTP/2 without TLS, which gRPC needs."""
    if traffic is Protocol.HTTP:
        return {"containerPort": 8000, "protocol": "TCP"}
    return {"containerPort": 8001, "name": "h2c", "protocol": "TCP"}


def _kserve(spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
    """A predictor with a container of our own: no ServingRuntime to find, and /dev/shm as it has to be."""
    settings = settings_of(spec.sets)
    predictor = {
        "labels": {**labels(spec), **revision},
        "minReplicas": spec.replicas,
        "maxReplicas": spec.replicas,
        "deploymentStrategy": _in_place(),
        "containers": [pod.container("kserve-container", spec.image, settings, spec.gpu)],
        "volumes": pod.volumes(settings),
        **pod.placement(settings),
    }
    service = _object(
        "serving.kserve.io/v1beta1", "InferenceService", spec.name, spec, {"predictor": predictor}
    )
    service["metadata"]["annotations"] = {
        "serving.kserve.io/deploymentMode": "RawDeployment",  # several ports, no proxy in between
        "serving.kserve.io/autoscalerClass": "none",
    }
    return [service, _direct(spec)]


def _deployment(spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
    settings = settings_of(spec.sets)
    mine = {DEPLOYMENT: spec.name}
    body = {
        "replicas": spec.replicas,
        "progressDeadlineSeconds": int(settings.progress_deadline.rstrip("s")),
        "selector": {"matchLabels": mine},
        "strategy": _in_place(),
        "template": {
            "metadata": {"labels": {**labels(spec), **revision}},
            "spec": {
                "containers": [pod.container("tritonserver", spec.image, settings, spec.gpu)],
                "volumes": pod.volumes(settings),
                "terminationGracePeriodSeconds": 40,  # Triton waits 30 s for requests under way
                **pod.placement(settings),
            },
        },
    }
    ports = [{"name": kind, "port": port, "targetPort": port, "protocol": "TCP"} for kind, port in pod.PORTS]
    service = {"selector": mine, "ports": ports}
    return [
        _object("apps/v1", "Deployment", spec.name, spec, body),
        _object("v1", "Service", spec.name, spec, service),
        _direct(spec),
    ]


def _in_place() -> dict[str, Any]:
    """A change must not need one more GPU than there was."""
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
