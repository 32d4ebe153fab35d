"""Does the window hold enough of a closed loop: a few answers of each user?"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.summary import TrialSummary, answers_per_user, half_width_within
from bench.core import units
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity
from bench.core.spec import AUTO_WITHIN
from bench.core.trial import Trial

# With fewer answers of a user in a window, throughput depends on where the window lies.
LEAST_ANSWERS = 3.0
# A window that is longer than asked by less than this factor was closed late by the machine, not by plan.
LONGER = 1.2


def too_short(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    answers = answers_per_user(trial)
    if summary.requests and answers is not None and answers < LEAST_ANSWERS:
        seconds = units.significant(trial.window.seconds * 2 * LEAST_ANSWERS / answers, 2)
        yield Finding(
            "window-too-short",
            Severity.WARNING,
            f"The window is too short to say: it holds {units.significant(answers, 2)} answers per user.",
            "The server is slow for this window, and throughput has no interval.",
            f"Use --duration {seconds}s or more.",
        )


def lengthened(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    asked_s, seconds = trial.plan.duration_s, trial.window.seconds
    is_fixed = trial.plan.longest_s is None and not trial.cell.load.is_open_loop
    if is_fixed and trial.cell.engine is Engine.LOCUST and seconds > LONGER * asked_s:
        yield Finding(
            "window-lengthened",
            Severity.NOTE,
            f"The window lasted {units.significant(seconds, 2)} s, not {units.significant(asked_s, 2)} s.",
            "The server is slow, and a window needs a few answers of each user.",
            "Nothing: throughput is of the longer window.",
        )


def loose(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """Of `--duration auto`, what it reached."""
    reached = half_width_within(trial) if trial.plan.longest_s is not None else None
    if reached is not None and reached > AUTO_WITHIN:
        yield Finding(
            "duration-not-reached",
            Severity.WARNING,
            f"--duration auto reached {units.percent(reached)} of {units.percent(AUTO_WITHIN)} asked after "
            f"{units.significant(trial.window.seconds, 2)} s.",
            "Requests take too different times for throughput to be known better in this time.",
            "Give --duration with a longer time, or more --repeats.",
        )


CHECKS = (too_short, lengthened, loose)
