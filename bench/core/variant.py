"""A variant of an A/B measurement: a server whose settings differ from the sweep's flags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """`settings`: (flag without dashes, or a model parameter, value)."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> int | None:
        """The model's version; None: as its version policy says."""
        text = dict(self.settings).get("version")
        return None if text is None else int(text)

    def __str__(self) -> str:
        """As `parse_variant` reads it."""
        return f"{self.name}={','.join(f'{name}={value}' for name, value in self.settings)}"


def parse_variant(text: str, of_server: Sequence[str], of_load: Sequence[str]) -> Variant:
    """`new=instances=2,delay_ms=55` -> Variant. Raises ValueError saying what is allowed.

    `of_server`: settings that have a flag. `of_load`: those that all variants share.
    """
    allowed = (
        "give NAME=SETTING=VALUE[,SETTING=VALUE...], or NAME= for the flags as they are; settings: "
        f"version, {', '.join(of_server)}, or a parameter of the model"
    )
    name, equals, rest = text.partition("=")
    settings = tuple(_setting(part, of_load, allowed) for part in rest.split(",") if rest)
    if not equals or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", name):
        raise ValueError(allowed)
    if len(dict(settings)) < len(settings):
        raise ValueError("sets something twice; a variant has one value of each")
    return Variant(name, settings)


def _setting(text: str, of_load: Sequence[str], allowed: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise ValueError(allowed)
    if name in of_load:
        raise ValueError(f"{name} is of the load, which all variants share; {allowed}")
    if name == "version" and not re.fullmatch("[1-9][0-9]{0,8}", value):
        raise ValueError("version: give a whole number from 1")
    return name, value
