"""Flags of `bench sweep` that compare what it measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--against",
        type=click.Path(path_type=Path),
        metavar="RUN",
        help="Measure that run's cells again, in turns with what it served where that differs, and judge.",
    ),
    click.option(
        "--variant",
        multiple=True,
        metavar="NAME=SETTING=VALUE,...",
        help="Of the server; two or more are measured in turns, and judged against the first.",
    ),
    click.option(
        "--fail-if", multiple=True, metavar="GATE", help="'p99>+5%', 'throughput<-3%'; may be repeated."
    ),
    click.option("--anyway", is_flag=True, help="Judge although the machine or weights differ from RUN's."),
)


def against_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def is_compared(given: dict[str, Any]) -> bool:
    """Whether a sweep is asked to judge, too."""
    return bool(given["against"] or given["variant"] or given["fail_if"] or given["anyway"])


def explicit_flags() -> frozenset[str]:
    """Those that were typed."""
    context = click.get_current_context()
    source = context.get_parameter_source
    return frozenset(name for name in context.params if source(name) is ParameterSource.COMMANDLINE)
