"""What perf_analyzer's exit code, words and export tell: why it gave no numbers, or what its numbers mean.

Its exit codes: 0 success and much else, 2 unstable, 3 an empty window, 99 everything else, 134 abort.
Source: perf_analyzer_exception.h and the messages of 2.41 to 2.60.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.core.cell import SharedMemory
from bench.core.errors import BenchError, TargetError, ToolError, Unreachable
from bench.core.findings import Finding, Severity
from bench.core.samples import Window
from bench.core.trial import Plan
from bench.loadgen.perf_analyzer import export as export
from bench.loadgen.perf_analyzer.install import PerfAnalyzer

EXIT_UNSTABLE = 2
EXIT_EMPTY_WINDOW = 3
# Of a message of perf_analyzer's so many characters are repeated.
_MOST_SAID = 300
# The first request of a constant rate always counts as delayed, so a few percent mean nothing.
_MOST_DELAYED_PERCENT = 5.0
# By perf_analyzer's own rule, windows that differ by no more than this factor are stable.
_STABLE = 1.1
# Most short trials and every Poisson one differ by more than that. Above this factor the finding is a
# warning.
_UNSTEADY = 1.5
# perf_analyzer itself warns above this.
_MOST_OVERHEAD_PERCENT = 50.0
# So many requests, or this share of all, may be due at an edge of the window and sent beyond it.
_FEW, _SMALL_SHARE = 2, 0.02
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
            "The time asked for held no answer, or fewer than four of each user.",
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


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: str
    error: type[BenchError]
    seen: str
    next_step: str


_CANNOT_CONNECT = "perf_analyzer cannot connect ({0})."
_IS_IT_UP = "Is the server up, and are --url and --grpc-url its addresses?"
_FAILED = "A request failed ({0}), and perf_analyzer ends at the first one without any numbers."
_USE_LOCUST = "Measure this cell with --engine locust: it counts failures and goes on."

# The first that matches; groups of the pattern fill the sentences.
_KNOWN = (
    _Known(
        r"failed to get model metadata: .*(Unsupported protocol|Socket closed|Received HTTP/0\.9|http1\.x)",
        Unreachable,
        "perf_analyzer reached a port that speaks another protocol ({0}).",
        "gRPC needs the server's gRPC port (--grpc-url), HTTP its HTTP port (--url).",
    ),
    _Known(
        r"(SSL peer [^\n]*|SSL certificate [^\n]*|(?i:ssl) handshake failed[^\n]*)",
        Unreachable,
        "perf_analyzer's TLS connection failed ({0}).",
        "It trusts the system's certificates, or those of the file SSL_CERT_FILE names.",
    ),
    _Known(
        r"failed to get model metadata: [^\n]*(Couldn't connect to server|Couldn't resolve host)",
        Unreachable,
        _CANNOT_CONNECT,
        _IS_IT_UP,
    ),
    _Known(
        r"failed to get model metadata: failed to connect[^\n]*?(Connection refused|DNS resolution failed|$)",
        Unreachable,
        _CANNOT_CONNECT,
        _IS_IT_UP,
    ),
    _Known(
        r"shared memory region '([^']*)' already in manager",
        TargetError,
        "Another client has registered the shared-memory region {0!r} on this server.",
        "perf_analyzer uses fixed region names and unregisters everybody's at its start: "
        "let one at a time use shared memory on a server.",
    ),
    _Known(
        r"([Ss]hared memory|shm)[^\n]*?(failed|unable|invalid|Unable|exceeds|not supported)[^\n]*",
        TargetError,
        "The server refused perf_analyzer's shared memory.",
        "It must run on this host and see its /dev/shm (or the same GPU); "
        "--shared-memory none works everywhere.",
    ),
    _Known(
        r"(CUDA driver version is insufficient[^\n]*|no CUDA-capable device[^\n]*)",
        ToolError,
        "--shared-memory cuda needs a GPU on this machine ({0}).",
        "Use --shared-memory system.",
    ),
    _Known(
        r"(Request for unknown model[^\n]*)",
        TargetError,
        "The server does not serve it: {0}.",
        "Load the model, or check --model and its version.",
    ),
    _Known(
        r"(inference request batch-size must be <= \d+[^\n]*)",
        TargetError,
        "The server refused the batch: {0}.",
        "Take a smaller --batch, or a larger max_batch_size.",
    ),
    _Known(r"Thread \[\d+\] had error: ([^\n]+)", TargetError, _FAILED, _USE_LOCUST),
    _Known(r"(Failed to retrieve results[^\n]*)", TargetError, _FAILED, _USE_LOCUST),
    _Known(
        r"(bad_alloc|Cannot allocate memory|out of memory)",
        ToolError,
        "perf_analyzer ran out of memory ({0}).",
        "Use --shared-memory system, a shorter --duration, or a version before 2.44.",
    ),
    _Known(
        r"(Failed to obtain stable measurement[^\n]*)",
        TargetError,
        "perf_analyzer calls the load unstable, and gives no numbers then.",
        "Give a longer --warmup and --duration, or measure with --engine locust, which keeps its numbers.",
    ),
    _Known(
        r"(No valid requests recorded[^\n]*)",
        TargetError,
        "A window of perf_analyzer's passed without one answer, and it gives no numbers then.",
        "Give a longer --duration: each third of it needs an answer.",
    ),
)


def explain(code: int, said: str, command: str = "") -> BenchError:
    """The error that fits. `code` negative: killed by that signal. `said`: stderr, then stdout."""
    for known in _KNOWN:
        if match := re.search(known.pattern, said):
            reason = [_short(text or "") for text in match.groups()]
            return known.error(f"{known.seen.format(*reason)} {known.next_step}")
    if code in (-9, 137):
        return ToolError(
            "perf_analyzer was killed by the system, most likely for its memory: "
            "use --shared-memory system, a shorter --duration, or a version before 2.44."
        )
    return ToolError(
        f"perf_analyzer ended with code {code} and no numbers: {_first_complaint(said)}. "
        f"Run it by hand to see more: {command}"
    )


def _first_complaint(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    complaints = [line for line in lines if re.search(r"error|fail|unable|invalid|cannot", line, re.I)]
    return _short((complaints or lines or ["it said nothing"])[0])


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}..."


def warnings(said: str) -> tuple[str, ...]:
    """What it remarks on a run that gave numbers: late requests, a generator that could not keep up.

    The first request of a constant rate always counts as delayed, so a few percent are none.
    """
    late = [float(percent) for percent in re.findall(r"([\d.]+)% of the requests were delayed", said)]
    found = re.findall(
        r"[^\n]*not able to keep up with the desired load[^\n]*|[^\n]*not stabilizing[^\n]*", said
    )
    found += [
        f"{percent:g}% of the requests were delayed" for percent in late if percent > _MOST_DELAYED_PERCENT
    ]
    return tuple(dict.fromkeys(_short(line) for line in found))


def client_overhead_percent(said: str) -> float | None:
    """Its `Avg client overhead`, told with -v: time its threads were not waiting for the server."""
    found = re.findall(r"Avg client overhead: ([\d.]+)%", said)
    return float(found[-1]) if found else None
