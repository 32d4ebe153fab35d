"""What `bench deploy` and `bench undeploy` do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import click
import yaml

from bench.cli.values import Values
from bench.cluster.api import Cluster
from bench.cluster.deploy.lifecycle import deployed
from bench.cluster.deploy.rollout import undeploy
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec, manifests, mistakes
from bench.core.cell import Protocol
from bench.core.errors import EXIT_OK
from bench.core.paths import MODEL_REPOSITORY

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def run(values: Values) -> int:
    """`bench deploy`. Raises WrongUse with every mistake, DeployFailed with the cause."""
    spec = _spec(values, values["namespace"] or "default")
    values.mistakes.check()
    if values["dry_run"]:
        click.echo(yaml.safe_dump_all(_printed(spec, values["namespace"]), sort_keys=False), nl=False)
        return EXIT_OK
    cluster = Cluster.connect(values["namespace"], values["context"])
    spec = replace(spec, namespace=cluster.namespace)
    repository = values["repository"] or MODEL_REPOSITORY
    with deployed(
        cluster, (spec,), _say, values["deploy_timeout"],
        repository=repository, keep_serving=True, keep_failed=values["keep_failed"],
    ) as (service,):  # fmt: skip
        _say(f"{len(service.pods)} pods serve {spec.settings.model}")
        click.echo(service.url)
    return EXIT_OK


def remove(values: Values) -> int:
    """`bench undeploy`. Raises WrongUse when nothing is named, DeployFailed when something stays."""
    name, label = values["deployment"] or "", values["run_label"] or ""
    for flag, text in (("NAME", name), ("--run-label", label)):
        if text and not _LABEL.fullmatch(text):
            values.mistakes.wrong(flag, text, "give letters, digits and -")
    if not (name or label):
        values.mistakes.wrong("NAME or --run-label", "", "say which deployment to remove")
    values.mistakes.check()
    timeout_s = values["undeploy_timeout"]
    cluster = Cluster.connect(values["namespace"], values["context"])
    removed = undeploy(cluster, _say, names=[name] if name else [], run_label=label, timeout_s=timeout_s)
    if not removed:
        _say(f"nothing of bench deploy by that name in namespace {cluster.namespace}")
    return EXIT_OK


def _spec(values: Values, namespace: str) -> DeploymentSpec:
    """Mistakes are noted in `values`."""
    label = values["run_label"] or values["service"]
    spec = DeploymentSpec(
        platform=PLATFORMS[values["platform"] or "mlservice"],
        name=values["service"],
        namespace=namespace,
        image=values["service_image"] or "missing",  # which is noted already
        replicas=values["pods"] or 1,
        gpu=values["gpu"] or 0,
        queue=values["queue"] or "",
        run_label=label,
        sets=values["set"],
        traffic=values["one_protocol"] or Protocol.HTTP,
    )
    values.mistakes.mistakes.extend(mistakes(spec))
    if not _LABEL.fullmatch(label):
        values.mistakes.wrong("--run-label", label, "letters, digits, - _ and ., at most 63")
    return spec


def _printed(spec: DeploymentSpec, namespace: str | None) -> list[dict[str, Any]]:
    """Without a namespace where none was given: kubectl then takes its own."""
    objects = list(manifests(spec))
    for item in objects:
        if not namespace:
            del item["metadata"]["namespace"]
    return objects


def _say(text: str) -> None:
    click.echo(text, err=True)
