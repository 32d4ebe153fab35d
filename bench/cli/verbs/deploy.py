"""What `bench deploy` and `bench undeploy` do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click
import yaml

from bench.cluster.api import Cluster
from bench.cluster.deploy.lifecycle import deployed
from bench.cluster.deploy.rollout import undeploy
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec, manifests, mistakes
from bench.core.cell import Protocol
from bench.core.errors import EXIT_OK, WrongUse
from bench.core.paths import MODEL_REPOSITORY
from bench.core.units import parse_duration_s

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def deploy_verb(given: Mapping[str, Any]) -> int:
    """Raises WrongUse with every mistake, DeployFailed with the cause."""
    spec = _spec(given, given["namespace"] or "default")
    timeout_s = _seconds("--deploy-timeout", given["deploy_timeout"])
    if given["dry_run"]:
        click.echo(yaml.safe_dump_all(_printed(spec, given["namespace"]), sort_keys=False), nl=False)
        return EXIT_OK
    cluster = Cluster.connect(given["namespace"], given["context"])
    spec = _spec(given, cluster.namespace)
    repository = given["repository"] or MODEL_REPOSITORY
    with deployed(
        cluster, (spec,), _say, timeout_s,
        repository=repository, keep_serving=True, keep_failed=given["keep"],
    ) as (service,):  # fmt: skip
        _say(f"{len(service.pods)} pods serve {spec.settings.model}")
        click.echo(service.url)
    return EXIT_OK


def undeploy_verb(given: Mapping[str, Any]) -> int:
    """Raises WrongUse when nothing is named, DeployFailed when something stays."""
    name, label = given["name"], given["run_label"]
    wrong = [
        f"{what}: letters, digits and -" for what in (name, label) if what and not _LABEL.fullmatch(what)
    ]
    if not (name or label):
        wrong.append("NAME or --run-label: say which deployment to remove")
    if wrong:
        raise WrongUse(wrong)
    timeout_s = _seconds("--undeploy-timeout", given["undeploy_timeout"])
    cluster = Cluster.connect(given["namespace"], given["context"])
    removed = undeploy(cluster, _say, names=[name] if name else [], run_label=label, timeout_s=timeout_s)
    if not removed:
        _say(f"nothing of bench deploy by that name in namespace {cluster.namespace}")
    return EXIT_OK


def _spec(given: Mapping[str, Any], namespace: str) -> DeploymentSpec:
    sets, wrong = _pairs(given["sets"])
    label = given["run_label"] or given["name"]
    spec = DeploymentSpec(
        platform=PLATFORMS[given["platform"]],
        name=given["name"],
        namespace=namespace,
        image=given["image"],
        replicas=given["replicas"],
        gpu=given["gpu"],
        queue=given["queue"],
        run_label=label,
        sets=sets,
        traffic=Protocol(given["protocol"]),
    )
    wrong += mistakes(spec)
    if not _LABEL.fullmatch(label):
        wrong.append(f"--run-label {label}: letters, digits, - _ and ., at most 63")
    try:
        parse_duration_s(given["deploy_timeout"])
    except ValueError as error:
        wrong.append(f"--deploy-timeout {given['deploy_timeout']}: {error}")
    if wrong:
        raise WrongUse(wrong)
    return spec


def _pairs(texts: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    wrong = [f"--set {text}: give NAME=VALUE" for text in texts if "=" not in text]
    pairs = tuple(text.split("=", 1) for text in texts if "=" in text)
    return tuple((name, value) for name, value in pairs), wrong


def _printed(spec: DeploymentSpec, namespace: str | None) -> list[dict[str, Any]]:
    """Without a namespace where none was given: kubectl then takes its own."""
    objects = list(manifests(spec))
    for item in objects:
        if not namespace:
            del item["metadata"]["namespace"]
    return objects


def _seconds(flag: str, text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise WrongUse([f"{flag} {text}: {error}"]) from error


def _say(text: str) -> None:
    click.echo(text, err=True)
