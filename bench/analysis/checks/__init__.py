"""From a trial to findings: what makes its number mean less than it says, why, and what to do.

INVALID is for numbers that do not mean what they say: wrong answers, a load that was not delivered,
counts that disagree, a generator at its limit. Noise of the machine and too few samples are warnings
beside the number, and fail nothing by themselves.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from itertools import zip_longest

import numpy as np

from bench.analysis.checks import gpu, pods, server
from bench.analysis.checks import load as load_checks
from bench.analysis.stats import samples_needed
from bench.analysis.steadiness import steadiness
from bench.analysis.summary import TrialSummary, judged, summarize
from bench.core import units
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity
from bench.core.samples import Outcome
from bench.core.trial import Trial

# A worker that sleeps less than a tenth of the time does not wait for the server: it is what is measured.
# One that mostly waits for a core tells of the machine, and not of itself.
AWAKE, COMPUTING = 0.90, 0.75
PRESSURE_PERCENT = 25.0  # a quarter of the time somebody waited: shows in p99, and soon in p50
STEAL_PERCENT = 2.0  # a host with nobody else on it shows next to nothing
THROTTLED_SHARE = 0.05  # of the readings: a single one at the start of a load is how clocks are raised
# NVML reasons that cost speed; idle, application clocks and display clocks are none.
THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
PERCENTILE = 99.0  # the one that a trial should have samples for

Check = Callable[[Trial, TrialSummary], Iterator[Finding]]


def judge(trial: Trial) -> tuple[Finding, ...]:
    """The engine's own findings, and everything the figures show."""
    summary = summarize(trial)
    found = [finding for check in CHECKS for finding in check(trial, summary)]
    return (*trial.findings, *found)


def busiest_worker(trial: Trial) -> float:
    """Cores used by the busiest load-generating process, over the window."""
    return max(trial.generator.cpu_s, default=0.0) / trial.window.seconds


def is_client_bound(trial: Trial) -> bool:
    """Whether a load-generating process had next to no time left, waiting for a core counted as no time."""
    seconds = trial.window.seconds
    spent = zip_longest(trial.generator.cpu_s, trial.generator.waited_s, fillvalue=0.0)
    return any(cpu > COMPUTING * seconds and cpu + waited > AWAKE * seconds for cpu, waited in spent)


def mean_of(trial: Trial, series: str) -> float | None:
    """Mean of a machine series inside the window; None where the sensor gave nothing there."""
    values = _readings(trial, series)
    return float(np.mean(values)) if values else None


def _readings(trial: Trial, series: str) -> list[float]:
    window = trial.window
    return [v for at_ns, v in trial.machine.get(series, ()) if window.start_ns <= at_ns < window.end_ns]


def _nothing(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests == 0:
        message = next(iter(trial.errors), "")
        yield Finding(
            "nothing-measured",
            Severity.INVALID,
            "No request succeeded in the window.",
            f"The first error: {message}." if message else "No request ended inside it.",
            "Lengthen --duration, or look at the server's log.",
        )


def _wrong_answers(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    wrong = int((trial.samples.outcome == Outcome.WRONG_ANSWER).sum())
    if wrong:
        named = [message for message in trial.errors if "output" in message or "answer" in message]
        example = next(iter([*named, *trial.errors]), "")
        yield Finding(
            "wrong-answers",
            Severity.INVALID,
            f"{units.plural(wrong, 'answer')} came back wrong{f': {example}' if example else ''}.",
            "The model is broken, or tensors get lost on the way (numpy >= 2 with Triton 2.51 does that).",
            "Compare `bench infer` with the model outside Triton; the speed of wrong answers means nothing.",
        )


def _errors(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    failed = summary.errors - int((judged(trial).outcome == Outcome.WRONG_ANSWER).sum())
    if failed > 0 and summary.requests:
        example = next(iter(trial.errors), "unfinished when the trial ended")
        yield Finding(
            "errors",
            Severity.WARNING,
            f"{units.plural(failed, 'request')} failed "
            f"({units.percent(failed / (failed + summary.requests))}): {example}.",
            "The server refuses, or is too slow for --timeout.",
            "They are in no percentile of answered requests; an SLO counts them. See the server's log.",
        )


def _not_compared(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests and not trial.values_checked and trial.cell.engine is Engine.LOCUST:
        yield Finding(
            "values-not-compared",
            Severity.NOTE,
            "Shapes and sizes of answers were checked, values not.",
            "--check is 0." if trial.reference else "No reference can be computed here for this model.",
            "Compare one answer by hand with `bench infer`.",
        )


def _client_bound(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    if is_client_bound(trial) and trial.cell.engine is Engine.LOCUST:
        yield Finding(
            "client-bound",
            Severity.INVALID,
            f"A load generator used {units.percent(busiest_worker(trial))} of a core, and never slept.",
            "The generator is the limit, not the server.",
            "Use --processes auto, or a higher number; or make load from another machine.",
        )


def _unsteady(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    found = steadiness(trial.samples, trial.window)
    if found.is_steady is False and found.cut is not None and found.moved is not None:
        yield Finding(
            "unsteady",
            Severity.WARNING,
            f"MSER-5 would cut the first {found.cut:.0%} of the window: "
            f"after it {found.figure} is {found.moved:+.0%}.",
            "Warm-up inside the window, clocks or neighbours that change, or a queue that fills.",
            "Lengthen --warmup, then --duration.",
        )


def _too_few(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    n, needed = len(summary.latencies_ns), samples_needed(PERCENTILE)
    if 0 < n < needed:
        seconds = units.significant(trial.window.seconds * needed / n, 2)
        yield Finding(
            "too-few-samples",
            Severity.WARNING,
            f"{units.plural(n, 'request')} in the trial; p{PERCENTILE:g} needs {needed}.",
            "The window is short for this load.",
            f"About --duration {seconds}s would do; more --repeats fill the pooled percentile only.",
        )


def _cpu(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    pressure, steal = mean_of(trial, "cpu_pressure_some_percent"), mean_of(trial, "cpu_steal_percent")
    if pressure is not None and pressure > PRESSURE_PERCENT:
        yield Finding(
            "cpu-pressure",
            Severity.WARNING,
            f"Tasks waited for a CPU {pressure:.0f} % of the time.",
            "Server, load and whatever else runs here share too few cores.",
            "Figures are of this machine as busy as it was; measure from another host to tell them apart.",
        )
    if steal is not None and steal > STEAL_PERCENT:
        yield Finding(
            "cpu-steal",
            Severity.WARNING,
            f"The hypervisor took {steal:.1f} % of the CPU away.",
            "Neighbours on the same host.",
            "Repeat at another time, or on a machine of your own.",
        )


def _gpu(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    mask = functools.reduce(operator.or_, THROTTLING)
    for name in trial.machine:
        readings = [int(v) & mask for v in _readings(trial, name)] if "_throttle_reasons" in name else []
        held = [bits for bits in readings if bits]
        if readings and len(held) > THROTTLED_SHARE * len(readings):
            reasons = [why for bit, why in THROTTLING.items() if any(bits & bit for bits in held)]
            yield Finding(
                "gpu-throttled",
                Severity.WARNING,
                f"{name.partition('_')[0]} was throttled {len(held) / len(readings):.0%} of the time.",
                f"NVML's reasons: {', '.join(reasons)}.",
                "Let it cool or raise its limit; or take it as what the card does under this load.",
            )


CHECKS: tuple[Check, ...] = (
    _nothing,
    _wrong_answers,
    _errors,
    _client_bound,
    *load_checks.CHECKS,
    *server.CHECKS,
    *pods.CHECKS,
    _unsteady,
    _cpu,
    _gpu,
    *gpu.CHECKS,
    _too_few,
    _not_compared,
)
