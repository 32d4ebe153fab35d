"""The pod that serves: the same container on every platform, in the pieces each of them wants."""

from __future__ import annotations

from typing import Any

from bench.cluster.platforms.settings import Settings

MODELS = "/models"
PORTS = (("http", 8000), ("grpc", 8001), ("metrics", 8002))
SHARED_MEMORY = {"name": "dshm", "mountPath": "/dev/shm"}


def command(model: str) -> dict[str, Any]:
    """Explicit control, so that instance counts can be changed live; ready means that `model` is loaded."""
    return {
        "command": ["tritonserver"],
        "args": [
            f"--model-repository={MODELS}",
            "--model-control-mode=explicit",
            f"--load-model={model}",
            "--metrics-interval-ms=100",
        ],
    }


def readiness(port: int | None = None) -> dict[str, Any]:
    """Without a port it is the traffic port; where that is not HTTP, a number is what Knative takes."""
    get = {"path": "/v2/health/ready", **({"port": port} if port else {})}
    return {"httpGet": get, "periodSeconds": 5, "timeoutSeconds": 5}


def resources(settings: Settings, gpu: int) -> dict[str, Any]:
    """Requests equal limits: what is measured must not depend on the neighbours."""
    limits: dict[str, Any] = {"cpu": settings.cpu, "memory": settings.memory}
    if gpu:
        limits["nvidia.com/gpu"] = str(gpu)
    return {"limits": limits, "requests": dict(limits)}


def shared_memory(settings: Settings) -> dict[str, Any]:
    return {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm}}


def data_volume(settings: Settings) -> dict[str, Any]:
    """Read only: then any number of pods may mount it, and Knative needs no further feature flag."""
    return {"name": "data", "persistentVolumeClaim": {"claimName": settings.pvc, "readOnly": True}}


def data_mounts(settings: Settings) -> list[dict[str, Any]]:
    places = ((MODELS, settings.repository_path), (settings.weights_mount, settings.weights_path))
    return [{"name": "data", "mountPath": mount, "subPath": path, "readOnly": True} for mount, path in places]


def container(name: str, image: str, settings: Settings, gpu: int) -> dict[str, Any]:
    """All of it, for platforms that take a whole container with several ports."""
    return {
        "name": name,
        "image": image,
        **command(settings.model),
        "ports": [{"name": kind, "containerPort": port, "protocol": "TCP"} for kind, port in PORTS],
        "readinessProbe": readiness(PORTS[0][1]),
        "resources": resources(settings, gpu),
        "volumeMounts": [SHARED_MEMORY, *data_mounts(settings)],
    }


def pod(name: str, image: str, settings: Settings, gpu: int) -> dict[str, Any]:
    """A whole pod's specification with one container `name`, for platforms that take one."""
    return {
        "containers": [container(name, image, settings, gpu)],
        "volumes": [shared_memory(settings), data_volume(settings)],
        **placement(settings),
    }


def placement(settings: Settings) -> dict[str, Any]:
    """Where the pod may run and with whose rights; only what was set."""
    fields = {
        "nodeSelector": dict(settings.node_selector),
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": settings.pull_secret}] if settings.pull_secret else [],
    }
    return {name: value for name, value in fields.items() if value}
