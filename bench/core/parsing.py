"""Parsers of flag values that are more than a number.

Each raises ValueError with a sentence that says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from bench.core import units

Choice = TypeVar("Choice", bound=StrEnum)


def integers(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    return lambda text: units.parse_integers(text, low=low, high=high)


def choices(kind: type[Choice], all_of_them: str = "") -> Callable[[str], tuple[Choice, ...]]:
    """A comma-separated list of an enum's values, each once. `all_of_them`: a word that stands for all."""
    word = all_of_them or ("both" if len(kind) == 2 else "")

    def parse(text: str) -> tuple[Choice, ...]:
        if word and text.strip() == word:
            return tuple(kind)
        names = [name.strip() for name in text.split(",")]
        allowed = ", ".join(kind)
        unknown = [name for name in names if name not in list(kind)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is unknown; allowed: {allowed}")
        if len(set(names)) < len(names):
            raise ValueError(f"names one twice; allowed: each of {allowed} once")
        return tuple(kind(name) for name in names)

    return parse


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not all(re.fullmatch("[0-9]{1,4}", side) and 1 <= int(side) <= 8192 for side in (height, width)):
        raise ValueError("give HEIGHTxWIDTH in pixels, 1 to 8192 each, e.g. 224x224")
    return int(height), int(width)


def fraction(text: str) -> float:
    allowed = "give a fraction from 0 to 1, or a percentage"
    try:
        value = units.parse_percent(text) if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(allowed) from None
    if not 0 <= value <= 1:
        raise ValueError(allowed)
    return value


def positive_duration(text: str) -> float:
    seconds = units.parse_duration_s(text)
    if seconds <= 0:
        raise ValueError("must be longer than nothing, e.g. 10s")
    return seconds
