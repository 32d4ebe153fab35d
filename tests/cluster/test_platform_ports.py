"""Where a service takes HTTP and where gRPC, from its objects alone."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec, beside, manifests
from bench.cluster.platforms.mlservice import runtime_of
from bench.core.cell import Protocol

SPEC = DeploymentSpec(platform=PLATFORMS["mlservice"], name="vit", namespace="n", image="i:1", run_label="r")


def made(spec: DeploymentSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The runtime and the service that a deployment makes."""
    runtime, service, _ = manifests(spec)
    return runtime, service


@pytest.mark.parametrize(
    ("says", "spec", "traffic"),
    [
        ("the usual one", SPEC, Protocol.HTTP),
        ("the one beside it", beside(SPEC), Protocol.GRPC),
    ],
)
def test_an_mlservice_takes_what_its_runtimes_port_is_named_for(
    says: str, spec: DeploymentSpec, traffic: Protocol
) -> None:
    runtime, service = made(spec)
    assert PLATFORMS["mlservice"].traffic(service, lambda *_: runtime) is traffic, says
    assert runtime_of(service) == runtime["metadata"]["name"]
    assert PLATFORMS["mlservice"].traffic(service, lambda *_: None) is Protocol.HTTP, (
        "a runtime that may not be read"
    )
    assert PLATFORMS["mlservice"].grpc_address(service) == "", "it shows one port"


def test_a_runtime_without_a_port_takes_http() -> None:
    runtime, service = made(SPEC)
    del runtime["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert PLATFORMS["mlservice"].traffic(service, lambda *_: runtime) is Protocol.HTTP


def test_a_named_runtime_gets_a_second_name_beside() -> None:
    runtime, service = made(beside(DeploymentSpec(**{**_fields(SPEC), "sets": (("runtime", "mine"),)})))
    assert runtime["metadata"]["name"] == "mine-grpc" == runtime_of(service)


def _fields(spec: DeploymentSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in DeploymentSpec.__slots__}


HTTP, GRPC = {"containerPort": 8000, "name": "http1"}, {"containerPort": 9000, "name": "h2c"}
RAW = {"serving.kserve.io/deploymentMode": "RawDeployment"}


@pytest.mark.parametrize(
    ("says", "annotations", "status", "predictor", "traffic", "other"),
    [
        ("Knative, one port", {}, {}, {"containers": [{"ports": [HTTP]}]}, "http", ""),
        ("Knative, h2c", {}, {}, {"containers": [{"ports": [GRPC]}]}, "grpc", ""),
        ("a model format", {}, {}, {"model": {"runtime": "kserve-tritonserver"}}, "http", ""),
        ("a model over gRPC", {}, {}, {"model": {"protocolVersion": "grpc-v2"}}, "grpc", ""),
        ("a model whose port is overridden", {}, {}, {"model": {"ports": [GRPC]}}, "grpc", ""),
        ("no container", {}, {}, {"model": {}}, "http", ""),
        (
            "without Knative every port",
            RAW, {}, {"containers": [{"ports": [HTTP, GRPC]}]}, "http", "http://vit-predictor.n.svc:9000",
        ),
        (
            "what it runs as counts, not what was asked",
            RAW, {"deploymentMode": "Serverless"}, {"containers": [{"ports": [HTTP, GRPC]}]}, "http", "",
        ),
        (
            "by its new name",
            {}, {"deploymentMode": "Standard"}, {"containers": [{"ports": [HTTP, GRPC]}]}, "http",
            "http://vit-predictor.n.svc:9000",
        ),
    ],
)  # fmt: skip
def test_an_inference_service(
    says: str,
    annotations: dict[str, str],
    status: dict[str, str],
    predictor: dict[str, Any],
    traffic: str,
    other: str,
) -> None:
    meta = {"name": "vit", "namespace": "n", "annotations": annotations}
    item = {"metadata": meta, "spec": {"predictor": predictor}, "status": status}
    assert PLATFORMS["kserve"].traffic(item, lambda *_: None) == traffic, says
    assert PLATFORMS["kserve"].grpc_address(item) == other, says


def test_what_we_deploy_without_knative_shows_both() -> None:
    for platform, expected in (
        (PLATFORMS["kserve"], "http://vit-predictor.n.svc:8001"),
        (PLATFORMS["deployment"], "http://vit.n.svc:8001"),
    ):
        spec = DeploymentSpec(**{**_fields(SPEC), "platform": platform})
        assert platform.grpc_address(manifests(spec)[0]) == expected
        assert platform.traffic(manifests(spec)[0], lambda *_: None) is Protocol.HTTP
