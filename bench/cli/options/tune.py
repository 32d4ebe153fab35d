"""The command `bench tune`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.cli.help_sections import Sectioned
from bench.cli.lazy_import import verb
from bench.cli.options.cluster import fleet_options
from bench.cli.options.vit import variant_options

_EXAMPLES = """\b
Examples:
  bench tune --slo p99=50ms
  bench tune --slo p99=100ms --instances 1,2 --max-batch 8,32 --max-queue-delay off,1ms --precision fp32,bf16
  bench tune --slo p95=200ms --batch 1,8 --rate 5/s,10/s,20/s,40/s --budget 15m
  bench tune --slo p99=50ms --mlservice vit --namespace demo --max-batch 8,32
  bench tune --url 127.0.0.1:8000 --model my_model --slo p99=20ms --budget 60 --json
"""


_SPACE: tuple[Any, ...] = (
    click.option("--slo", required=True, metavar="TERMS", help="p99=50ms,errors=0.1%: what has to hold."),
    click.option(
        "--instances",
        help="To choose from.  [default: 1,2,4,8 up to the cores; elsewhere, or with a GPU, 1,2,4]",
    ),
    click.option("--max-batch", help="To choose from.  [default: 8, 32 and the model's own, up to that]"),
    click.option(
        "--max-queue-delay", help="To choose from.  [default: off,0,1ms; none where nothing batches]"
    ),
    variant_options,
    click.option("--parameter", multiple=True, metavar="NAME=A,B", help="Model parameter as a further axis."),
    click.option("--batch", default="1", help="Images a request, where the client may choose."),
    click.option(
        "--concurrency",
        help="Users to look through (closed loop).  [default: 1,2,4,8,16,32,64 without --rate]",
    ),
    click.option("--rate", help="Instead: arrivals a second (open loop) to look through: 50/s,100/s,200/s."),
)
_MEASURING: tuple[Any, ...] = (
    click.option(
        "--budget", help="Measurements, or a time such as 10m.  [default: a quarter of the grid's cells]"
    ),
    click.option("--duration", default="5s", help="Of one trial's window."),
    click.option(
        "--longest-trial", default="20s", help="Where the percentile needs more samples, up to this."
    ),
    click.option("--warmup", default="1s", help="At the trial's own load, before the window."),
    click.option("--protocol", default="http", help="http or grpc."),
    click.option("--shared-memory", default="none", help="none or system."),
    click.option(
        "--check", default="1%", help="Share of answers whose values are compared with a reference."
    ),
    click.option("--processes", default="auto", help="Load-generating processes."),
    click.option("--name", help="Of the run.  [default: model and time]"),
    click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [default: reports/NAME]"),
    click.option("--force", is_flag=True, help="Replace the run that is in the folder."),
    click.option("--resume", is_flag=True, help="Go on with the run that is in the folder."),
    click.option("--dry-run", is_flag=True, help="Print the axes, the grid and the most it would measure."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the answer and every step as JSON on stdout."
    ),
)


def tune_command(*shared: Callable[[Any], Any]) -> click.Command:
    """`shared`: the options that say what is measured, as the other verbs have them."""
    run: Any = tune
    for option in reversed((*_SPACE, *shared, fleet_options, *_MEASURING)):
        run = option(run)
    return click.command(cls=Sectioned, epilog=_EXAMPLES)(run)


def tune(**given: Any) -> None:
    """Find the settings that serve most within an SLO, and print the config.pbtxt to deploy.

    Goes along one axis at a time instead of over the whole grid, and repeats the winner and the runner-up
    in turn until they can be told apart. Exit codes: 0 proved, 3 likely, 1 nothing holds the SLO.
    """
    fixed = {"quick": False, "arrival": "poisson", "engine": "locust"}
    sys.exit(verb("cli.verbs.tune", "run")({**fixed, **given}, ("bench", *sys.argv[1:])))
