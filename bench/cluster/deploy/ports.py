"""Which protocol a service's address takes, and where it takes gRPC beside that. Pure.

T9k and Knative pass one port of a service: HTTP, or gRPC where it is named h2c (HTTP/2 without TLS). KServe
without Knative and a plain Service show all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cluster.platforms.base import Platform
from bench.cluster.platforms.pod_template import PORTS
from bench.core.cell import Protocol

# KServe's names for itself without Knative, the new one and the old one.
_STANDARD = ("Standard", "RawDeployment")
_MODE = "serving.kserve.io/deploymentMode"


def runtime_of(item: Mapping[str, Any]) -> str:
    """The MLServiceRuntime of an MLService's default release, which declares the port."""
    default = item["spec"]["default"]
    release = next(one for one in item["spec"]["releases"] if one["name"] == default)
    return str(release["predictor"]["model"]["runtime"])


def traffic_of(platform: Platform, item: Mapping[str, Any], runtime: Mapping[str, Any] | None) -> Protocol:
    """What the port of the service's address takes. `runtime`: of an MLService; None: it cannot be read."""
    if platform is Platform.MLSERVICE:
        return _spoken(_ports_of_runtime(runtime))
    if platform is Platform.KSERVE:
        model = item["spec"]["predictor"].get("model", {})
        return Protocol.GRPC if model.get("protocolVersion") == "grpc-v2" else _spoken(_kserve_ports(item))
    return Protocol.HTTP


def grpc_beside(platform: Platform, item: Mapping[str, Any]) -> str:
    """A URL beside the service's own that takes gRPC; "" where the platform shows one port only."""
    name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
    if platform is Platform.DEPLOYMENT:
        return f"http://{name}.{namespace}.svc:{dict(PORTS)['grpc']}"
    if platform is Platform.KSERVE and _mode(item) in _STANDARD:
        # Its Service maps the first port to 80; every further one keeps its number.
        for port in _kserve_ports(item)[1:]:
            if _is_grpc(port):
                return f"http://{name}-predictor.{namespace}.svc:{port['containerPort']}"
    return ""


def _mode(item: Mapping[str, Any]) -> str:
    """What it runs as; the annotation says only how it was asked for."""
    asked = item["metadata"].get("annotations", {}).get(_MODE, "")
    return str(item.get("status", {}).get("deploymentMode") or asked)


def _ports_of_runtime(runtime: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    containers = runtime["spec"]["template"]["spec"]["containers"] if runtime else ()
    return next((one.get("ports", ()) for one in containers if one["name"] == "user-container"), ())


def _kserve_ports(item: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    predictor = item["spec"]["predictor"]
    declaring: Mapping[str, Any] = predictor.get("model") or next(iter(predictor.get("containers", ())), {})
    ports: Sequence[Mapping[str, Any]] = declaring.get("ports", ())
    return ports


def _spoken(ports: Sequence[Mapping[str, Any]]) -> Protocol:
    return Protocol.GRPC if ports and _is_grpc(ports[0]) else Protocol.HTTP


def _is_grpc(port: Mapping[str, Any]) -> bool:
    name = str(port.get("name", ""))
    return "h2c" in name or "grpc" in name
