"""Kinds of option values: how a text is read, written back, and completed in a shell.

    kind = integers(1, 64)
    kind.parse("1,8")      # (1, 8)
    kind.format((1, 8))    # "1,8"

`parse(format(value)) == value` for every value of every kind. `parse` raises ValueError with a sentence that
says what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.core import parsing, target, units
from bench.core.slo import parse_slo

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """`words`: what a value may be, or begin with. `names`: what on this machine it may name."""

    label: str
    metavar: str
    parse: Callable[[str], T]
    format: Callable[[T], str] = str
    words: tuple[str, ...] = ()
    is_list: bool = False
    names: str = ""  # "file", "folder", "run" or "model"
    low: int = 0
    high: int = 0
    masked: Callable[[str], str] = str  # what was typed, without what is secret in it


def integers(low: int, high: int) -> Kind[tuple[int, ...]]:
    """A list of whole numbers, each once."""
    parse = parsing.integers(low, high)
    return Kind("integers", "N[,N]", parse, listed, is_list=True, low=low, high=high)


def integer(low: int, high: int) -> Kind[int]:
    """One whole number."""

    def parse(text: str) -> int:
        try:
            return _one(parsing.integers(low, high))(text)
        except ValueError:
            raise ValueError(f"give a whole number from {low} to {high}") from None

    return Kind("integer", "N", parse, low=low, high=high)


def choices(kind: type[StrEnum], all_of_them: str = "") -> Kind[tuple[Any, ...]]:
    """A list of words of an enumeration, each once. `all_of_them`: a word that stands for all."""
    words = tuple(map(str, (*kind, all_of_them) if all_of_them else kind))
    return Kind("choices", "LIST", parsing.choices(kind, all_of_them), listed, words=words, is_list=True)


def choice(kind: type[StrEnum]) -> Kind[Any]:
    """One word of an enumeration."""
    return Kind("choice", "WORD", _one(parsing.choices(kind)), words=tuple(map(str, kind)))


def one_of(*words: str) -> Kind[str]:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is unknown; allowed: {', '.join(words)}")
        return text

    return Kind("word", "WORD", parse, words=words)


def path(names: str = "file") -> Kind[Path]:
    """A file, a folder or a run folder."""
    metavar = {"file": "FILE", "run": "RUN"}.get(names, "FOLDER")
    return Kind("path", metavar, Path, names=names)


def text(metavar: str = "TEXT", *, words: tuple[str, ...] = (), names: str = "") -> Kind[str]:
    """Any text."""
    return Kind("text", metavar, str, words=words, names=names)


def listed(values: Sequence[object]) -> str:
    """(1, 8) -> 1,8. None is left out: it means the value that the server has."""
    return ",".join(str(value) for value in values if value is not None)


def plain(value: float) -> str:
    """A number exactly, and without an exponent."""
    return f"{Decimal(repr(value)).normalize():f}"


def seconds(value: float) -> str:
    return f"{plain(value)}s"


def _one(parse: Callable[[str], tuple[T, ...]]) -> Callable[[str], T]:
    def one(text: str) -> T:
        values = parse(text)
        if len(values) > 1:
            raise ValueError("give one value")
        return values[0]

    return one


def _delays(values: Sequence[int | None]) -> str:
    return ",".join("off" if us == -1 else f"{us}us" for us in values if us is not None)


def _duration(value: float | str) -> str:
    return value if isinstance(value, str) else seconds(value)


def _pair(values: Sequence[str]) -> str:
    return "=".join(values)


def _axis(axis: tuple[str, tuple[str, ...]]) -> str:
    name, values = axis
    return f"{name}={','.join(values)}"


def _fraction(value: float) -> str:
    return "1%" if value == 0.01 else plain(value)


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"{host}:{port}"


def _rates(values: Sequence[float]) -> str:
    return ",".join(f"{plain(rate)}/s" for rate in values)


SWITCH: Kind[bool] = Kind("switch", "", lambda text: text == "true", lambda value: "true" if value else "")
RATES: Kind[tuple[float, ...]] = Kind("rates", "LIST", units.parse_rates, _rates, is_list=True)
DELAYS: Kind[tuple[int, ...]] = Kind(
    "delays", "LIST", parsing.queue_delays_us, _delays, words=("off", "0"), is_list=True
)
TIME: Kind[float] = Kind("time", "TIME", units.parse_duration_s, seconds)
LASTING: Kind[float] = Kind("lasting", "TIME", parsing.positive_duration, seconds)
WINDOW: Kind[float | str] = Kind("window", "TIME", parsing.window, _duration, words=("auto",))
IMAGE: Kind[tuple[int, int]] = Kind("image", "HxW", parsing.image_size, lambda size: f"{size[0]}x{size[1]}")
FRACTION: Kind[float] = Kind("fraction", "SHARE", parsing.fraction, _fraction)
SHARE: Kind[float] = Kind("share", "SHARE", parsing.positive_share, plain)
PROCESSES: Kind[int] = Kind(
    "processes", "N", parsing.processes, lambda count: str(count) if count else "auto", words=("auto",)
)
SLO: Kind[Any] = Kind("slo", "TERMS", parse_slo)
AXIS: Kind[tuple[str, tuple[str, ...]]] = Kind("axis", "NAME=A,B", parsing.parameter_axis, _axis)
SETTING: Kind[tuple[str, str]] = Kind("setting", "NAME=VALUE", parsing.setting, _pair)
HEADER: Kind[tuple[str, str]] = Kind(
    "header", "NAME:VALUE", target.header, ":".join, masked=target.masked_header
)
URL: Kind[str] = Kind("url", "URL", target.given_url, masked=target.masked_url)
PROXY: Kind[str] = Kind("proxy", "URL", target.proxy_address, words=("env",), masked=target.masked_url)
HOST_PORT: Kind[str] = Kind("host_port", "HOST:PORT", target.host_and_port, masked=target.masked_url)
METRICS: Kind[str] = Kind("metrics", "URL", target.metrics_address, masked=target.masked_url)
SIZE: Kind[int] = Kind("size", "SIZE", units.parse_size, units.exact_size)
MASTER: Kind[tuple[str, int]] = Kind("master", "HOST[:PORT]", parsing.master_address, _address)
NAMES: Kind[tuple[str, ...]] = Kind("names", "NAME[,NAME]", parsing.service_names, listed)
