"""Gates: how much worse a figure may get, such as `p99>+5%`, `throughput<-3%` or `errors>+1%`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.units import PERCENTILES

ERRORS = "errors"
MEASURES = ("throughput", ERRORS, *(f"p{percent:g}" for percent in PERCENTILES))
_ALLOWED = (
    "give a gate, such as p99>+5% or throughput<-3% or errors>+1%: throughput with < and a minus, "
    f"{', '.join(MEASURES[1:])} with > and a plus; errors counts in percent of all requests"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """Missed where new / base is beyond `limit`; of errors, where new - base is.

    `limit`: a ratio, 1.05 for >+5%, 0.97 for <-3%; of errors the share of all requests, 0.01 for >+1%.
    """

    measure: str
    limit: float

    @property
    def is_difference(self) -> bool:
        """Whether the gate is on a difference of shares: errors, whose base is zero in a healthy run."""
        return self.measure == ERRORS

    @property
    def higher_is_worse(self) -> bool:
        return self.is_difference or self.limit > 1

    def __str__(self) -> str:
        sign = ">+" if self.higher_is_worse else "<-"
        return f"{self.measure}{sign}{abs(self.limit - (not self.is_difference)) * 100:g}%"


# Of a comparison without gates of its own: figures that any cell has samples enough for.
DEFAULT_GATES = (Gate("throughput", 0.95), Gate("p50", 1.05))
# Every comparison has a gate on errors: requests that fail fast make throughput and latency look better.
ERRORS_GATE = Gate(ERRORS, 0.01)


def with_errors(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The gates, or the default ones, and one on errors where none of them is."""
    gates = tuple(gates) or DEFAULT_GATES
    return gates if any(gate.measure == ERRORS for gate in gates) else (*gates, ERRORS_GATE)


def parse_gate(text: str) -> Gate:
    """`p99>+5%` -> Gate. Raises ValueError saying what is allowed."""
    found = re.fullmatch(r"\s*([\w.]+)\s*([<>])\s*([+-])\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not found or found[1] not in MEASURES or (found[2] == ">") != (found[3] == "+"):
        raise ValueError(_ALLOWED)
    if (found[1] == "throughput") != (found[2] == "<"):  # getting better is no regression
        raise ValueError(_ALLOWED)
    share = float(found[4]) / 100
    if share == 0 or (share >= 1 and (found[2] == "<" or found[1] == ERRORS)):
        raise ValueError(_ALLOWED)
    if found[1] == ERRORS:
        return Gate(ERRORS, share)
    return Gate(found[1], 1 + share if found[2] == ">" else 1 - share)
