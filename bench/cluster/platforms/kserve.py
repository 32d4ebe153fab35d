"""KServe's InferenceService, run without Knative: several ports, and no proxy in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cluster.platforms import base
from bench.cluster.platforms import pod_template as pod
from bench.cluster.platforms.base import DeploymentSpec, Item, Read
from bench.core.cell import Protocol

_API = "serving.kserve.io/v1beta1"
_MODE = "serving.kserve.io/deploymentMode"
# KServe's names for itself without Knative, the new one and the old one.
_STANDARD = ("Standard", "RawDeployment")


class KServe(base.Reporting):
    name = "kserve"
    kinds: Mapping[str, tuple[str, str]] = {"InferenceService": (_API, "inferenceservices")}

    def objects(self, spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
        """A predictor with its own container: no ServingRuntime to find, and /dev/shm as it has to be."""
        predictor = {
            "labels": {**spec.labels, **revision},
            "minReplicas": spec.replicas,
            "maxReplicas": spec.replicas,
            "deploymentStrategy": base.in_place(),
            **pod.pod("kserve-container", spec.image, spec.settings, spec.gpu),
        }
        item = base.manifest(spec, _API, "InferenceService", {"predictor": predictor})
        item["metadata"]["annotations"] = {
            _MODE: "RawDeployment",
            "serving.kserve.io/autoscalerClass": "none",
        }
        return [item, base.direct_service(spec)]

    def pod_labels(self, item: Item) -> dict[str, str]:
        return {"serving.kserve.io/inferenceservice": item["metadata"]["name"]}

    def stem(self, name: str) -> str:
        return f"{name}-predictor"

    def grpc_address(self, item: Item) -> str:
        """Without Knative, its Service maps the first port to 80; every further one keeps its number."""
        meta = item["metadata"]
        asked = meta.get("annotations", {}).get(_MODE, "")
        # The status says what it runs as; the annotation only how it was asked for.
        mode = item.get("status", {}).get("deploymentMode") or asked
        others = _ports(item)[1:] if mode in _STANDARD else ()
        numbers = [port["containerPort"] for port in others if base.is_grpc(port)]
        return f"http://{self.stem(meta['name'])}.{meta['namespace']}.svc:{numbers[0]}" if numbers else ""

    def traffic(self, item: Item, read: Read) -> Protocol:
        model = item["spec"]["predictor"].get("model", {})
        return Protocol.GRPC if model.get("protocolVersion") == "grpc-v2" else base.first_port(_ports(item))

    def scaling(self, item: Item, replicas: int, revision: str) -> list[dict[str, Any]]:
        return base.bounds("/spec/predictor", replicas)


def _ports(item: Item) -> Sequence[Item]:
    predictor = item["spec"]["predictor"]
    declaring: Item = predictor.get("model") or next(iter(predictor.get("containers", ())), {})
    ports: Sequence[Item] = declaring.get("ports", ())
    return ports
