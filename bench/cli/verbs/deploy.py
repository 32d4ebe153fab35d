"""What `bench deploy` and `bench undeploy` do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import yaml

from bench.cli.values import Values
from bench.cluster.api import Cluster
from bench.cluster.deploy.manifests import DeploymentSpec, Platform, manifests, mistakes
from bench.cluster.deploy.rollout import Deployed, Say, deploy, undeploy
from bench.cluster.deploy.settings import settings_of
from bench.cluster.deploy.verify import pass_gate
from bench.core.cell import Protocol
from bench.core.errors import EXIT_OK
from bench.core.paths import MODEL_REPOSITORY

REPOSITORY = MODEL_REPOSITORY
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
    try:
        made = _serve(cluster, spec, _say, values["deploy_timeout"], values["repository"])
    except BaseException:  # Ctrl-C too: what was applied is either said, or taken away
        if values["keep_failed"]:
            _say(f"what was applied stays; `bench undeploy {spec.name}` removes it")
        else:
            undeploy(cluster, _say, name=spec.name)
        raise
    _say(
        f"{len(made.pods)} pods serve {settings_of(spec.sets).model}; `bench undeploy {spec.name}` ends them"
    )
    click.echo(made.url)
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
    pass_gate(cluster, made.pods, settings_of(spec.sets).model, repository or REPOSITORY)
    return made


def _spec(values: Values, namespace: str) -> DeploymentSpec:
    """Mistakes are noted in `values`."""
    label = values["run_label"] or values["service"]
    spec = DeploymentSpec(
        platform=Platform(values["platform"] or "mlservice"),
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
