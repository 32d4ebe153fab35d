"""Typed remarks on a trial: what was seen, the likely cause, what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    INVALID = "INVALID"  # the number does not mean what it says
    WARNING = "WARNING"  # the number stands, with this beside it
    NOTE = "NOTE"


class Verdict(StrEnum):
    VALID = "VALID"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable and kebab-case, for machines; the three sentences are for people."""

    code: str
    severity: Severity
    seen: str
    cause: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.seen} {self.cause} {self.next_step}"


def verdict(findings: Iterable[Finding]) -> Verdict:
    """INVALID if any finding makes the number mean something else than it says; warnings do not."""
    invalid = any(finding.severity is Severity.INVALID for finding in findings)
    return Verdict.INVALID if invalid else Verdict.VALID
