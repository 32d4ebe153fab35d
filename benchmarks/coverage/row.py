"""A line of the table of claims against measurements."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One claim, held against simulated studies whose truth is known."""

    claim: str  # what the suite says of its own numbers
    over: str  # the servers and loads that were simulated
    goal: str
    measured: str
    holds: bool | None  # None: a figure without a goal
    studies: int
