"""Manifests as pure functions of what was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import (
    DeploymentSpec,
    Platform,
    is_about,
    mistakes,
    revision_of,
)
from bench.core.cell import Protocol

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
