"""What the engine itself saw on a perf_analyzer trial that gave numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.core.cell import SharedMemory
from bench.core.findings import Finding, Severity
from bench.core.samples import Window
from bench.core.trial import Plan
from bench.loadgen.perf_analyzer import export as export
from bench.loadgen.perf_analyzer.failures import EXIT_UNSTABLE, client_overhead_percent, warnings
from bench.loadgen.perf_analyzer.install import PerfAnalyzer

_STABLE = 1.1  # perf_analyzer's default: 10 %
_UNSTEADY = 1.5  # above 1.1 lie most short trials and every Poisson one
_MOST_OVERHEAD_PERCENT = 50.0  # where perf_analyzer itself warns
_FEW, _SMALL_SHARE = 2, 0.02  # due at an edge of the window and sent beyond it
_MOST_CLOCK_STEP_NS = 1_000_000
_MUCH_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    plan: Plan
    tool: PerfAnalyzer
    level: export.Level
    window: Window  # on the export's clock
    code: int
    row: Mapping[str, str]
    said: str
    tail_s: float
    due: int | None  # open loop: arrivals of the tape in the window
    stretch: int
    clock_moved_ns: int
    max_rss_bytes: int


def findings(facts: Facts) -> tuple[Finding, ...]:
    return tuple(
        finding
        for judge in (_nature, _steadiness, _accounts, _tail, _client, _machine)
        for finding in judge(facts)
    )


def _nature(facts: Facts) -> Iterator[Finding]:
    """What its numbers are by design."""
    if facts.plan.cell.load.is_open_loop:
        yield Finding(
            "time-origin",
            Severity.NOTE,
            "perf_analyzer counts from the real send.",
            "It does not tell when a request was due, so its own lateness is not in these latencies.",
            "Compare with --engine locust, which counts from the intended send.",
        )
    yield Finding(
        "answers-unchecked",
        Severity.NOTE,
        "The answers were not compared with a reference.",
        "perf_analyzer does not hand them over.",
        "The same cell with --engine locust checks them.",
    )


def _steadiness(facts: Facts) -> Iterator[Finding]:
    ratio = export.unsteadiness(facts.level, facts.window.start_ns, facts.window.end_ns)
    if facts.code == EXIT_UNSTABLE or ratio > _STABLE:
        seen = "a third without an answer" if ratio == float("inf") else f"a factor of {ratio:.3g}"
        yield Finding(
            "perf-analyzer-unstable",
            Severity.WARNING if facts.code == EXIT_UNSTABLE or ratio > _UNSTEADY else Severity.NOTE,
            f"Between the thirds of the window lies {seen}; perf_analyzer's own rule allows 1.1.",
            "The load had not settled, the machine did something else, or a third holds few requests.",
            "The numbers are kept; look at the repeats, or give a longer --warmup and --duration.",
        )


def _accounts(facts: Facts) -> Iterator[Finding]:
    recomputed = export.figures(facts.level, facts.plan.cell.load.batch)
    said = export.disagreement(facts.row, recomputed) if recomputed and facts.row else ""
    if said:
        yield Finding(
            "csv-disagrees",
            Severity.WARNING,
            f"perf_analyzer's CSV is not what its own export gives: {said}.",
            "A version whose export means something else than those tested.",
            "Use the version that `bench setup perf-analyzer` makes.",
        )


def _tail(facts: Facts) -> Iterator[Finding]:
    if facts.due is not None:
        answered, longest_s = _answered(facts)
        lost = facts.due - answered
        if lost > max(_FEW, _SMALL_SHARE * facts.due) or longest_s > facts.tail_s:
            yield Finding(
                "late-answers-cut",
                Severity.INVALID,
                f"{facts.due} requests were due in the window, and the export has {answered} of them, "
                f"answered within {longest_s:.3g} s.",
                f"perf_analyzer ends {facts.tail_s:.3g} s after the window and forgets what is unanswered: "
                "the slowest are missing here.",
                "The server is most likely overloaded: take a lower --rate, or a longer --duration.",
            )
    if facts.stretch > 1:
        yield Finding(
            "window-stretched",
            Severity.NOTE,
            f"Warm-up and window are {facts.stretch} times as long as asked.",
            "In the time asked for, perf_analyzer saw a window without an answer and gave no numbers.",
            f"Give --duration {facts.plan.duration_s * facts.stretch:g}s to ask for this at once.",
        )


def _answered(facts: Facts) -> tuple[int, float]:
    """Requests sent in the window that have an answer, and the longest wait for one, in seconds."""
    level, window = facts.level, facts.window
    inside = (level.sent_ns >= window.start_ns) & (level.sent_ns < window.end_ns)
    waits_ns = (level.done_ns - level.sent_ns)[inside]
    return len(waits_ns), float(waits_ns.max(initial=0)) / 1e9


def _client(facts: Facts) -> Iterator[Finding]:
    overhead = client_overhead_percent(facts.said)
    if overhead is not None and overhead > _MOST_OVERHEAD_PERCENT:
        yield Finding(
            "perf-analyzer-overhead",
            Severity.WARNING,
            f"perf_analyzer spent {overhead:g} % of its time on itself rather than waiting for the server.",
            "The client is close to its own limit.",
            "Give the client more cores, or use --shared-memory system on the server's host.",
        )
    for line in warnings(facts.said):
        yield Finding(
            "load-not-kept",
            Severity.WARNING,
            f'perf_analyzer says: "{line}".',
            "It could not make the load that was asked for.",
            "Take a lower load, or give the client more cores.",
        )


def _machine(facts: Facts) -> Iterator[Finding]:
    if abs(facts.clock_moved_ns) > _MOST_CLOCK_STEP_NS:
        yield Finding(
            "clock-step",
            Severity.WARNING,
            f"The system's clock moved by {facts.clock_moved_ns / 1e6:.3g} ms during the trial.",
            "perf_analyzer takes times from it, and a time service set it.",
            "Repeat the trial; latencies may be off by that much.",
        )
    if facts.max_rss_bytes > _MUCH_MEMORY:
        bodies = facts.tool.keeps_bodies and facts.plan.cell.load.shared_memory is SharedMemory.NONE
        yield Finding(
            "perf-analyzer-memory",
            Severity.WARNING,
            f"perf_analyzer held {facts.max_rss_bytes / 2**30:.2g} GiB.",
            f"Version {facts.tool.version} keeps the tensors of all requests."
            if bodies
            else "It holds the tensors of all requests in flight several times over.",
            "Use --shared-memory system, or 2.43.0." if bodies else "Take a smaller load.",
        )
