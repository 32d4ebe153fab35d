"""Collects everything that is wrong with what was asked, so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bench.core.errors import WrongUse

T = TypeVar("T")


@dataclass(slots=True)
class Mistakes:
    """Reads one flag after another; `mistakes` collects what is wrong with them."""

    mistakes: list[str] = field(default_factory=list)

    def one(self, flag: str, text: str, parse: Callable[[str], tuple[T, ...]], instead: T) -> T:
        """The one value of a flag that takes a single one."""
        nothing: tuple[T, ...] = (instead,)
        values = self.read(flag, text, parse, nothing)
        if len(values) > 1:
            self.wrong(flag, text, "give one value")
        return values[0]

    def read(self, flag: str, text: str, parse: Callable[[str], T], instead: T) -> T:
        """What the flag says; after a mistake `instead`, so that reading can go on."""
        try:
            return parse(text)
        except ValueError as error:
            self.wrong(flag, text, str(error))
            return instead

    def wrong(self, flag: str, text: str, allowed: str) -> None:
        self.mistakes.append(f"{f'{flag} {text}'.rstrip()}: {allowed}")

    def check(self) -> None:
        """Raises WrongUse with every mistake found so far."""
        if self.mistakes:
            raise WrongUse(self.mistakes)
