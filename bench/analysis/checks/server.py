"""Does what the server counted agree with what the client saw?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bench.analysis.capacity_models import little
from bench.analysis.summary import TrialSummary, server_times
from bench.core import units
from bench.core.findings import Finding, Severity
from bench.core.samples import Outcome
from bench.core.trial import Counters, Trial

LITTLE_OFF = 0.02  # beyond what the ends of the window explain; it is an identity but for them
LITTLE_LEAST = 100  # requests: with fewer the ends are all there is
COUNTS_OFF = 0.005  # beyond what is in flight at both ends: the call for the counters takes time too
SMALLER_BATCH = 0.95
SHORTER = 0.98  # client mean over server mean: both are means over slightly different requests
TIMES_LEAST = 50  # requests


def counts(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """Requests, then items, the server's count over the window against ours."""
    counters = trial.counters
    if counters is None or not summary.requests:
        return
    if counters.success_count <= 0:
        yield _stale(counters)
        return
    low, high = _answered(trial)
    in_flight = max(trial.cell.load.concurrency or 0, math.ceil(summary.in_flight_mean), 1)
    # A busy machine takes milliseconds to read the counters, in which requests go on being answered.
    meanwhile = high * counters.uncertain_ns / 1e9 / trial.window.seconds
    slack = 2 * in_flight + COUNTS_OFF * high + meanwhile
    batch, items = trial.cell.load.batch, counters.inference_count
    if not low - slack <= counters.success_count <= high + slack:
        yield _disagree("requests", counters.success_count, low)
    elif items > 0 and not (low - slack) * batch <= items <= (high + slack) * batch:
        yield _disagree("items", items, low * batch)


def _answered(trial: Trial) -> tuple[int, int]:
    """Requests in the window that the server has answered for sure, and those that it may have."""
    outcome = trial.samples.done_in(trial.window).outcome
    sure = np.isin(outcome, (Outcome.OK, Outcome.WRONG_ANSWER))
    maybe = outcome != Outcome.SERVER_ERROR  # it counts those as failures
    return int(sure.sum()), int(maybe.sum())


def _stale(counters: Counters) -> Finding:
    moved = "fell during" if counters.success_count < 0 else "did not move in"
    return Finding(
        "stale-counters",
        Severity.WARNING,
        f"The server's counters {moved} the window, though requests were answered.",
        "The model was reloaded, the server restarted, or another replica answered the call for them.",
        "Server times and batches mean nothing here; repeat the trial against one server.",
    )


def _disagree(what: str, server: int, client: int) -> Finding:
    more = server > client
    return Finding(
        "counts-disagree",
        Severity.INVALID,
        f"The server counted {units.count(server)} {what}, the client {units.count(client)}.",
        "Somebody else uses the model, or answers got lost."
        if more
        else "A response cache answered, or several servers share the address.",
        "Measure one server that nobody else uses, without a response cache.",
    )


def littles_law(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    law = little(trial.samples, trial.window)
    if law.requests >= LITTLE_LEAST and abs(law.off) > LITTLE_OFF + law.edges:
        yield Finding(
            "little",
            Severity.WARNING,
            f"{units.significant(law.in_flight)} requests were in flight on average, by throughput "
            f"times service time it is {units.significant(law.in_flight / (1 + law.off))}.",
            "Samples are missing, the load changed in the window, or a few requests outlasted it.",
            "Look at throughput over time; if it is even, report it as a bug, with the run folder.",
        )


def executed_batch(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    times, asked = server_times(trial.counters), trial.cell.load.batch
    if times and summary.requests and 0 < times.executed_batch_mean < SMALLER_BATCH * asked:
        yield Finding(
            "executed-batch-smaller",
            Severity.WARNING,
            f"{units.significant(times.executed_batch_mean)} items an execution, {asked} a request.",
            "The server splits requests, or another client sends smaller ones.",
            "Look at the model's configuration as served.",
        )


def server_slower(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """Network and client take time, so a request is never shorter for the client than for the server."""
    times = server_times(trial.counters)
    if times is None or summary.requests < TIMES_LEAST or not len(summary.service_ns):
        return
    client_ns, server_ns = float(summary.service_ns.mean()), times.total_ms * 1e6
    if client_ns < SHORTER * server_ns:
        yield Finding(
            "server-slower-than-client",
            Severity.WARNING,
            f"The mean request took {units.duration(server_ns)} by the server's count, "
            f"{units.duration(client_ns)} by the client's.",
            "The two do not count the same requests: another client, or a window full of long ones.",
            "Measure a server that nobody else uses, or lengthen --duration.",
        )


CHECKS = (counts, littles_law, executed_batch, server_slower)
