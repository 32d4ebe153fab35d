"""Was the load that was asked for really made, and was it one the server could stand?"""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.stats import nearest_rank
from bench.analysis.steadiness import backlog
from bench.analysis.summary import TrialSummary, judged
from bench.core import units
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

# What is due is known to the request, so no noise has to be allowed for: 2 % is what a table rounds away.
LEAST_DELIVERED = 0.98
LEAST_MISSING = 3  # requests due just before the window's end and sent just after it
LEAST_IN_FLIGHT = 0.90  # of the concurrency: a lone user of a fast server spends some time in the client
MOST_LATE_NS = 1_000_000  # the goal of benchmarks/pacing.py for an otherwise idle core
MOST_LATE_SHARE = 0.05  # of the p99 response time: less is lost in the number itself


def lost_workers(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    lost = trial.generator.lost_workers
    if lost:
        yield Finding(
            "worker-lost",
            Severity.INVALID,
            f"{lost} of {units.plural(trial.generator.workers, 'worker')} did not report.",
            "It was killed, ran out of memory, or hung: its requests are missing.",
            "Repeat the cell; look at the workers' log and at the machine's memory.",
        )


def missing_arrivals(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """Planned = sent + unfinished, to the request."""
    planned, rows = trial.planned, len(trial.samples)
    ours = trial.cell.engine is Engine.LOCUST and not trial.generator.lost_workers
    if ours and planned is not None and planned != rows:
        yield Finding(
            "arrivals-missing",
            Severity.INVALID,
            f"{units.plural(planned, 'request')} were planned, {units.count(rows)} are accounted for.",
            "The load generator lost or invented requests.",
            "Report it as a bug, with the run folder.",
        )


def under_delivered(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop:
        return
    due, sent = len(judged(trial)), round(summary.sent_per_s * trial.window.seconds)
    if sent < LEAST_DELIVERED * due and due - sent > LEAST_MISSING:
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{units.count(sent)} of {units.plural(due, 'request')} due in the window were sent in it.",
            "Every connection waits for a server past its capacity, or the generator is at its own.",
            "Lower --rate: this is an overload, not a service level. If client-bound too: --processes auto.",
        )


def low_concurrency(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    asked = trial.cell.load.concurrency
    if asked is not None and summary.requests and summary.in_flight_mean < LEAST_IN_FLIGHT * asked:
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{units.significant(summary.in_flight_mean)} requests were in flight on average, {asked} asked.",
            "Between two requests the generator took more than a tenth of the time, or connections failed.",
            "Use --processes auto or a higher --batch; look at the errors.",
        )


def late_sends(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop or not len(summary.lateness_ns) or not len(summary.latencies_ns):
        return
    late, response = nearest_rank(summary.lateness_ns, 99), nearest_rank(summary.latencies_ns, 99)
    if late > max(MOST_LATE_NS, MOST_LATE_SHARE * response):
        yield Finding(
            "late-sends",
            Severity.WARNING,
            f"p99 of send lateness is {units.duration(late)}, of response time {units.duration(response)}.",
            "Every connection was busy when a request was due, or the generator got no CPU in time.",
            "Response times include it, as a caller's would; lower --rate, or use --processes auto.",
        )


def saturated(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    if not trial.cell.load.is_open_loop:
        return
    queue = backlog(trial.samples, trial.window)
    if queue.grows:
        first, last = units.significant(queue.first), units.significant(queue.last)
        yield Finding(
            "saturated",
            Severity.WARNING,
            f"Requests waiting or in service grew through the window, from {first} to {last}.",
            "Requests arrive faster than they are served: the queue grows for as long as this goes on.",
            "Its percentiles depend on --duration and mean nothing else; lower --rate.",
        )


CHECKS = (lost_workers, missing_arrivals, under_delivered, low_concurrency, late_sends, saturated)
