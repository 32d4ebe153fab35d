"""What `bench deploy` and `bench undeploy` do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

from bench.cluster.api import Cluster
from bench.cluster.deploy.manifests import DeploymentSpec, Platform, manifests, mistakes
from bench.cluster.deploy.rollout import Deployed, Say, deploy, undeploy
from bench.cluster.deploy.settings import settings_of
from bench.cluster.deploy.verify import pass_gate
from bench.core.cell import Protocol
from bench.core.errors import EXIT_OK, WrongUse
from bench.core.paths import MODEL_REPOSITORY, shipped
from bench.core.units import parse_duration_s

REPOSITORY = MODEL_REPOSITORY
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
    try:
        made = _serve(cluster, spec, _say, timeout_s, given["repository"])
    except BaseException:  # Ctrl-C too: what was applied is either said, or taken away
        if given["keep"]:
            _say(f"what was applied stays; `bench undeploy {spec.name}` removes it")
        else:
            undeploy(cluster, _say, name=spec.name)
        raise
    _say(
        f"{len(made.pods)} pods serve {settings_of(spec.sets).model}; `bench undeploy {spec.name}` ends them"
    )
    click.echo(made.url)
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
    removed = undeploy(cluster, _say, name=name, run_label=label, timeout_s=timeout_s)
    if not removed:
        _say(f"nothing of bench deploy by that name in namespace {cluster.namespace}")
    return EXIT_OK


@contextmanager
def deployed(
    cluster: Cluster,
    spec: DeploymentSpec,
    say: Say,
    timeout_s: float = 900,
    *,
    repository: Path | None = None,
) -> Iterator[Deployed]:
    """Served in the block, gone after it: also after a failure, and after Ctrl-C at any moment."""
    with teardown(cluster, spec, say):
        yield _serve(cluster, spec, say, timeout_s, repository)


@contextmanager
def teardown(cluster: Cluster, spec: DeploymentSpec, say: Say) -> Iterator[None]:
    """What a deployment has made, however far it came, is gone after the block."""
    try:
        yield
    finally:
        undeploy(cluster, say, name=spec.name, run_label=spec.run_label)


def _serve(
    cluster: Cluster, spec: DeploymentSpec, say: Say, timeout_s: float, repository: Path | None
) -> Deployed:
    made = deploy(cluster, spec, say, timeout_s)
    pass_gate(cluster, made.pods, settings_of(spec.sets).model, repository or shipped(REPOSITORY))
    return made


def _spec(given: Mapping[str, Any], namespace: str) -> DeploymentSpec:
    sets, wrong = _pairs(given["sets"])
    label = given["run_label"] or given["name"]
    spec = DeploymentSpec(
        platform=Platform(given["platform"]),
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
