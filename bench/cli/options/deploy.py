"""`bench deploy` and `bench undeploy`: their flags."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bench.cli.lazy_import import verb

_WHERE = (
    click.option("--namespace", help="[default: the context's]"),
    click.option("--context", help="Of the kubeconfig.  [default: the current one]"),
)


def _where(command: Any) -> Any:
    for option in reversed(_WHERE):
        command = option(command)
    return command


@click.command(
    epilog="\b\nExamples:\n  bench deploy --image registry/triton-vit:1 --gpu 1\n"
    "  bench deploy --platform kserve --image registry/vit:1 --replicas 2 --set cpu=8 --set pvc=models\n"
    "  bench deploy --name vit-grpc --protocol grpc --image registry/triton-vit:1\n"
    "  bench deploy --image registry/triton-vit:1 --dry-run | kubectl apply --dry-run=server -f -"
)
@click.option(
    "--platform", type=click.Choice(["mlservice", "kserve", "deployment"]), default="mlservice",
    help="T9k's MLService, KServe's InferenceService, or a plain Deployment.", show_default=True,
)  # fmt: skip
@click.option("--name", default="vit-base-patch16-224", help="Of the service.", show_default=True)
@_where
@click.option(
    "--image", required=True, envvar="BENCH_TRITON_IMAGE", show_envvar=True,
    help="With tritonserver and the model's libraries.",
)  # fmt: skip
@click.option("--replicas", type=int, default=1, help="Pods; fixed, no autoscaling.", show_default=True)
@click.option("--gpu", type=int, default=0, help="For each pod; 0: CPU only.", show_default=True)
@click.option(
    "--protocol", type=click.Choice(["http", "grpc"]), default="http", show_default=True,
    help="What an MLService's one port takes; the others show both.",
)  # fmt: skip
@click.option("--queue", default="", help="Of T9k's scheduler.")
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE",
    help="cpu, memory, shm, pvc, model, node-selector.LABEL...; docs/cluster.md has them all.",
)  # fmt: skip
@click.option(
    "--run-label", default="", show_default=False, help="Label of everything made.  [default: the name]"
)
@click.option("--deploy-timeout", default="15m", help="Until the pods serve.", show_default=True)
@click.option("--keep/--no-keep", default=True, help="--no-keep: take it away again when it fails.")
@click.option("--dry-run", is_flag=True, help="Print the manifests as YAML; nothing is asked or changed.")
@click.option(
    "--repository", type=click.Path(path_type=Path),
    help="What the volume was filled from, to compare what is served with.  [default: the one shipped]",
)  # fmt: skip
def deploy(**given: Any) -> None:
    """Put the model on a cluster, wait until the new revision is serving, and check it with real requests."""
    sys.exit(verb("cli.verbs.deploy", "deploy_verb")(given))


@click.command(
    epilog="\b\nExamples:\n  bench undeploy vit-base-patch16-224\n  bench undeploy --run-label nightly"
)
@click.argument("name", required=False, default="")
@click.option("--run-label", default="", help="Everything that was made under it.")
@_where
@click.option("--undeploy-timeout", default="2m", help="Until pods have ended.", show_default=True)
def undeploy(**given: Any) -> None:
    """Remove exactly what `bench deploy` made, by its labels."""
    sys.exit(verb("cli.verbs.deploy", "undeploy_verb")(given))
