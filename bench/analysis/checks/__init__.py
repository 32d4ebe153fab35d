"""Findings on a trial: what makes its number mean less than it says, the likely cause, what to do next.

INVALID is for numbers that do not mean what they say: wrong answers, a load that was not made, counts that
disagree, a load generator at its own limit. Noise of the machine and too few samples are warnings beside the
number; they fail nothing by themselves.

To add a finding, write a function in the file of its theme, put it into that file's CHECKS, and list its code
in docs/method.md. A finding about one trial is a `Check`; one that needs all repeats of a cell, or other
cells, is a `CellCheck` in `cell.py`. What only an engine can see comes with the trial (`Trial.findings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bench.analysis.believable import believable
from bench.analysis.checks import answers, conditions, evidence, gpu, load, pods, server, window
from bench.analysis.summary import TrialSummary, summarize
from bench.core.findings import Finding
from bench.core.trial import Trial


class Check(Protocol):
    """Looks at one trial for one kind of trouble, and yields a finding where it is there."""

    def __call__(self, trial: Trial, summary: TrialSummary, /) -> Iterator[Finding]: ...


# In this order findings of equal severity are shown and written into cells.csv.
CHECKS: tuple[Check, ...] = (
    *answers.CHECKS,
    *load.CHECKS,
    *server.CHECKS,
    *pods.CHECKS,
    *conditions.CHECKS,
    *window.CHECKS,
    *gpu.CHECKS,
    *evidence.CHECKS,
)


def findings_of(trial: Trial, summary: TrialSummary | None = None) -> tuple[Finding, ...]:
    """The engine's own findings on a trial, then those of every check.

    `summary`: the trial's, where the caller has it already; made here otherwise.
    """
    summary = summary or summarize(trial)
    known = believable(trial)
    found = (finding for check in CHECKS for finding in check(known, summary))
    return (*trial.findings, *server.impossible(trial), *found)
