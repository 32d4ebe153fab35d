"""Two engines on the same load: do they agree, and if not, why most likely not.

An engine is a witness of the other: what both see is the server's doing, what one sees alone is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.cell import Cell, Engine, Protocol, SharedMemory
from bench.findings import Finding, Severity
from bench.stats import Interval, geometric, paired_ratio, ratio

MOST_APART = 0.10
_BUSY_CORES = 0.85  # of one core, in the busiest process
_BODY_BYTES = 256 << 10  # from here on copying tensors is most of a client's work


class Agreeing(StrEnum):
    AGREE = "agree"
    DIFFER = "differ"
    INDICATIVE = "indicative"  # too few repeats, or too noisy, to tell


@dataclass(frozen=True, slots=True)
class Agreement:
    """`ratio`: of b to a. `interval`: its 95 % bounds, None below three repeats."""

    ratio: float | None
    interval: tuple[float, float] | None
    verdict: Agreeing
    reason: str

    def __str__(self) -> str:
        return f"{self.verdict} ({self.reason})" if self.reason else str(self.verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What may explain a difference, of one engine on the cell; medians over its repeats."""

    engine: Engine
    busiest_cores: float  # of its busiest process
    request_bytes: int  # tensors of a request
    lateness_ns: float = 0.0  # sent minus intended; 0 where the engine does not tell


def agree(a: Sequence[float], b: Sequence[float], reason: str = "") -> Agreement:
    """One metric, a figure per repeat of each engine; repeats of one round stand at the same place.

    Within 10 % they agree. Beyond it they differ when their intervals do not overlap, and otherwise the
    repeats do not decide. `reason`: of a difference; see `likely_reason`.
    """
    between = _ratio(a, b)
    if between is None:
        return Agreement(None, None, Agreeing.INDICATIVE, "one engine has no figure")
    bounds = None if between.low is None or between.high is None else (between.low, between.high)
    apart = max(between.value, 1 / between.value) - 1
    if bounds is None:
        said = f"{apart:.0%} apart; fewer than three repeats give no interval"
        return Agreement(between.value, None, Agreeing.INDICATIVE, said)
    if apart <= MOST_APART:
        return Agreement(between.value, bounds, Agreeing.AGREE, "")
    one, other = geometric(a), geometric(b)
    if one is None or other is None or one.overlaps(other):
        said = f"{apart:.0%} apart, but their intervals overlap"
        return Agreement(between.value, bounds, Agreeing.INDICATIVE, said)
    return Agreement(between.value, bounds, Agreeing.DIFFER, reason)


def _ratio(a: Sequence[float], b: Sequence[float]) -> Interval | None:
    """Repeat by repeat where the engines were interleaved: what a round shares then cancels out."""
    usable = [(x, y) for x, y in zip(a, b, strict=False) if x > 0 and y > 0]
    if len(a) == len(b) and len(usable) == len(a):
        return paired_ratio(a, b)
    return ratio(a, b)


def likely_reason(cell: Cell, a: Witness, b: Witness) -> str:
    """The likeliest first: the origin of time in an open loop, a client at its limit, copies, protocol."""
    load = cell.load
    if load.is_open_loop:
        late = max(a.lateness_ns, b.lateness_ns)
        return (
            "time origin: perf_analyzer counts from the real send, Locust from the intended one"
            f"{f', {late / 1e6:.3g} ms earlier' if late >= 1e6 else ''}"
        )
    busy = max((a, b), key=lambda witness: witness.busiest_cores)
    if busy.busiest_cores > _BUSY_CORES:
        return f"client CPU: {busy.engine} used {busy.busiest_cores:.0%} of a core in one process"
    if load.shared_memory is SharedMemory.NONE and max(a.request_bytes, b.request_bytes) > _BODY_BYTES:
        return f"copies: each engine moves {a.request_bytes / 1e6:.3g} MB a request in its own way"
    stack = "HTTP/1.1 by libcurl" if load.protocol is Protocol.HTTP else "gRPC C++"
    return f"protocol stack: perf_analyzer uses {stack} on threads, Locust sockets under gevent"


def finding(metric: str, agreement: Agreement) -> Finding | None:
    """None unless they differ."""
    if agreement.verdict is not Agreeing.DIFFER or agreement.ratio is None or agreement.interval is None:
        return None
    low, high = agreement.interval
    return Finding(
        "engines-differ",
        Severity.WARNING,
        f"perf_analyzer's {metric} is {agreement.ratio:.3g} times Locust's ({low:.3g} to {high:.3g}).",
        f"Most likely {agreement.reason}." if agreement.reason else "The cause is not known.",
        "Trust neither alone: compare both with the server's own times, and see docs/perf_analyzer.md.",
    )
