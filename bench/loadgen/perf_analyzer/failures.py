"""Why perf_analyzer gave no numbers, from its exit code and what it said; and what to do about it.

Its codes: 0 success and much else, 2 unstable, 3 an empty window, 99 everything else, 134 abort.
Source: perf_analyzer_exception.h and the messages of 2.41 to 2.60.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.core.errors import BenchError, TargetError, ToolError, Unreachable

EXIT_UNSTABLE = 2
EXIT_EMPTY_WINDOW = 3
_MOST_SAID = 300
_MOST_DELAYED = 5.0  # percent


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
    found += [f"{percent:g}% of the requests were delayed" for percent in late if percent > _MOST_DELAYED]
    return tuple(dict.fromkeys(_short(line) for line in found))


def client_overhead_percent(said: str) -> float | None:
    """Its `Avg client overhead`, told with -v: time its threads were not waiting for the server."""
    found = re.findall(r"Avg client overhead: ([\d.]+)%", said)
    return float(found[-1]) if found else None
