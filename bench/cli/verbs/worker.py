"""Flags for load from many machines, and `bench worker`, which runs on each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bench.core.mistakes import Mistakes

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--workers", help="Locust workers that make the load; without more, processes started here."
    ),
    click.option(
        "--locust-master",
        metavar="HOST[:PORT]",
        help="Be Locust's master at this address of this machine, for workers started elsewhere "
        "with `bench worker --master HOST`.",
    ),
    click.option("--in-cluster", is_flag=True, help="Run the sweep and its workers as Jobs in the cluster."),
    click.option("--load-image", help="For --in-cluster: the image with bench installed."),
    click.option(
        "--load-account",
        help="For --in-cluster with --mlservice or --deploy: the service account of the sweep's pod, with "
        "the rights in docs/cluster.md.  [default: the namespace's]",
    ),
)


def worker_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(
    epilog="\b\nExamples:\n  bench worker --master 10.0.0.5\n  bench worker --master 10.0.0.5:6000"
)
@click.option("--master", required=True, metavar="HOST[:PORT]", help="Where the sweep listens.")
def worker(master: str) -> None:
    """Make load for a sweep on another machine: `bench sweep --workers N --locust-master HOST` there.

    One process, one core: start as many as there are cores to give. Waits up to five minutes for the
    master, and ends when the sweep does (exit code 0) or cannot be heard for ten seconds (4).
    """
    from bench.cli.worker_flags import master_address

    flags = Mistakes()
    host, port = flags.read("--master", master, master_address, ("", 0))
    flags.check()
    os.execv(
        sys.executable, [sys.executable, "-m", "bench.loadgen.locust.remote_worker_process", host, str(port)]
    )
