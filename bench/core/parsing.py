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

LOCUST_PORT = 5557  # Locust's master listens here unless another port is named.


def integers(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    return lambda text: units.parse_integers(text, low=low, high=high)


def choices(kind: type[Choice], all_of_them: str = "") -> Callable[[str], tuple[Choice, ...]]:
    """A comma-separated list of an enum's values, each once. `all_of_them`: a word that stands for all."""

    def parse(text: str) -> tuple[Choice, ...]:
        if all_of_them and text.strip() == all_of_them:
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


def positive_share(text: str) -> float:
    """`5%` or `0.05`: above 0, below 1."""
    try:
        value = fraction(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ValueError("give a percentage above 0 and below 100%, such as 5%")
    return value


def window(text: str) -> float | str:
    """Seconds of a window, or `auto`."""
    return text if text == "auto" else positive_duration(text)


def queue_delays_us(text: str) -> tuple[int, ...]:
    """Microseconds that the dynamic batcher waits; `off`, which switches it off, is -1."""
    delays = tuple(
        -1 if part.strip() == "off" else round(units.parse_duration_s(part) * 1e6) for part in text.split(",")
    )
    if len(set(delays)) < len(delays):
        raise ValueError("names one delay twice; allowed: off, 0, 500us, 1ms...")
    return delays


def processes(text: str) -> int:
    """A number of processes; 0 for `auto`."""
    if text == "auto":
        return 0
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= 128:
        raise ValueError("give auto, or a number from 1 to 128")
    return int(text)


def parameter_axis(text: str) -> tuple[str, tuple[str, ...]]:
    """`delay_ms=10,20` -> ("delay_ms", ("10", "20"))."""
    name, equals, values = text.partition("=")
    listed = tuple(value.strip() for value in values.split(","))
    if not name or not equals or not all(listed) or len(set(listed)) < len(listed):
        raise ValueError("give NAME=VALUE[,VALUE...], each value once")
    return name, listed


def setting(text: str) -> tuple[str, str]:
    """`cpu=8` -> ("cpu", "8")."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("give NAME=VALUE")
    return name, value


def service_names(text: str) -> tuple[str, ...]:
    """One name of a service, or two."""
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise ValueError("give NAME, or two: one whose address takes HTTP and one for gRPC")
    return names


def master_address(text: str) -> tuple[str, int]:
    """HOST[:PORT]; Locust takes no [ADDRESS]:PORT of IPv6."""
    host, _, port = text.partition(":")
    if not host or not host.isprintable() or " " in host:
        raise ValueError("give HOST or HOST:PORT, e.g. 10.0.0.5:5557")
    if (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)) or text.endswith(":"):
        raise ValueError("the port is a number from 1 to 65535")
    return host, int(port or LOCUST_PORT)


def positive_duration(text: str) -> float:
    seconds = units.parse_duration_s(text)
    if seconds <= 0:
        raise ValueError("must be longer than nothing, e.g. 10s")
    return seconds
