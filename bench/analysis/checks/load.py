"""Was the load that was asked for really made, and was it one the server could stand?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from bench.analysis.stats import nearest_rank
from bench.analysis.steadiness import backlog
from bench.analysis.summary import TrialSummary, measured_requests
from bench.core import units
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity
from bench.core.samples import Outcome
from bench.core.trial import Trial

# A worker that sleeps less than a tenth of the time does not wait for the server: it is what is measured.
AWAKE = 0.90
# A worker that mostly waits for a core shows a busy machine; one that is the limit computes this much.
COMPUTING = 0.75
# Requests carry the time they are due, so no noise has to be allowed for: 2 % is what a table rounds away.
LEAST_DELIVERED = 0.98
# Up to so many requests may be due just before the window's end and sent just after it.
LEAST_MISSING = 3
# A lone user of a fast server spends some time in the client; below this share the concurrency was not kept.
LEAST_IN_FLIGHT = 0.90
# A generator that stood still for this share of the window, or for so long, made another load than was asked.
MOST_STALLED_SHARE, MOST_STALLED_S = 0.05, 1.0
# On an otherwise idle core requests are sent less than a millisecond late (the goal of benchmarks/pacing.py).
MOST_LATE_NS = 1_000_000
# Lateness below this share of the p99 response time is lost in the number itself.
MOST_LATE_SHARE = 0.05


def busiest_worker(trial: Trial) -> float:
    """Cores used by the busiest load-generating process, over the window."""
    return max(trial.generator.cpu_s, default=0.0) / trial.window.seconds


def is_client_bound(trial: Trial) -> bool:
    """Whether a load-generating process had next to no time left, waiting for a core counted as no time."""
    seconds = trial.window.seconds
    spent = zip_longest(trial.generator.cpu_s, trial.generator.waited_s, fillvalue=0.0)
    return any(cpu > COMPUTING * seconds and cpu + waited > AWAKE * seconds for cpu, waited in spent)


def client_bound(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    if is_client_bound(trial) and trial.cell.engine is Engine.LOCUST:
        yield Finding(
            "client-bound",
            Severity.INVALID,
            f"A load generator used {units.percent(busiest_worker(trial))} of a core, and never slept.",
            "The load generator is the limit, not the server.",
            "Use --processes auto or a higher number, or make the load from another machine.",
        )


def own_limits(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """A request that this machine had no file, port or memory for says nothing of the server."""
    failed = int((trial.samples.outcome == Outcome.CLIENT).sum())
    if failed:
        yield Finding(
            "client-bound",
            Severity.INVALID,
            f"{units.plural(failed, 'request')} failed here for want of files, ports, buffers or memory.",
            "The load generator is at a limit of its own machine or process; the server did not refuse them.",
            "Raise the limit (ulimit -Hn, ip_local_port_range), use more --processes, or fewer users.",
        )


def is_stalled(trial: Trial) -> bool:
    """Whether a load-generating process stood still for more of the window than its figures can bear."""
    longest_s = max(trial.generator.stalled_s, default=0.0)
    return longest_s > min(MOST_STALLED_SHARE * trial.window.seconds, MOST_STALLED_S)


def stalled(trial: Trial, _: TrialSummary | None = None) -> Iterator[Finding]:
    if is_stalled(trial):
        yield Finding(
            "generator-stalled",
            Severity.INVALID,
            f"A load generator stood still for {units.duration(max(trial.generator.stalled_s) * 1e9)} of "
            f"{units.duration(trial.window.seconds * 1e9)}.",
            "Its process was stopped, its container or virtual machine paused, or this machine slept.",
            "Repeat the cell where nothing stops the load generator.",
        )


def lost_workers(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    lost = trial.generator.lost_workers
    if lost:
        yield Finding(
            "worker-lost",
            Severity.INVALID,
            f"{lost} of {units.plural(trial.generator.workers, 'worker')} did not report.",
            "A worker was killed, ran out of memory, or hung: its requests are missing.",
            "Repeat the cell; look at the workers' log and at the machine's memory.",
        )


def missing_arrivals(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """Every planned request was sent or is counted as unfinished."""
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
    due, sent = len(measured_requests(trial)), round(summary.sent_per_s * trial.window.seconds)
    if sent < LEAST_DELIVERED * due and due - sent > LEAST_MISSING:
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{units.count(sent)} of {units.plural(due, 'request')} due in the window were sent in it.",
            "Every connection waits for a server past its capacity, or the generator is at its own limit.",
            "Lower --rate: this is an overload, not a service level. If client-bound too: --processes auto.",
        )


def low_concurrency(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    asked = trial.cell.load.concurrency
    if asked is not None and summary.requests and summary.in_flight_mean < LEAST_IN_FLIGHT * asked:
        yield Finding(
            "under-delivered",
            Severity.INVALID,
            f"{units.significant(summary.in_flight_mean)} requests were in flight on average, "
            f"{asked} were asked for.",
            "The generator took more than a tenth of the time between two requests, or connections failed.",
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
            f"Requests were sent up to {units.duration(late)} late (p99); the p99 response time is "
            f"{units.duration(response)}.",
            "Every connection was busy when a request was due, or the generator got no CPU in time.",
            "Response times include the lateness, as a caller's would; lower --rate, or use "
            "--processes auto.",
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
            f"The queue kept growing: {first} requests waited or were in service at first, {last} at last "
            "(those that gave up at --timeout included).",
            "The rate is above the server's capacity: the queue grows for as long as this goes on.",
            "Lower --rate; these percentiles depend on --duration and say nothing else.",
        )


CHECKS = (
    client_bound,
    own_limits,
    stalled,
    lost_workers,
    missing_arrivals,
    under_delivered,
    low_concurrency,
    late_sends,
    saturated,
)
