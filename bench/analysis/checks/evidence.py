"""Is there enough to judge by: samples for the percentile, answers compared with right ones?"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.stats import samples_needed
from bench.analysis.summary import TrialSummary
from bench.core import units
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

# A trial should have enough samples for this percentile.
PERCENTILE = 99.0


def too_few_samples(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    n, needed = len(summary.latencies_ns), samples_needed(PERCENTILE)
    if 0 < n < needed:
        seconds = units.significant(trial.window.seconds * needed / n, 2)
        yield Finding(
            "too-few-samples",
            Severity.WARNING,
            f"{units.plural(n, 'request')} in the trial; p{PERCENTILE:g} needs {needed}.",
            "The window is short for this load.",
            f"Use --duration {seconds}s or more (more --repeats give more samples to the p{PERCENTILE:g} of "
            "all repeats, but not to that of each).",
        )


def values_not_compared(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests and not trial.values_checked and trial.cell.engine is Engine.LOCUST:
        yield Finding(
            "values-not-compared",
            Severity.NOTE,
            "Shapes and sizes of answers were checked, values were not.",
            "--check is 0." if trial.reference else "No reference can be computed here for this model.",
            "Compare one answer by hand with `bench infer`.",
        )


CHECKS = (too_few_samples, values_not_compared)
