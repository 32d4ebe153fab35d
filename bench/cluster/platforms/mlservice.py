"""T9k's MLService, on Knative: one port, which takes HTTP, or gRPC where it is named h2c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.cluster.platforms import base
from bench.cluster.platforms import pod_template as pod
from bench.cluster.platforms.base import DeploymentSpec, Item, Read
from bench.cluster.pods import REVISION
from bench.core.cell import Protocol

_API = "tensorstack.dev/v1beta1"
_RELEASE = "v1"


class MLService(base.Reporting):
    """A runtime is the container, a service patches it: image there, replicas, data and labels here."""

    name = "mlservice"
    kinds: Mapping[str, tuple[str, str]] = {
        "MLService": (_API, "mlservices"),
        "MLServiceRuntime": (_API, "mlserviceruntimes"),
    }
    one_port = True
    has_queues = True
    replicas_are_a_revision = True

    def objects(self, spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
        settings = spec.settings
        runtime = settings.runtime or spec.name
        template = {
            "metadata": {
                "labels": {**spec.labels, **revision},
                # 0 takes Knative's activator out of the requests' way.
                "annotations": {"autoscaling.knative.dev/target-burst-capacity": "0"},
            },
            "spec": {
                "containers": [{"name": "user-container", "volumeMounts": pod.data_mounts(settings)}],
                "volumes": [pod.data_volume(settings)],
                **pod.placement(settings),
            },
        }
        predictor = {
            # Equal: unset means unbounded autoscaling, which would change what is measured.
            "minReplicas": spec.replicas,
            "maxReplicas": spec.replicas,
            "model": {"runtime": runtime, "parameters": {"MODEL": settings.model}},
            "containersResources": [
                {"name": "user-container", "resources": pod.resources(settings, spec.gpu)}
            ],
            "template": template,
        }
        body: dict[str, Any] = {
            "default": _RELEASE,
            "releases": [{"name": _RELEASE, "predictor": predictor}],
            **({"scheduler": {"t9kScheduler": {"queue": spec.queue}}} if spec.queue else {}),
        }
        return [
            _runtime(spec, runtime),
            base.manifest(spec, _API, "MLService", body),
            base.direct_service(spec),
        ]

    def pod_labels(self, item: Item) -> dict[str, str]:
        name = item["metadata"]["name"]
        return {"serving.knative.dev/service": f"{name}-predict-{item['spec']['default']}"}

    def stem(self, name: str) -> str:
        return f"{name}-predict-"

    def grpc_address(self, item: Item) -> str:
        return ""

    def traffic(self, item: Item, read: Read) -> Protocol:
        """The runtime of the default release declares the port."""
        runtime = read("MLServiceRuntime", runtime_of(item))
        containers = runtime["spec"]["template"]["spec"]["containers"] if runtime else ()
        return base.first_port(
            next((one.get("ports", ()) for one in containers if one["name"] == "user-container"), ())
        )

    def unsettled(self, item: Item, replicas: int) -> str:
        counted = {
            one.get("name"): one.get("readyReplicas") for one in item.get("status", {}).get("releases", ())
        }.get(item["spec"]["default"])
        lacking = super().unsettled(item, replicas)
        if not lacking and counted not in (None, replicas):
            return f"the service to count its replicas: {counted} of {replicas}"
        return lacking

    def scaling(self, item: Item, replicas: int, revision: str) -> list[dict[str, Any]]:
        """A patch adds to what is there, so what holds the label is made first where it is missing."""
        index, here = _default(item)
        path = f"/spec/releases/{index}/predictor"
        operations = base.bounds(path, replicas)
        for part in ("template", "metadata", "labels"):
            path = f"{path}/{part}"
            if part not in here:
                operations.append({"op": "add", "path": path, "value": {}})
            here = here.get(part, {})
        key = REVISION.replace("~", "~0").replace("/", "~1")
        return [*operations, {"op": "add", "path": f"{path}/{key}", "value": revision}]


def runtime_of(item: Item) -> str:
    """The MLServiceRuntime of an MLService's default release."""
    return str(_default(item)[1]["model"]["runtime"])


def _default(item: Item) -> tuple[int, Item]:
    """The default release: its place among the releases, and its predictor."""
    spec = item["spec"]
    index = [one["name"] for one in spec["releases"]].index(spec["default"])
    predictor: Item = spec["releases"][index]["predictor"]
    return index, predictor


def _runtime(spec: DeploymentSpec, name: str) -> dict[str, Any]:
    settings = spec.settings
    over_http = spec.traffic is Protocol.HTTP
    port = {"containerPort": 8000} if over_http else {"containerPort": 8001, "name": "h2c"}
    container = {
        "name": "user-container",
        "image": spec.image,
        **pod.command("{{if .MODEL}}{{.MODEL}}{{else}}python_vit{{end}}"),
        # One port is all that T9k and Knative take; the pods' others are reached through -direct.
        "ports": [{**port, "protocol": "TCP"}],
        "readinessProbe": pod.readiness(None if over_http else 8000),
        "volumeMounts": [pod.SHARED_MEMORY],
    }
    template = {
        "metadata": {"annotations": {"serving.knative.dev/progress-deadline": settings.progress_deadline}},
        "spec": {"containers": [container], "volumes": [pod.shared_memory(settings)]},
    }
    return base.manifest(spec, _API, "MLServiceRuntime", {"enabled": True, "template": template}, name)
