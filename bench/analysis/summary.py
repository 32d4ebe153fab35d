"""A trial in figures, from its samples and counters.

Throughput in a closed loop credits each request with the share of its time in flight that lies in the
window. A whole count would be wrong by up to a request a user, and in the same direction in every repeat,
because all windows open at about the same point of the load. An open loop counts completions: under an
overload requests wait ever longer, and shares would credit the window with work that is done after it.

Latency is of requests done in the window in a closed loop; in an open loop of requests due in it, whenever
they ended. A request that got no answer in time took at least as long as it was waited for: until its
timeout, or until the trial's end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.analysis.distributions import student_t_quantile
from bench.analysis.stats import CONFIDENCE
from bench.core.samples import Float64, Int64, Outcome, Samples
from bench.core.slo import Slo
from bench.core.trial import Counters, Trial

# Stamps of requests and of the window's ends are right within this time: what a process needs to wake up.
STAMP_S = 1e-4
# The credit of a window is looked at so many times; a prime, lest it beat with the load.
_LOOKS = 503
# How much the rate of a single trial varies is told by so many equal spans of its window.
_SPANS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """Figures of one trial. The arrays are sorted, so that percentiles can be read off them.

    `latencies_ns`: response times of the requests answered right, and of those without an answer in time as
    long as they were waited for. `in_order_ns` are the same in the order in which the requests were due.
    """

    requests: int  # answered right
    errors: int
    asked: int  # the requests whose latency the trial is about, failed ones among them
    throughput_req_per_s: float
    throughput_img_per_s: float
    edges_img_per_s: float  # what the two ends of the window may be worth
    latencies_ns: Int64
    in_order_ns: Int64
    waited_ns: int | None  # the shortest wait without an answer, beyond which latencies are bounds
    service_ns: Int64  # of the answered ones: a request that was never sent has none
    lateness_ns: Int64  # of all
    sent_per_s: float
    in_flight_mean: float
    goodput_img_per_s: float | None
    failures: Mapping[Outcome, int]  # of `errors`: how many of each kind


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """Means per request, from counters; every request of a batch is charged the batch's time."""

    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    total_ms: float
    executed_batch_mean: float


def summarize(trial: Trial, slo: Slo | None = None) -> TrialSummary:
    """Compute the figures of a trial in one pass over its samples. `slo`: what goodput counts by."""
    done = trial.samples.done_in(trial.window)
    asked = measured_requests(trial)
    timed = with_latency(asked)
    unanswered = timed.failed().response_ns
    per_s = throughput_req_per_s(trial)
    batch = trial.cell.load.batch
    return TrialSummary(
        requests=len(done.good()),
        errors=len(asked.failed()),
        asked=len(asked),
        throughput_req_per_s=per_s,
        throughput_img_per_s=per_s * batch,
        edges_img_per_s=edges_req_per_s(trial, per_s) * batch,
        latencies_ns=np.sort(timed.response_ns),
        in_order_ns=in_order_ns(timed),
        waited_ns=int(unanswered.min()) if len(unanswered) else None,
        service_ns=np.sort(asked.good().service_ns),
        lateness_ns=np.sort(asked.lateness_ns),
        sent_per_s=_sent_in(trial) / trial.window.seconds,
        in_flight_mean=in_flight_mean(trial),
        goodput_img_per_s=_goodput(trial, slo) * batch if slo else None,
        failures=asked.failures(),
    )


def throughput_req_per_s(trial: Trial) -> float:
    """Requests a second that were answered right: the one definition of throughput."""
    return float(credits_of(trial)[trial.samples.outcome == Outcome.OK].sum()) / trial.window.seconds


def credits_of(trial: Trial) -> Float64:
    """What each request of the trial counts in the window, from 0 to 1, shape (n,).

    In a closed loop the share of its time in flight that lies in the window; in an open loop 1 for a request
    done in the window. A request that took no time counts where it ended.
    """
    samples, window = trial.samples, trial.window
    ended = (samples.done_ns >= window.start_ns) & (samples.done_ns < window.end_ns)
    if trial.cell.load.is_open_loop:
        return ended.astype(np.float64)
    start_ns = np.maximum(samples.sent_ns, window.start_ns)
    inside_ns = np.maximum(np.minimum(samples.done_ns, window.end_ns) - start_ns, 0)
    took_ns = samples.service_ns
    return np.where(took_ns > 0, inside_ns / np.maximum(took_ns, 1), ended)


def half_width_within(trial: Trial) -> float | None:
    """Of the 95 % interval of throughput by this trial alone, as a share of it; None without right answers.

    Student's t over ten spans of the window, whose requests are nearly independent where each holds many.
    """
    edges_ns = np.linspace(trial.window.start_ns, trial.window.end_ns, _SPANS + 1)
    rates = np.diff(_credit_by(trial, edges_ns))
    if rates.mean() <= 0:
        return None
    error = float(rates.std(ddof=1)) / math.sqrt(_SPANS)
    return student_t_quantile((1 + CONFIDENCE) / 2, _SPANS - 1) * error / float(rates.mean())


def answers_per_user(trial: Trial) -> float | None:
    """How many requests of each user the window holds, however they ended; None in an open loop."""
    users = trial.cell.load.concurrency
    return None if users is None else float(credits_of(trial).sum()) / users


def edges_req_per_s(trial: Trial, per_s: float) -> float:
    """The standard error that the window's ends cause, which repeats that agree do not show.

    The credit that has come in by a time runs now ahead of its mean rate and now behind it. A window that
    opens or closes elsewhere gains or loses this much at each of its two ends. Windows that open in phase
    with the load have the same ends in every repeat. Time stamps are right to `STAMP_S`.
    """
    at_ns = np.linspace(trial.window.start_ns, trial.window.end_ns, _LOOKS)
    come_in = _credit_by(trial, at_ns)
    ahead = come_in - np.linspace(0, come_in[-1], _LOOKS)
    return math.hypot(math.sqrt(2) * float(ahead.std()), 2 * STAMP_S * per_s) / trial.window.seconds


def _credit_by(trial: Trial, at_ns: Float64) -> Float64:
    """The credit of right answers from the first to each of these times, shape as `at_ns`."""
    good = trial.samples.good().where(credits_of(trial)[trial.samples.outcome == Outcome.OK] > 0)
    if trial.cell.load.is_open_loop or not len(good):
        return np.searchsorted(np.sort(good.done_ns), at_ns).astype(np.float64)
    per_ns = 1 / np.maximum(good.service_ns, 1)
    event_ns = np.concatenate([good.sent_ns, good.done_ns])
    order = np.argsort(event_ns, kind="stable")
    event_ns = event_ns[order]
    rate = np.cumsum(np.concatenate([per_ns, -per_ns])[order])
    credit = np.concatenate([[0.0], np.cumsum(rate[:-1] * np.diff(event_ns))])
    by: Float64 = np.interp(at_ns, event_ns, credit) - np.interp(at_ns[0], event_ns, credit)
    return by


def measured_requests(trial: Trial) -> Samples:
    """The requests whose latency the trial is about."""
    if trial.cell.load.is_open_loop:
        return trial.samples.intended_in(trial.window)
    return trial.samples.done_in(trial.window)


def with_latency(asked: Samples) -> Samples:
    """The requests that percentiles are of: answered right, or without an answer in time.

    One that failed at once says nothing of how long an answer takes.
    """
    return asked.where(np.isin(asked.outcome, (Outcome.OK, Outcome.TIMEOUT, Outcome.UNFINISHED)))


def in_order_ns(requests: Samples) -> Int64:
    """Response times in the order in which the requests were due."""
    return requests.response_ns[np.argsort(requests.intended_ns, kind="stable")]


def in_flight_mean(trial: Trial) -> float:
    """Time average of requests between intended and done, over the window."""
    window, samples = trial.window, trial.samples
    start = np.maximum(samples.intended_ns, window.start_ns)
    end = np.minimum(samples.done_ns, window.end_ns)
    return float(np.maximum(end - start, 0).sum() / (window.end_ns - window.start_ns))


def _sent_in(trial: Trial) -> int:
    sent = trial.samples.sent_ns
    return int(((sent >= trial.window.start_ns) & (sent < trial.window.end_ns)).sum())


def _goodput(trial: Trial, slo: Slo) -> float:
    """Requests a second answered right and within the bound of the SLO's highest percentile: the deadline.

    In an open loop of the requests due in the window, whenever they ended.
    """
    _, deadline_ns = max(slo.latencies)
    if trial.cell.load.is_open_loop:
        good = measured_requests(trial).good()
        return int((good.response_ns <= deadline_ns).sum()) / trial.window.seconds
    in_time = (trial.samples.outcome == Outcome.OK) & (trial.samples.response_ns <= deadline_ns)
    return float(credits_of(trial)[in_time].sum()) / trial.window.seconds


def server_times(counters: Counters | None) -> ServerTimes | None:
    """None where the server does not tell, or counted nothing."""
    if counters is None or counters.success_count <= 0:
        return None
    n = counters.success_count * 1e6
    return ServerTimes(
        queue_ms=counters.queue_ns / n,
        compute_input_ms=counters.compute_input_ns / n,
        compute_infer_ms=counters.compute_infer_ns / n,
        compute_output_ms=counters.compute_output_ns / n,
        total_ms=counters.success_ns / n,
        executed_batch_mean=counters.inference_count / max(1, counters.execution_count),
    )


def mean_of(trial: Trial, series: str) -> float | None:
    """Mean of a machine series inside the window; None where the sensor gave nothing there."""
    values = readings(trial, series)
    return float(np.mean(values)) if values else None


def readings(trial: Trial, series: str) -> list[float]:
    """Values of a machine series inside the window."""
    window = trial.window
    return [v for at_ns, v in trial.machine.get(series, ()) if window.start_ns <= at_ns < window.end_ns]
