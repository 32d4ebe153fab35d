"""Findings on a cell: what only its repeats together, or other cells of the run, can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.analysis.cell_row import CellRow
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

    Only a sweep has one; a search measures a rate as often as it needs to, and plans no cells.
    """
    asked = int(record.spec.get("repeats", len(row.throughputs)))
    if not record.planned or not 0 < asked < len(row.throughputs) or min(row.throughputs) <= 0:
        return
    watched = sum(len(other.throughputs) > asked for other in rows)
    by_repeat = dict(zip(row.repeat_numbers or range(len(row.throughputs)), row.throughputs, strict=True))
    spread = max(row.throughputs) / min(row.throughputs)
    if spread > LEAST_DRIFT and p_of_drift(by_repeat, asked) < FALSE_ALARMS / watched:
        yield Finding(
            "machine-drift",
            Severity.WARNING,
            f"The throughput of the reference cell, measured twice in every round, varied by a factor of "
            f"{spread:.2f}, and more between the rounds than its own spread explains.",
            "The machine did other work meanwhile, or its clocks changed.",
            "Do not trust differences between cells that are smaller; repeat on a quieter machine.",
        )


def p_of_drift(by_repeat: Mapping[int, float], rounds: int) -> float:
    """How often repeats of a steady machine would show so much: a trend, or rounds that differ.

    Repeat k and repeat `rounds` + k of the reference cell are of one round, the second at its end. Half of
    the false alarms are those of a t test of the slope, half those of an F test of rounds against what
    differs within them; both are exact for normal logarithms of any spread.
    """
    numbers = np.array(sorted(by_repeat))
    logs = np.log([by_repeat[number] for number in numbers])
    in_round = numbers % rounds
    times = in_round + np.where(numbers >= rounds, 1.0, 0.5)
    return min(1.0, 2 * min(_p_of_trend(times, logs), _p_of_rounds(in_round, logs)))


def _p_of_trend(times: Floats, logs: Floats) -> float:
    degrees, centred = len(logs) - 2, times - times.mean()
    if degrees < 1:
        return 1.0
    slope = float(centred @ logs / (centred @ centred))
    rest = logs - logs.mean() - slope * centred
    error = math.sqrt(float(rest @ rest) / degrees / float(centred @ centred))
    return 2 * student_t_tail(abs(slope) / error, degrees) if error > 0 else float(slope == 0)


def _p_of_rounds(in_round: NDArray[np.int64], logs: Floats) -> float:
    names, index, sizes = np.unique(in_round, return_inverse=True, return_counts=True)
    means = np.bincount(index, logs) / sizes
    between, within = len(names) - 1, len(logs) - len(names)
    if between < 1 or within < 1:
        return 1.0
    apart = float(sizes @ (means - logs.mean()) ** 2)
    rest = float(((logs - means[index]) ** 2).sum())
    return beta_regularised(within / 2, between / 2, rest / (rest + apart)) if rest + apart > 0 else 1.0


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
