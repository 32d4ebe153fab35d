"""Flags of `bench ceiling`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.cli.lazy_import import verb

Command = TypeVar("Command", bound=Callable[..., Any])

ceiling_option: Callable[[Command], Command] = click.option(
    "--ceiling", is_flag=True, help="First measure the bare model, for the column efficiency."
)


@click.command(
    epilog="\b\nExamples:\n"
    "  bench ceiling --batch 1,8,32\n"
    "  bench ceiling --vit base --precision fp32,bf16 --json\n"
    "  bench ceiling --run reports/mine"
)
@click.option("--run", type=click.Path(path_type=Path), help="Keep it with this run, for its own variants.")
@click.option(
    "--vit",
    default="auto",
    metavar="WHICH",
    help="Weights of python_vit: auto, base, tiny (random weights of that size), a snapshot folder, "
    "or a Hugging Face name.",
)
@click.option("--batch", help="Images a pass.  [default: the run's, or 1,8,32]")
@click.option("--precision", help="fp32, tf32 (GPU), bf16, fp16.  [default: the run's, or fp32]")
@click.option("--compile", help="none, default, max-autotune (GPU).  [default: the run's, or none]")
@click.option(
    "--output",
    help="last_hidden_state, pooler_output, both.  [default: the run's, or last_hidden_state]",
)
@click.option("--threads", default=0, type=click.IntRange(0), help="Of torch on a CPU; 0: every core.")
@click.option("--seconds", default="1s", help="Of one sample.")
@click.option("--samples", default=5, type=click.IntRange(1), help="Of each batch; an interval needs 3.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def ceiling(**given: Any) -> None:
    """Measure the served network without Triton: what this machine could do at most.

    On a GPU by CUDA events, on a CPU by the monotonic clock; the images are on the device already. Run it
    with nothing else running.
    """
    sys.exit(verb("cli.verbs.ceiling", "run")(given))
