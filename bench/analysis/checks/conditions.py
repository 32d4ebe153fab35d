"""Were conditions the same through the window: steady figures, and a CPU for who wants one?"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.steadiness import steadiness
from bench.analysis.summary import TrialSummary, mean_of
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

# When tasks wait for a CPU a quarter of the time, it shows in the p99, and soon in the median too.
PRESSURE_PERCENT = 25.0
# On a host that nobody else uses, the hypervisor takes next to nothing away.
STEAL_PERCENT = 2.0


def unsteady(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    result = steadiness(trial.samples, trial.window)
    if result.is_steady is False and result.cut is not None and result.moved is not None:
        moved = f"{abs(result.moved):.0%} {'higher' if result.moved > 0 else 'lower'}"
        yield Finding(
            "unsteady",
            Severity.WARNING,
            f"Not steady: {result.figure} was {moved} after the first {result.cut:.0%} of the window "
            "(found by MSER-5).",
            "Warm-up inside the window, clocks or neighbours that change, or a queue that fills.",
            "Use a longer --warmup, then a longer --duration.",
        )


def cpu_pressure(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    pressure = mean_of(trial, "cpu_pressure_some_percent")
    if pressure is not None and pressure > PRESSURE_PERCENT:
        yield Finding(
            "cpu-pressure",
            Severity.WARNING,
            f"Tasks waited for a CPU {pressure:.0f} % of the time.",
            "The server, the load generator and whatever else runs here share too few cores.",
            "The numbers include CPU contention; run the load generator on another host.",
        )


def cpu_steal(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    steal = mean_of(trial, "cpu_steal_percent")
    if steal is not None and steal > STEAL_PERCENT:
        yield Finding(
            "cpu-steal",
            Severity.WARNING,
            f"The hypervisor took {steal:.1f} % of the CPU away.",
            "Other virtual machines on the same host.",
            "Repeat at another time, or on a machine of your own.",
        )


CHECKS = (unsteady, cpu_pressure, cpu_steal)
