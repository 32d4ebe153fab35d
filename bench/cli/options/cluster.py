"""Flags of `bench sweep` for a service on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--mlservice",
        metavar="NAME[,NAME]",
        help="Measure this service of a cluster; a second one may be the gRPC release of the same.",
    ),
    click.option("--deploy", is_flag=True, help="Make a service on a cluster for the run, and remove it."),
    click.option("--replicas", help="Pods of the service, as a further axis.  [default: as found, or 1]"),
    click.option(
        "--via",
        help="platform: through the service's address; pod: straight to its pods; both compares them.  "
        "[default: the address where it answers]",
    ),
    click.option("--namespace", "-n", help="Of the service.  [default: the kubeconfig's]"),
    click.option("--context", help="Of the kubeconfig.  [default: the current one]"),
    click.option("--platform", help="Of the service: mlservice, kserve, deployment.  [default: mlservice]"),
    click.option(
        "--triton-image",
        help="For --deploy: with a tritonserver, see manifests/image.  [default: $BENCH_TRITON_IMAGE]",
    ),
    click.option("--gpu", help="For --deploy: GPUs of each pod.  [default: 0]"),
    click.option("--queue", help="For --deploy: T9k's scheduler queue."),
    click.option("--set", multiple=True, metavar="NAME=VALUE", help="For --deploy: as `bench deploy --set`."),
    click.option("--keep", is_flag=True, help="For --deploy: leave the service there."),
    click.option("--deploy-timeout", help="Until a service is ready, or is scaled.  [default: 10m]"),
)


def fleet_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
