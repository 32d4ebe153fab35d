"""Findings on a cell: what only its repeats together, or other cells of the run, can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.distributions import beta_regularised, student_t_tail
from bench.analysis.engine_agreement import MEASURES, Agreement, pairs
from bench.analysis.failures import allowed_share, in_words
from bench.core import units
from bench.core.findings import Finding, Severity, verdict
from bench.core.run_folder import RunRecord

# A run without drift is warned of it in at most this share, over all its reference cells.
FALSE_ALARMS = 0.05
# Rounds that differ less than by this factor change no conclusion, however sure the difference is.
LEAST_DRIFT = 1.02

Floats = NDArray[np.float64]


class CellCheck(Protocol):
    """Looks at a row, beside all rows of its run, for one kind of trouble; yields a finding where it is."""

    def __call__(self, row: CellRow, rows: Sequence[CellRow], record: RunRecord, /) -> Iterator[Finding]: ...


def with_cell_findings(row: CellRow, rows: Sequence[CellRow], record: RunRecord) -> CellRow:
    """The row with the findings on its cell beside those of its trials, and the verdict by all of them."""
    added = [finding for check in CELL_CHECKS for finding in check(row, rows, record)]
    if not added:
        return row
    remarks = merged([*row.remarks, *added])
    judged = str(verdict(remarks)) if row.repeats else row.verdict
    return replace(row, verdict=judged, remarks=remarks, findings=codes(remarks))


def merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One of each code, the first seen, the most severe first."""
    by_code: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        by_code.setdefault((finding.code, finding.severity), finding)
    order = list(Severity)
    return tuple(sorted(by_code.values(), key=lambda finding: order.index(finding.severity)))


def codes(findings: Sequence[Finding]) -> str:
    """The column `findings`: codes separated by spaces, notes left out."""
    return " ".join(finding.code for finding in findings if finding.severity is not Severity.NOTE)


def machine_drift(row: CellRow, rows: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    """On the reference cell, which was measured twice in each round: the others share its machine.

    Only a sweep has one; a search measures a rate as often as it needs to, and plans no cells. An open loop
    serves what is asked however slow it is, so there it is the median latency that drifts.
    """
    asked = int(record.spec.get("repeats", len(row.throughputs)))
    if not record.planned or asked <= 0:
        return
    watched = {other.cell: _speeds(other) for other in rows if len(other.throughputs) > asked}
    by_repeat = watched.get(row.cell, {})
    if not by_repeat or min(by_repeat.values()) <= 0:
        return
    peers = [speeds for speeds in watched.values() if speeds and min(speeds.values()) > 0]
    is_reloaded = "turns" in record.spec
    spread = max(by_repeat.values()) / min(by_repeat.values())
    p = p_of_drift(by_repeat, asked, peers, is_reloaded=is_reloaded)
    if spread > LEAST_DRIFT and p < FALSE_ALARMS / len(watched):
        figure = "median latency" if row.is_open_loop else "throughput"
        yield Finding(
            "machine-drift",
            Severity.WARNING,
            f"The {figure} of the reference cell, measured twice in every round, varied by a factor of "
            f"{spread:.2f}, and more between the rounds than its own spread explains.",
            "The machine did other work meanwhile, or its clocks changed.",
            "Do not trust differences between cells that are smaller; repeat on a quieter machine.",
        )


def _speeds(row: CellRow) -> dict[int, float]:
    """By repeat: throughput, or in an open loop the median latency; {} where that is not known of each."""
    numbers = row.repeat_numbers or tuple(range(len(row.throughputs)))
    values: Sequence[float | None] = row.throughputs
    if row.is_open_loop:
        values = [latencies[PERCENTS.index(50.0)] for latencies in row.repeat_latencies_ms]
    known = {n: value for n, value in zip(numbers, values, strict=True) if value is not None}
    return known if len(known) == len(numbers) else {}


def p_of_drift(
    by_repeat: Mapping[int, float],
    rounds: int,
    peers: Sequence[Mapping[int, float]] = (),
    *,
    is_reloaded: bool = False,
) -> float:
    """How often repeats of a steady machine would show so much: a trend, or rounds that differ.

    Repeat k and repeat `rounds` + k of the reference cell are of one round, the second at its end. Half of
    the false alarms are those of a t test of the slope, half those of an F test of rounds against what
    differs within them; both are exact for normal logarithms of any spread. `peers`: all reference cells of
    the run, this one among them. Among many the least spread of a few repeats is small by chance, so the
    drift has to stand out from the spread that they have in common, too. `is_reloaded`: the model was loaded
    for each round, so rounds differ by the luck of that; then the means of the rounds are tested for a trend.
    """
    series = _Series.of(by_repeat, rounds)
    if is_reloaded:
        return series.p_of_trend_of_rounds()
    alone = series.p(series.rest, series.within)
    if len(peers) < 2:
        return alone
    of_peers = [_Series.of(peer, rounds) for peer in peers]
    pooled = [
        _Spread(sum(one.squares for one in spreads), sum(one.degrees for one in spreads))
        for spreads in ([peer.rest for peer in of_peers], [peer.within for peer in of_peers])
    ]
    return max(alone, series.p(*pooled))


@dataclass(frozen=True, slots=True)
class _Spread:
    """A sum of squares and its degrees of freedom."""

    squares: float
    degrees: int


@dataclass(frozen=True, slots=True)
class _Series:
    """The logarithms of a reference cell: its slope over the rounds, and how its rounds differ."""

    times: Floats
    logs: Floats
    in_round: NDArray[np.int64]
    slope: float
    rest: _Spread  # around the slope
    between: _Spread  # of the rounds' means
    within: _Spread  # around the rounds' means

    @classmethod
    def of(cls, by_repeat: Mapping[int, float], rounds: int) -> _Series:
        numbers = np.array(sorted(by_repeat))
        logs = np.log([by_repeat[number] for number in numbers])
        in_round = numbers % rounds
        times = in_round + np.where(numbers >= rounds, 1.0, 0.5)
        names, index, sizes = np.unique(in_round, return_inverse=True, return_counts=True)
        means = np.bincount(index, logs) / sizes
        slope, around = _line(times, logs)
        apart = float(sizes @ (means - logs.mean()) ** 2)
        inside = float(((logs - means[index]) ** 2).sum())
        between, within = _Spread(apart, len(names) - 1), _Spread(inside, len(logs) - len(names))
        return cls(times, logs, in_round, slope, _Spread(around, len(logs) - 2), between, within)

    def p(self, rest: _Spread, within: _Spread) -> float:
        """Of this slope, or of rounds so different, where repeats spread like that."""
        return min(1.0, 2 * min(_p_of_slope(self.slope, self.times, rest), self._p_of_rounds(within)))

    def p_of_trend_of_rounds(self) -> float:
        rounds = np.unique(self.in_round)
        means = np.array([self.logs[self.in_round == one].mean() for one in rounds])
        slope, around = _line(rounds.astype(float), means)
        return _p_of_slope(slope, rounds.astype(float), _Spread(around, len(rounds) - 2))

    def _p_of_rounds(self, within: _Spread) -> float:
        if self.between.degrees < 1 or within.degrees < 1 or self.between.squares + within.squares <= 0:
            return 1.0
        share = within.squares / (within.squares + self.between.squares)
        return beta_regularised(within.degrees / 2, self.between.degrees / 2, share)


def _line(times: Floats, logs: Floats) -> tuple[float, float]:
    """The slope of least squares, and the squares around its line."""
    centred = times - times.mean()
    scale = float(centred @ centred)
    slope = float(centred @ logs) / scale if scale else 0.0
    rest = logs - logs.mean() - slope * centred
    return slope, float(rest @ rest)


def _p_of_slope(slope: float, times: Floats, rest: _Spread) -> float:
    if rest.degrees < 1:
        return 1.0
    error = math.sqrt(rest.squares / rest.degrees / float(((times - times.mean()) ** 2).sum()))
    return 2 * student_t_tail(abs(slope) / error, rest.degrees) if error > 0 else float(slope == 0)


def engines_differ(row: CellRow, rows: Sequence[CellRow], _: RunRecord) -> Iterator[Finding]:
    if row.agreement != "differ":
        return
    for pair in pairs(rows):
        if row.cell in (pair.base.cell, pair.other.cell):
            ratios = [
                f"{name} {interval.value:.2f} times"
                for name, interval in zip(MEASURES, pair.ratios, strict=True)
                if interval
            ]
            yield Finding(
                "engines-differ",
                Severity.WARNING,
                f"perf_analyzer against Locust: {', '.join(ratios)}.",
                _likeliest_cause(pair),
                "Look at the client CPU and the findings of both cells; trust neither until it is explained.",
            )


def _likeliest_cause(pair: Agreement) -> str:
    """Why the engines differ, by what is known of the two rows."""
    if any("client-bound" in row.findings for row in (pair.base, pair.other)):
        return "One of the load generators was at its own limit."
    if pair.base.is_open_loop:
        return "perf_analyzer counts latency from the real send, Locust from when the request was due."
    if pair.base.shared_memory != pair.other.shared_memory:
        return "One of them copies tensors that the other shares."
    client, other = pair.base.client_cpu_cores or 0.0, pair.other.client_cpu_cores or 0.0
    if max(client, other) > 0.5:
        return "Load generator and server share the CPU, and the two generators need different amounts of it."
    return "Their protocol stacks and copies of tensors cost differently."


def server_died(row: CellRow, _: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    reason = record.failed.get(row.cell)
    if reason is not None and _died(row, record):
        yield Finding(
            "server-died",
            Severity.INVALID,
            reason,
            "The server died while this cell was measured, and was started again.",
            "Its log is kept as tritonserver-1.log (-2...) in the run's folder; --resume measures it again.",
        )


def repeat_failed(row: CellRow, _: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    reason = record.failed.get(row.cell)
    if reason is not None and row.repeats and not _died(row, record):
        yield Finding(
            "repeat-failed",
            Severity.WARNING,
            f"Measuring stopped after {units.plural(row.repeats, 'repeat')}: {reason}",
            "The figures are of the repeats that were measured.",
            "--resume measures the others.",
        )


def too_many_errors(row: CellRow, _: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    allowed = allowed_share(record)
    if row.asked and row.errors / row.asked > allowed:
        yield Finding(
            "too-many-errors",
            Severity.WARNING,
            f"{units.percent(row.errors / row.asked)} of {units.plural(row.asked, 'request')} failed "
            f"({in_words(row.failures)}), --max-errors allows {units.percent(allowed)}."
            f"{record.left_out.get(row.cell, '')}",
            "The cell is not recommended: its figures are of the requests that got through.",
            "See the errors and the server's log; a higher --max-errors allows more.",
        )


def measured_again(row: CellRow, _: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    of_cell = [discarded for discarded in record.discarded if discarded.key == row.cell]
    if of_cell:
        yield Finding(
            "measured-again",
            Severity.NOTE,
            f"{units.plural(len(of_cell), 'trial')} of the cell measured again: {of_cell[0].reason}",
            "Figures of a load generator that was stopped describe another load.",
            "Nothing, unless it happens often: then measure where nothing stops the load generator.",
        )


def _died(row: CellRow, record: RunRecord) -> bool:
    return row.cell in {crash.key for crash in record.crashes}


CELL_CHECKS: tuple[CellCheck, ...] = (
    machine_drift,
    engines_differ,
    server_died,
    repeat_failed,
    measured_again,
    too_many_errors,
)
