"""Collects everything that is wrong with what was asked, so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bench.core.errors import WrongUse

T = TypeVar("T")


@dataclass(slots=True)
class Mistakes:
    """`mistakes` has one sentence each: the flag, what was typed, and what is allowed."""

    mistakes: list[str] = field(default_factory=list)

    def read(self, flag: str, text: str, parse: Callable[[str], T], instead: T) -> T:
        """What the flag says; after a mistake `instead`, so that reading can go on."""
        try:
            return parse(text)
        except ValueError as error:
            self.wrong(flag, text, str(error))
            return instead

    def wrong(self, flag: str, text: str, allowed: str) -> None:
        """Notes a mistake, once."""
        mistake = f"{f'{flag} {text}'.rstrip()}: {allowed}"
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    def check(self) -> None:
        """Raises WrongUse with every mistake found so far."""
        if self.mistakes:
            raise WrongUse(self.mistakes)
