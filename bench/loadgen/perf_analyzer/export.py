"""What perf_analyzer writes: its profile export, its CSV, and its own figures recomputed from the export.

The export is the only output worth trusting: it has every request of every window, stable or not. It is
scanned for times rather than parsed, because later versions put all tensors into it, and some versions
put them there as bytes that no JSON reader takes.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import ToolError
from bench.core.samples import Outcome, Samples

PERCENTILES = (50, 90, 95, 99)
# perf_analyzer judges, merges and reports its last three windows (inference_profiler.cc).
_STABLE_WINDOWS = 3

_TOKEN = re.compile(
    rb'"mode":"(?P<mode>\w+)","value":(?P<value>[^,}]+)'
    rb'|"timestamp":(?P<sent>\d+)'
    rb'|"response_timestamps":\[(?P<done>[\d,]*)\]'
    rb'|"window_boundaries":\[(?P<bounds>[\d,]*)\]'
)
_LONGEST_TOKEN = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One load level of an export. Times are nanoseconds of the system's epoch clock, n requests."""

    mode: str  # concurrency, request_rate
    value: float
    sent_ns: NDArray[np.int64]
    done_ns: NDArray[np.int64]
    boundaries_ns: tuple[int, ...]  # of the windows: one more than there are windows

    def samples(self, offset_ns: int) -> Samples:
        """On the clock that is `offset_ns` behind the epoch clock. Intended is sent: nothing else is told."""
        sent, done = self.sent_ns - offset_ns, self.done_ns - offset_ns
        return Samples.merge([Samples(sent, sent, done, np.full(len(sent), Outcome.OK, dtype=np.int64))])


@dataclass(frozen=True, slots=True)
class Figures:
    """As perf_analyzer defines them: microseconds cut to whole ones, nearest-rank percentiles."""

    requests: int
    inferences_per_s: float
    average_us: int
    percentiles_us: Mapping[int, int]


def read_export(chunks: Iterable[bytes]) -> tuple[Level, ...]:
    """All levels, in memory that does not depend on the file's size.

    Raises ToolError for a file that is empty, cut off (perf_analyzer exits 0 all the same) or damaged.
    """
    try:
        return _levels(_tokens(chunks))
    except (ArithmeticError, IndexError, ValueError) as error:
        raise ToolError(f"perf_analyzer's profile export is damaged ({error}): measure again.") from error


def _levels(tokens: Iterable[re.Match[bytes]]) -> tuple[Level, ...]:
    levels: list[Level] = []
    heading: tuple[str, float] | None = None
    sent: list[int] = []
    done: list[int] = []
    for token in tokens:
        kind, text = token.lastgroup, token[token.lastgroup or 0]
        if kind == "value":
            heading, sent, done = (token["mode"].decode(), float(text)), [], []
        elif kind == "sent":
            sent.append(int(text))
        elif kind == "done" and text:
            done.append(int(text.rpartition(b",")[2]))  # the last of a decoupled model's answers
        elif kind == "done":
            sent.pop()  # sent, and never answered
        elif kind == "bounds" and heading is not None:
            levels.append(_level(heading, sent, done, text))
            heading = None
    if heading is not None or not levels:
        raise ToolError(
            "perf_analyzer's profile export is empty or cut off (it stops writing at a NaN, or when the disk "
            "is full): make room in the temporary folder, or name another version with --perf-analyzer."
        )
    return tuple(levels)


def _tokens(chunks: Iterable[bytes]) -> Iterator[re.Match[bytes]]:
    kept = b""
    for chunk in chunks:
        kept += chunk
        end = 0
        for token in _TOKEN.finditer(kept):
            if token.end() < len(kept):  # one that touches the end may go on in the next chunk
                yield token
                end = token.end()
        kept = kept[max(end, len(kept) - _LONGEST_TOKEN) :]
    yield from _TOKEN.finditer(kept)


def _level(heading: tuple[str, float], sent: list[int], done: list[int], bounds: bytes) -> Level:
    if len(sent) != len(done):
        raise ToolError("perf_analyzer's profile export is damaged: a request in it has no end.")
    mode, value = heading
    boundaries = tuple(int(at) for at in bounds.split(b",") if at)
    if len(boundaries) == 1 or any(late <= early for early, late in itertools.pairwise(boundaries)):
        raise ToolError("perf_analyzer's profile export is damaged: its windows are out of order.")
    return Level(mode, value, np.array(sent, np.int64), np.array(done, np.int64), boundaries)


def figures(level: Level, batch: int) -> Figures | None:
    """perf_analyzer's own result recomputed: the last three windows merged. None: no request in them.

    Source: MergePerfStatusReports and SummarizeLatency in its inference_profiler.cc.
    """
    bounds = level.boundaries_ns[-1 - _STABLE_WINDOWS :]
    if not bounds:
        return None
    latency = _latency_ns(level, bounds[0], bounds[-1])
    if not len(latency):
        return None
    ranks = {p: int(p / 100 * (len(latency) - 1) + 0.5) for p in PERCENTILES}
    return Figures(
        requests=len(latency),
        inferences_per_s=len(latency) * batch / ((bounds[-1] - bounds[0]) / 1e9),
        average_us=int(latency.sum()) // len(latency) // 1000,
        percentiles_us={p: int(latency[rank]) // 1000 for p, rank in ranks.items()},
    )


def unsteadiness(level: Level, start_ns: int, end_ns: int) -> float:
    """perf_analyzer's measure of it on three equal windows of that span; its rule calls 1.1 and less stable.

    The worse of largest to smallest throughput and largest to smallest mean latency; infinite when a
    window is empty. Source: CheckWindowForStability in its inference_profiler.cc.
    """
    bounds = np.linspace(start_ns, end_ns, _STABLE_WINDOWS + 1).astype(np.int64)
    windows = [_latency_ns(level, int(bounds[i]), int(bounds[i + 1])) for i in range(_STABLE_WINDOWS)]
    if not all(len(latency) for latency in windows):
        return float("inf")
    counts = [len(latency) for latency in windows]
    means = [float(latency.mean()) for latency in windows]
    return max(max(counts) / min(counts), max(means) / min(means))


def _latency_ns(level: Level, start_ns: int, end_ns: int) -> NDArray[np.int64]:
    inside = (level.done_ns >= start_ns) & (level.done_ns <= end_ns)
    return np.sort((level.done_ns - level.sent_ns)[inside])


def read_csv(text: str) -> tuple[dict[str, str], ...]:
    """Rows by column name, ordered by level (perf_analyzer orders them by throughput).

    Which columns there are depends on version, options and model. Raises ToolError for ragged rows, and for
    what is no table.
    """
    try:
        return tuple(sorted(_rows(text), key=_level_of))
    except (csv.Error, ValueError) as error:
        raise ToolError(f"perf_analyzer's CSV is damaged ({error}): measure again.") from error


def _rows(text: str) -> list[dict[str, str]]:
    rows = []
    for row in csv.DictReader(text.splitlines()):
        if None in row or None in row.values():
            raise ToolError(f"perf_analyzer's CSV has a row that does not fit its header: {dict(row)}.")
        rows.append({name.strip(): value.strip() for name, value in row.items()})
    return rows


def _level_of(row: Mapping[str, str]) -> float:
    return float(row.get("Concurrency") or row.get("Request Rate") or 0)


def disagreement(row: Mapping[str, str], recomputed: Figures) -> str:
    """What its CSV says otherwise than its export, or "": 6 digits of throughput, whole microseconds."""
    stated = {f"p{p} latency": str(us) for p, us in recomputed.percentiles_us.items()}
    stated |= {"Avg latency": str(recomputed.average_us)}
    stated |= {"Inferences/Second": f"{recomputed.inferences_per_s:.6g}"}
    return "; ".join(
        f"{name}: {row[name]} in the CSV, {value} from the export"
        for name, value in stated.items()
        if name in row and _number(row[name]) != float(value)
    )


def _number(text: str) -> float:
    """NaN, which equals nothing, for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
