"""A trial in figures, from its samples and counters.

Throughput counts completions inside the window. Latency is of requests done in the window in a closed
loop; in an open loop of requests due in it, whenever they ended. A request that got no answer in time took at
least as long as it was waited for: until its timeout, or until the trial's end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.core.samples import Int64, Outcome, Samples
from bench.core.slo import Slo
from bench.core.trial import Counters, Trial


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
    latencies_ns: Int64
    in_order_ns: Int64
    waited_ns: int | None  # the shortest wait without an answer, beyond which latencies are bounds
    service_ns: Int64  # of the answered ones: a request that was never sent has none
    lateness_ns: Int64  # of all
    sent_per_s: float
    in_flight_mean: float
    goodput_img_per_s: float | None


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
    per_s = len(done.good()) / trial.window.seconds
    batch = trial.cell.load.batch
    return TrialSummary(
        requests=len(done.good()),
        errors=len(asked.failed()),
        asked=len(asked),
        throughput_req_per_s=per_s,
        throughput_img_per_s=per_s * batch,
        latencies_ns=np.sort(timed.response_ns),
        in_order_ns=in_order_ns(timed),
        waited_ns=int(unanswered.min()) if len(unanswered) else None,
        service_ns=np.sort(asked.good().service_ns),
        lateness_ns=np.sort(asked.lateness_ns),
        sent_per_s=_sent_in(trial) / trial.window.seconds,
        in_flight_mean=in_flight_mean(trial),
        goodput_img_per_s=_goodput(asked, slo, trial) * batch if slo else None,
    )


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


def _goodput(asked: Samples, slo: Slo, trial: Trial) -> float:
    """Requests a second answered right and within the bound of the SLO's highest percentile: the deadline."""
    _, deadline_ns = max(slo.latencies)
    return int((asked.good().response_ns <= deadline_ns).sum()) / trial.window.seconds


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
