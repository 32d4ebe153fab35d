"""Does what the server counted agree with what the client saw?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bench.analysis.believable import are_possible
from bench.analysis.capacity_models import little
from bench.analysis.summary import TrialSummary, server_times
from bench.core import units
from bench.core.findings import Finding, Severity
from bench.core.samples import Outcome
from bench.core.trial import Trial

# Little's law is exact but for requests that cross an end of the window; beyond what those explain, and this
# share, samples are missing.
LITTLE_OFF = 0.02
# With fewer requests than this, those that cross an end of the window are most of them.
LITTLE_LEAST = 100
# Counts of server and client may differ by what is in flight at both ends of the window, and by this share.
COUNTS_OFF = 0.005
# Executions smaller than this share of the client's batch mean that requests were split.
SMALLER_BATCH = 0.95
# Client and server take means over slightly different requests, so the client's may be this little shorter.
SHORTER = 0.98
# Means of fewer requests than this say too little to be compared.
TIMES_LEAST = 50


def counts(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """Requests, then items, the server's count over the window against ours."""
    counters = trial.counters
    if counters is None or not summary.requests:
        return
    if counters.success_count == 0:
        yield _stale("did not move in")
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
    # It never saw what failed for a limit of ours. Errors of the Python backend it counts as successes.
    maybe = outcome != Outcome.CLIENT
    return int(sure.sum()), int(maybe.sum())


def impossible(trial: Trial) -> Iterator[Finding]:
    """Of the trial as it was recorded: no other check sees counters that cannot be."""
    if trial.counters is not None and not are_possible(trial.counters):
        yield _stale("fell during")


def _stale(moved: str) -> Finding:
    return Finding(
        "stale-counters",
        Severity.WARNING,
        f"The server's counters {moved} the window, although requests were answered.",
        "The model was reloaded, the server restarted, or another replica answered the call for them.",
        "Ignore server times and batches here; repeat the trial against one server.",
    )


def _disagree(what: str, server: int, client: int) -> Finding:
    more = server > client
    return Finding(
        "counts-disagree",
        Severity.INVALID,
        f"The server counted {units.count(server)} {what}, the client {units.count(client)}.",
        "Another client uses the model, or answers were lost."
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
            f"Little's law does not hold: {units.significant(law.in_flight)} requests in flight measured, "
            f"{units.significant(law.in_flight / (1 + law.off))} expected from throughput x service time.",
            "Samples are missing, the load changed in the window, or a few requests outlasted it.",
            "Look at throughput over time; if it is even, report it as a bug, with the run folder.",
        )


def executed_batch(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    times, asked = server_times(trial.counters), trial.cell.load.batch
    if times and summary.requests and 0 < times.executed_batch_mean < SMALLER_BATCH * asked:
        yield Finding(
            "executed-batch-smaller",
            Severity.WARNING,
            f"The server executed {units.significant(times.executed_batch_mean)} items at a time, a request "
            f"has {asked}.",
            "The server splits requests, or another client sends smaller ones.",
            "Look at the model's configuration as it is served.",
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
