"""Flags of the shipped ViT's variants, the same for every verb that varies a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--preferred-batch", help="Sizes the dynamic batcher goes for, together: 8,32."),
    click.option("--precision", help="Of the ViT: fp32, tf32 (GPU), bf16, fp16.  [default: as served]"),
    click.option("--compile", help="torch.compile: none, default, max-autotune (GPU).  [default: as served]"),
    click.option("--wire", help="What travels: fp32, uint8, jpeg.  [default: as served]"),
    click.option(
        "--output", help="What comes back: last_hidden_state, pooler_output, both.  [default: as served]"
    ),
)


def variant_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
