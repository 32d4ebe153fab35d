"""Gates: how much worse a figure may get, such as `p99>+5%` or `throughput<-3%`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.core.units import PERCENTILES

MEASURES = ("throughput", *(f"p{percent:g}" for percent in PERCENTILES))
_ALLOWED = (
    "give a relative gate, such as p99>+5% or throughput<-3%: throughput with < and a minus, "
    f"{', '.join(MEASURES[1:])} with > and a plus"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """Missed where new / base is beyond `limit`."""

    measure: str
    limit: float  # a ratio: 1.05 for >+5%, 0.97 for <-3%

    @property
    def higher_is_worse(self) -> bool:
        return self.limit > 1

    def __str__(self) -> str:
        sign = ">+" if self.higher_is_worse else "<-"
        return f"{self.measure}{sign}{abs(self.limit - 1) * 100:g}%"


# Of a comparison without gates of its own: figures that any cell has samples enough for.
DEFAULT_GATES = (Gate("throughput", 0.95), Gate("p50", 1.05))


def parse_gate(text: str) -> Gate:
    """`p99>+5%` -> Gate. Raises ValueError saying what is allowed."""
    found = re.fullmatch(r"\s*([\w.]+)\s*([<>])\s*([+-])\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not found or found[1] not in MEASURES or (found[2] == ">") != (found[3] == "+"):
        raise ValueError(_ALLOWED)
    if (found[1] == "throughput") != (found[2] == "<"):  # getting better is no regression
        raise ValueError(_ALLOWED)
    share = float(found[4]) / 100
    if share == 0 or (found[2] == "<" and share >= 1):
        raise ValueError(_ALLOWED)
    return Gate(found[1], 1 + share if found[2] == ">" else 1 - share)
