"""Manifests as pure functions of what was asked, and a platform made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench.cluster.deploy.rollout import find_service, scale, undeploy
from bench.cluster.platforms import PLATFORMS, base, register
from bench.cluster.platforms import pod_template as pod
from bench.cluster.platforms.base import (
    DeploymentSpec,
    Platform,
    is_about,
    mistakes,
    revision_of,
)
from bench.core.cell import Protocol
from tests.support.kube_api import ApiServer
from tests.support.kube_controller import Controller, deploy

SPEC = DeploymentSpec(platform=PLATFORMS["mlservice"], name="vit", namespace="n", image="i:1", run_label="r")


def test_another_pod_is_another_revision() -> None:
    revision = revision_of(SPEC)
    assert revision == revision_of(SPEC)
    changes = ({"image": "i:2"}, {"gpu": 1}, {"sets": (("cpu", "8"),)}, {"run_label": "s"})
    assert len({revision, *(revision_of(replace(SPEC, **c)) for c in changes)}) == 5


@pytest.mark.parametrize(
    ("platform", "same"),
    [(PLATFORMS["mlservice"], False), (PLATFORMS["kserve"], True), (PLATFORMS["deployment"], True)],
)
def test_replicas_are_a_new_revision_to_knative_alone(platform: Platform, same: bool) -> None:
    one = replace(SPEC, platform=platform)
    assert (revision_of(one) == revision_of(replace(one, replicas=2))) is same


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"name": "Vit"}, "--name"),
        ({"name": "v" * 41}, "--name"),
        ({"image": ""}, "--image"),
        ({"replicas": 0}, "--replicas"),
        ({"gpu": -1}, "--gpu"),
        ({"queue": "q", "platform": PLATFORMS["kserve"]}, "--queue"),
        ({"traffic": Protocol.GRPC, "platform": PLATFORMS["kserve"]}, "--protocol grpc"),
        ({"sets": (("nope", "1"),)}, "--set nope"),
        ({"sets": (("memory", "much"),)}, "--set memory"),
        ({"sets": (("progress-deadline", "1h"),)}, "--set progress-deadline"),
    ],
)
def test_each_mistake_names_its_flag(change: dict[str, object], flag: str) -> None:
    assert not list(mistakes(SPEC))
    found = list(mistakes(replace(SPEC, **change)))  # type: ignore[arg-type]  # fields by name
    assert len(found) == 1
    assert found[0].startswith(flag)


def test_events_of_a_neighbour_with_a_longer_name_are_not_ours() -> None:
    assert is_about(PLATFORMS["mlservice"], "vit", "vit-predict-v1-00001-deployment-x")
    assert not is_about(PLATFORMS["mlservice"], "vit", "vit-other-predict-v1-00001")


# The example of docs/extending.md.
class StatefulSet(base.Platform):
    """Pods with names that last: vit-0, vit-1..."""

    name = "statefulset"
    kinds: Mapping[str, tuple[str, str]] = {"StatefulSet": ("apps/v1", "statefulsets")}

    def objects(self, spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
        body = {
            "serviceName": f"{spec.name}-direct",
            "replicas": spec.replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {base.DEPLOYMENT: spec.name}},
            "template": {
                "metadata": {"labels": {**spec.labels, **revision}},
                "spec": pod.pod("tritonserver", spec.image, spec.settings, spec.gpu),
            },
        }
        item = base.manifest(spec, "apps/v1", "StatefulSet", body)
        return [item, base.service(spec), base.direct_service(spec)]

    def unsettled(self, item: base.Item, replicas: int) -> str:
        ready = item.get("status", {}).get("readyReplicas", 0)
        return "" if ready >= replicas else f"ready: {ready} of {replicas}"


# End of the example.
@pytest.fixture
def statefulset() -> Iterator[Platform]:
    register(StatefulSet())
    yield PLATFORMS["statefulset"]
    del PLATFORMS["statefulset"]


def silent(_: str) -> None: ...


@pytest.mark.cluster
def test_a_platform_made_by_hand_deploys_scales_is_found_and_goes(
    api_server: ApiServer, statefulset: Platform
) -> None:
    with api_server.namespace() as cluster, Controller(cluster) as controller:
        spec = replace(SPEC, platform=statefulset, namespace=cluster.namespace)
        made = deploy(cluster, spec)
        assert made.url == f"http://vit.{cluster.namespace}.svc:8000"
        assert len(scale(cluster, made, 2, silent, 30).pods) == 2
        assert len(find_service(cluster, statefulset, "vit").pods) == 2
        removed = undeploy(cluster, silent, names=["vit"], timeout_s=20)
        assert removed == ("StatefulSet vit", "Service vit", "Service vit-direct")
        assert not controller.errors
