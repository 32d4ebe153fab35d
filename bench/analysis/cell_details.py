"""What a cell's own page shows: its trials over time, its tail, and what was found in them.

Bounded in size whatever the number of samples: bins for time, a fixed ladder for percentiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.aggregate import MeasuredTrial
from bench.analysis.stats import nearest_rank, samples_needed
from bench.core.findings import Severity
from bench.core.samples import Outcome, Samples
from bench.core.trial import Trial

# A run of up to so many trials shows each of them over time; a larger one shows one trial of each cell.
MOST_SERIES = 60
# All time series of a run together have at most so many numbers: about 400 kB of a page.
MOST_NUMBERS = 75_000
# A time series has at most so many bins, and where there is room at least so many.
MOST_BINS, FEWEST_BINS = 60, 10
# A trial of few requests is still drawn in this many bins.
_LEAST_BINS = 12
# With fewer requests in a bin than this on average, a rate over time is noise.
_A_BIN = 8
# Seven lines over time show the load: asked, sent, done, errors, in flight, median and p99.
_LOAD_LINES = 7
# The steps of the tail, as 1 / (1 - p): 1 is the fastest request, 2 the median, 100 is p99, 1000 is p99.9.
STEPS = tuple(m * 10**e for e in range(6) for m in (1, 1.5, 2, 3, 5, 7))
# These series of sensors are counters or bit masks: a line over time would not show anything.
_NOT_SHOWN = ("throttle_reasons", "energy_j", "processes")

Floats = NDArray[np.float64]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CellDetail:
    """JSON in its fields: the page embeds it."""

    ladder: Json  # as `ladder`
    series: tuple[Json, ...]  # as `time_series`, with `repeat`
    findings: tuple[Json, ...]  # each finding once, with `repeats` that have it; the most severe first
    errors: Mapping[str, int]  # the 20 most frequent messages
    engine: Mapping[str, str]
    repeats: int


@dataclass(frozen=True, slots=True)
class SeriesBudget:
    """How much of a run is drawn over time, so that its page stays small."""

    every_trial: bool  # else the trial of median throughput of each cell
    series: int  # how many there will be: they share the room

    @classmethod
    def of(cls, trial_counts: Sequence[int]) -> SeriesBudget:
        """`trial_counts`: of each measured cell."""
        trials = sum(trial_counts)
        every = trials <= MOST_SERIES
        return cls(every, trials if every else len(trial_counts))

    def bins(self, lines: int) -> int:
        """For a series of so many lines."""
        return max(FEWEST_BINS, min(MOST_BINS, MOST_NUMBERS // (lines * self.series)))


def detail(measured: Sequence[MeasuredTrial], budget: SeriesBudget) -> CellDetail:
    """What is shown of one cell. `measured`: all its trials, at least one."""
    trials, summaries = [one.trial for one in measured], [one.summary for one in measured]
    response = np.sort(np.concatenate([s.latencies_ns for s in summaries]))
    service = np.sort(np.concatenate([s.service_ns for s in summaries]))
    shown = trials if budget.every_trial else [trials[median_trial(measured)]]
    kinds = max(len(trial.samples.failures()) for trial in trials)
    bins = budget.bins(_LOAD_LINES + kinds + len(trials[0].machine))
    return CellDetail(
        ladder=ladder(response, service),
        series=tuple({"repeat": trial.plan.repeat, **time_series(trial, bins)} for trial in shown),
        findings=tuple(_findings(measured)),
        errors=_errors(trials),
        engine=dict(trials[0].engine),
        repeats=len(trials),
    )


def median_trial(measured: Sequence[MeasuredTrial]) -> int:
    """The position of the trial whose throughput is in the middle."""
    rates = [one.summary.throughput_req_per_s for one in measured]
    return int(np.argsort(rates)[len(rates) // 2])


def ladder(response_ns: NDArray[np.int64], service_ns: NDArray[np.int64]) -> Json:
    """Response and service time in ms up the percentiles; `carried`: how many steps n is enough for."""
    n = len(response_ns)
    steps = [step for step in STEPS if step <= n]
    percents = [100 * (1 - 1 / Fraction(str(step))) for step in steps]
    return {
        "n": n,
        "steps": steps,
        "response_ms": [_short(nearest_rank(response_ns, p) / 1e6) for p in percents],
        # Requests that were never sent have no service time: there may be none at all.
        "service_ms": [
            _short(nearest_rank(service_ns, p) / 1e6) if len(service_ns) else None for p in percents
        ],
        "carried": sum(n >= samples_needed(float(p)) for p in percents),
    }


def time_series(trial: Trial, bins: int = MOST_BINS) -> Json:
    """Columns over at most `bins` of equal width, seconds since the trial's start; None: an empty one."""
    samples, window = trial.samples, trial.window
    if not len(samples):
        return {"t": [], "window": [0, window.seconds], "lines": {}}
    start = int(min(samples.intended_ns.min(), window.start_ns))
    end = int(max(np.quantile(samples.done_ns, 0.999), window.end_ns)) + 1
    bins = max(min(bins, _LEAST_BINS), min(bins, len(samples) // _A_BIN))
    edges = np.linspace(start, end, bins + 1)
    width_s = (end - start) / bins / 1e9
    lines = {**_load_lines(samples, edges, width_s), **_machine_lines(trial, edges)}
    return {
        "t": _shorts((edges[:-1] + edges[1:]) / 2e9 - start / 1e9),
        "window": [_short((window.start_ns - start) / 1e9), _short((window.end_ns - start) / 1e9)],
        "lines": {name: _shorts(values) for name, values in lines.items()},
    }


def _load_lines(samples: Samples, edges: Floats, width_s: float) -> dict[str, Floats]:
    good, failed = samples.good(), samples.failed()
    begun = np.searchsorted(np.sort(samples.intended_ns), edges[:-1])
    ended = np.searchsorted(np.sort(samples.done_ns), edges[:-1])
    p50, p99 = _percentiles(good, edges)
    return {
        "asked_per_s": _counts(samples.intended_ns, edges) / width_s,
        "sent_per_s": _counts(samples.sent_ns, edges) / width_s,
        "done_per_s": _counts(good.done_ns, edges) / width_s,
        "errors_per_s": _counts(failed.done_ns, edges) / width_s,
        **{
            errors_line(kind): _counts(failed.done_ns[failed.outcome == kind], edges) / width_s
            for kind in failed.failures()
        },
        "in_flight": (begun - ended).astype(np.float64),
        "p50_ms": p50,
        "p99_ms": p99,
    }


def errors_line(kind: Outcome) -> str:
    """The name of the line of one kind of failure."""
    return f"errors_{kind.name.lower()}_per_s"


def _counts(at_ns: NDArray[np.int64], edges: Floats) -> Floats:
    return np.histogram(at_ns, edges)[0].astype(np.float64)


def _percentiles(good: Samples, edges: Floats) -> tuple[Floats, Floats]:
    """Median and p99 of the requests that ended in each bin (with few of them, p99 is the slowest)."""
    order = np.argsort(good.done_ns, kind="stable")
    cuts = np.searchsorted(good.done_ns[order], edges)
    taken = good.response_ns[order]
    percentiles_ms = np.full((2, len(edges) - 1), np.nan)
    for i, (low, high) in enumerate(itertools.pairwise(cuts)):
        if high > low:
            part = np.sort(taken[low:high])
            percentiles_ms[:, i] = nearest_rank(part, 50) / 1e6, nearest_rank(part, 99) / 1e6
    return percentiles_ms[0], percentiles_ms[1]


def _machine_lines(trial: Trial, edges: Floats) -> dict[str, Floats]:
    lines: dict[str, Floats] = {}
    for name, rows in trial.machine.items():
        if not rows or name.endswith(_NOT_SHOWN):
            continue
        at, values = np.array(rows, dtype=np.float64).T
        where = np.searchsorted(edges, at, side="right") - 1
        inside = (where >= 0) & (where < len(edges) - 1)
        sums = np.bincount(where[inside], values[inside], minlength=len(edges) - 1)
        counts = np.bincount(where[inside], minlength=len(edges) - 1)
        lines[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return lines


def _findings(measured: Sequence[MeasuredTrial]) -> list[Json]:
    by_code: dict[tuple[Severity, str], Json] = {}
    for one in measured:
        for finding in one.findings:
            entry = by_code.setdefault((finding.severity, finding.code), {**asdict(finding), "repeats": []})
            entry["repeats"].append(one.trial.plan.repeat)
    order = list(Severity)
    return [by_code[key] for key in sorted(by_code, key=lambda key: order.index(key[0]))]


def _errors(trials: Sequence[Trial]) -> Mapping[str, int]:
    total: dict[str, int] = {}
    for trial in trials:
        for message, count in trial.errors.items():
            total[message] = total.get(message, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1])[:20])


def _short(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


def _shorts(values: Floats) -> list[float | None]:
    return [_short(float(value)) for value in values]
