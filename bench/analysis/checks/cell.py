"""Findings on a cell: what only its repeats together, or other cells of the run, can show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from bench.analysis.cell_row import CellRow
from bench.analysis.engine_agreement import MEASURES, Agreement, pairs
from bench.core import units
from bench.core.findings import Finding, Severity, verdict
from bench.core.run_folder import RunRecord

# A quiet machine repeats a cell within a few percent; a factor beyond this is the machine's doing.
DRIFT = 1.10


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


def machine_drift(row: CellRow, _: Sequence[CellRow], record: RunRecord) -> Iterator[Finding]:
    """On the reference cell, which was measured again in each round: the others share its machine.

    Only a sweep has one; a search measures a rate as often as it needs to, and plans no cells.
    """
    asked = int(record.spec.get("repeats", len(row.throughputs)))
    if not record.planned or len(row.throughputs) <= asked or min(row.throughputs) <= 0:
        return
    spread = max(row.throughputs) / min(row.throughputs)
    if spread > DRIFT:
        yield Finding(
            "machine-drift",
            Severity.WARNING,
            f"The throughput of the reference cell, measured in every round, varied by a factor of "
            f"{spread:.2f}.",
            "The machine did other work meanwhile, or its clocks changed.",
            "Do not trust differences between cells that are smaller; repeat on a quieter machine.",
        )


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


def _died(row: CellRow, record: RunRecord) -> bool:
    return row.cell in {crash.key for crash in record.crashes}


CELL_CHECKS: tuple[CellCheck, ...] = (machine_drift, engines_differ, server_died, repeat_failed)
