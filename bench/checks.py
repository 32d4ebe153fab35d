"""From a trial to findings: what makes its number mean less than it says, why, and what to do.

INVALID is for numbers that do not mean what they say. Noise of the machine and too few samples are
warnings beside the number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bench.findings import Finding, Severity
from bench.samples import Outcome
from bench.stats import nearest_rank, samples_needed
from bench.steadiness import steadiness
from bench.summary import TrialSummary, judged, server_times, summarize
from bench.trial import Trial

# A worker this busy has no time left to be on time; measured: throughput bends from about 90 %.
CLIENT_BOUND_CPU = 0.90
LATE_NS = 1_000_000  # gevent on a timerfd is late by 0.1-0.2 ms at p99 (benchmarks/pacing.py)
LATE_SHARE = 0.05  # of the p99 response time: less is lost in the number itself
UNDER_DELIVERED = 0.98
LITTLE_OFF = 0.05
PRESSURE_PERCENT = 25.0
STEAL_PERCENT = 2.0
SATURATED_GROWTH = 1.5
# NVML reasons that cost speed: power cap, hardware and software slowdown, thermal; not idle, not app clocks.
THROTTLE_BITS = 0x4 | 0x8 | 0x20 | 0x40 | 0x80

Check = Callable[[Trial, TrialSummary], Iterator[Finding]]


def judge(trial: Trial) -> tuple[Finding, ...]:
    """The engine's own findings, and everything the figures show."""
    summary = summarize(trial)
    found = [finding for check in CHECKS for finding in check(trial, summary)]
    return (*trial.findings, *found)


def _nothing(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests == 0:
        message = next(iter(trial.errors), "")
        why = f"The first error: {message}." if message else "No request ended inside it."
        yield Finding(
            "nothing-measured",
            Severity.INVALID,
            "No request succeeded in the window.",
            why,
            "Lengthen --duration, or look at the server's log.",
        )


def _wrong_answers(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    wrong = int((trial.samples.outcome == Outcome.WRONG_ANSWER).sum())
    if wrong:
        example = next(
            (m for m in trial.errors if "output" in m or "answer" in m), next(iter(trial.errors), "")
        )
        yield Finding(
            "wrong-answers",
            Severity.INVALID,
            f"{wrong} answers are wrong: {example}.",
            "The model is broken, or tensors get lost on the way (numpy >= 2 with Triton 2.51 does).",
            "Compare `bench infer` with the model outside Triton; speed of wrong answers means nothing.",
        )


def _errors(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    failed = summary.errors - int((judged(trial).outcome == Outcome.WRONG_ANSWER).sum())
    if failed > 0 and summary.requests:
        share = failed / (failed + summary.requests)
        example = next(iter(trial.errors), "unfinished when the trial ended")
        yield Finding(
            "errors",
            Severity.WARNING,
            f"{failed} requests failed ({share:.2%}): {example}.",
            "The server refuses, or is too slow for --timeout.",
            "They count as errors and are in no percentile of answered requests; see the server's log.",
        )


def _not_compared(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if summary.requests and not trial.values_checked and trial.engine.get("name") == "locust":
        yield Finding(
            "values-not-compared",
            Severity.NOTE,
            "Shapes and sizes of answers were checked, values not.",
            "No reference can be computed here for this model, or --check is 0.",
            "Compare one answer by hand with `bench infer`.",
        )


def busiest_worker(trial: Trial) -> float:
    """Cores used by the busiest load-generating process, over the window."""
    return max(trial.generator.cpu_s, default=0.0) / trial.window.seconds


def is_client_bound(trial: Trial) -> bool:
    return busiest_worker(trial) > CLIENT_BOUND_CPU


def _client_bound(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    busiest = busiest_worker(trial)
    if is_client_bound(trial) and trial.engine.get("name") == "locust":
        yield Finding(
            "client-bound",
            Severity.INVALID,
            f"A load-generating process used {busiest:.0%} of a core.",
            "The generator is the limit, not the server.",
            "Use --processes auto, or a higher number; or make load from another machine.",
        )


def _late(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop or len(summary.lateness_ns) == 0 or len(summary.latencies_ns) == 0:
        return
    late = nearest_rank(summary.lateness_ns, 99)
    allowed = max(LATE_NS, LATE_SHARE * nearest_rank(summary.latencies_ns, 99))
    if late > allowed:
        yield Finding(
            "late-sends",
            Severity.WARNING,
            f"p99 of send lateness is {late / 1e6:.3g} ms.",
            "Every connection was busy when a request was due, or the generator got no CPU.",
            "Response times include it, as they must; lower --rate, or use --processes auto.",
        )


def _under_delivered(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop:
        return
    due = len(judged(trial))
    sent = summary.sent_per_s * trial.window.seconds
    if due and sent < UNDER_DELIVERED * due and due - sent > 3 * np.sqrt(due):
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{sent:.0f} of {due} due requests were sent in the window.",
            "The server is past its capacity and every connection waits, or the generator is.",
            "Lower --rate: this cell shows an overload, not a service level.",
        )


def _concurrency(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    asked = trial.cell.load.concurrency
    if asked is not None and summary.requests and summary.in_flight_mean < 0.9 * asked:
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{summary.in_flight_mean:.2f} requests were in flight on average, {asked} were asked for.",
            "The generator was slower than the server, or connections failed.",
            "Use --processes auto; see the errors.",
        )


def _saturated(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop or summary.requests < 20:
        return
    thirds = np.array_split(judged(trial).response_ns, 3)
    first, last = np.median(thirds[0]), np.median(thirds[2])
    if last > SATURATED_GROWTH * first and np.median(thirds[1]) > first:
        yield Finding(
            "saturated",
            Severity.WARNING,
            f"The median grew within the window, from {first / 1e6:.3g} to {last / 1e6:.3g} ms.",
            "Requests arrive faster than they are served: the queue grows for as long as this goes on.",
            "Percentiles of this cell depend on --duration; lower --rate.",
        )


def _unsteady(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    found = steadiness(trial.samples, trial.window)
    if found.is_steady is False and found.cut is not None:
        moved = f"; {found.figure} moved by {found.moved:+.0%}" if found.moved is not None else ""
        yield Finding(
            "unsteady",
            Severity.WARNING,
            f"MSER-5 would cut {found.cut:.0%} of the window{moved}.",
            "Warm-up inside the window, clocks or neighbours that change, or a queue that fills.",
            "Lengthen --warmup, then --duration.",
        )


def _too_few(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    n, needed = len(summary.latencies_ns), samples_needed(99)
    if 0 < n < needed:
        seconds = trial.window.seconds * needed / n
        yield Finding(
            "too-few-samples",
            Severity.NOTE,
            f"{n} requests; p99 needs {needed} in a trial.",
            "The window is short for this load.",
            f"--duration {seconds:.0f}s, or more --repeats, would do.",
        )


def _little(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """L = X R, all three measured; ends of the window are worth one request's time."""
    if summary.requests < 100 or len(summary.latencies_ns) == 0 or summary.errors:
        return
    expected = summary.throughput_req_per_s * float(summary.latencies_ns.mean()) / 1e9
    allowed = LITTLE_OFF + 2 * float(summary.latencies_ns.mean()) / 1e9 / trial.window.seconds
    off = summary.in_flight_mean / expected - 1 if expected else 0.0
    if abs(off) > allowed and not trial.cell.load.is_open_loop:
        yield Finding(
            "little",
            Severity.INVALID,
            f"Requests in flight are {off:+.1%} off throughput times latency.",
            "Samples are missing, or clocks disagree.",
            "Report it as a bug, with the run.",
        )


def _counts(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """The server's count of items over the window, against ours; edges may differ by what is in flight."""
    counters, load = trial.counters, trial.cell.load
    if counters is None or not summary.requests:
        return
    if counters.success_count < 0:
        yield Finding(
            "stale-counters",
            Severity.WARNING,
            "The server's counters fell during the window.",
            "The model was reloaded, or the server restarted.",
            "Server times mean nothing here; repeat the trial.",
        )
        return
    wrong = trial.samples.done_in(trial.window)
    ours = summary.requests + int((wrong.outcome == Outcome.WRONG_ANSWER).sum())
    in_flight = max(load.concurrency or 0, int(np.ceil(summary.in_flight_mean)), 1)
    off = counters.success_count - ours
    if abs(off) > 2 * in_flight + 0.005 * ours:
        yield Finding(
            "counts-disagree",
            Severity.INVALID,
            f"The server counted {counters.success_count} requests, the client {ours}.",
            "Somebody else uses the model, several servers share the address, or answers got lost.",
            "Measure a server that nobody else uses.",
        )


def _executed_batch(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    times = server_times(trial.counters)
    if times and summary.requests and times.executed_batch_mean < 0.95 * trial.cell.load.batch:
        yield Finding(
            "executed-batch-smaller",
            Severity.WARNING,
            f"Executions had {times.executed_batch_mean:.2f} items, requests {trial.cell.load.batch}.",
            "The server splits batches, or another client sends smaller ones.",
            "Look at the model's configuration as served.",
        )


def _server_slower(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    times = server_times(trial.counters)
    if times is None or summary.requests < 50 or len(summary.service_ns) == 0:
        return
    client_ms = float(summary.service_ns.mean()) / 1e6
    if client_ms < 0.98 * times.total_ms:
        yield Finding(
            "server-slower-than-client",
            Severity.WARNING,
            f"The server's mean request took {times.total_ms:.3g} ms, the client's {client_ms:.3g} ms.",
            "The two do not count the same requests.",
            "Measure a server that nobody else uses.",
        )


def _machine(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
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
    for name, rows in trial.machine.items():
        bits = (
            sum({int(value) & THROTTLE_BITS for _, value in rows}) if name.endswith("throttle_reasons") else 0
        )
        if bits:
            yield Finding(
                "gpu-throttled",
                Severity.WARNING,
                f"{name.partition('_')[0]} was throttled (NVML reasons {bits:#x}).",
                "Heat, or the power limit.",
                "Let it cool, or take it as what it does under load.",
            )


def _lost(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    if trial.generator.lost_workers:
        yield Finding(
            "worker-lost",
            Severity.INVALID,
            f"{trial.generator.lost_workers} load processes were lost.",
            "They were killed, or ran out of memory.",
            "Their share of the load is missing; repeat the cell.",
        )


def mean_of(trial: Trial, series: str) -> float | None:
    """Mean of a machine series inside the window; None where the sensor gave nothing there."""
    window = trial.window
    values = [v for at_ns, v in trial.machine.get(series, ()) if window.start_ns <= at_ns < window.end_ns]
    return float(np.mean(values)) if values else None


CHECKS: tuple[Check, ...] = (
    _lost,
    _nothing,
    _wrong_answers,
    _errors,
    _client_bound,
    _under_delivered,
    _concurrency,
    _late,
    _counts,
    _little,
    _saturated,
    _unsteady,
    _executed_batch,
    _server_slower,
    _machine,
    _too_few,
    _not_compared,
)
