"""A run read once: every trial summarised and judged once, every cell aggregated once.

Whatever shows or judges a run takes its `RunResults`: cells.csv, the page, the terminal, a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.analysis.aggregate import MeasuredTrial, absent, aggregate, slo_of
from bench.analysis.bottleneck import with_bottlenecks
from bench.analysis.ceiling import read_ceiling
from bench.analysis.cell_details import CellDetail, SeriesBudget, detail
from bench.analysis.cell_row import PERCENTS, CellRow, Confirmed
from bench.analysis.checks.cell import codes, merged, with_cell_findings
from bench.analysis.engine_agreement import with_agreement
from bench.analysis.stats import percentile
from bench.analysis.winners_curse import with_if_best
from bench.core.findings import Finding, Severity, Verdict, verdict
from bench.core.run_folder import RunFolder, RunRecord, Unreadable
from bench.core.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One repeat of a cell in figures. Its samples stay in the run folder."""

    repeat: int
    requests: int  # answered right, in the window
    errors: int
    throughput_req_per_s: float
    throughput_img_per_s: float
    goodput_img_per_s: float | None  # None: without an SLO
    in_flight_mean: float
    latencies_ms: tuple[float | None, ...]  # as PERCENTS; None: too few samples
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, measured: MeasuredTrial) -> TrialResult:
        """The figures of a trial, without its samples."""
        summary = measured.summary
        values_ns = [percentile(summary.latencies_ns, percent).value_ns for percent in PERCENTS]
        return cls(
            repeat=measured.trial.plan.repeat,
            requests=summary.requests,
            errors=summary.errors,
            throughput_req_per_s=summary.throughput_req_per_s,
            throughput_img_per_s=summary.throughput_img_per_s,
            goodput_img_per_s=summary.goodput_img_per_s,
            in_flight_mean=summary.in_flight_mean,
            latencies_ms=tuple(None if value is None else value / 1e6 for value in values_ns),
            findings=measured.findings,
        )

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)


@dataclass(frozen=True, slots=True)
class CellResult:
    """A cell that was asked for. Without trials: it was not measured, and `row.reason` says why."""

    row: CellRow
    trials: tuple[TrialResult, ...] = ()  # by repeat
    detail: CellDetail | None = None


@dataclass(frozen=True, slots=True)
class RunResults:
    """All that is read from a run folder, for whoever shows or judges it. Holds no samples."""

    folder: RunFolder
    record: RunRecord
    cells: tuple[CellResult, ...]  # in the order they were asked for
    unreadable: tuple[Unreadable, ...] = ()  # trials whose files are damaged

    @classmethod
    def of(cls, folder: RunFolder) -> RunResults:
        """Read a run, the samples of one cell at a time.

        A trial that cannot be read is left out and named. Raises RunFolderError where another file is broken.
        """
        record, slo = folder.record, slo_of(folder.record)
        budget = SeriesBudget.of(folder.trial_counts())
        measured: dict[str, CellResult] = {}
        unreadable: list[Unreadable] = []
        for trials in by_cell(_readable(folder, unreadable)):
            of_cell = [MeasuredTrial.of(trial, slo) for trial in trials]
            row = aggregate(of_cell, record)
            summaries = tuple(TrialResult.of(one) for one in of_cell)
            measured[row.cell] = CellResult(row, summaries, detail(of_cell, budget))
        rows = complete([result.row for result in measured.values()], _with_lost(record, unreadable))
        rows = [_with_unreadable(row, unreadable) for row in rows]
        fresh = confirmations(folder)
        cells = []
        for row in with_if_best(with_bottlenecks(rows, read_ceiling(folder))):
            row = replace(row, confirmed=fresh.get(row.cell))
            known = measured.get(row.cell)
            cells.append(CellResult(row, known.trials, known.detail) if known else CellResult(row))
        return cls(folder, record, tuple(cells), tuple(unreadable))

    @property
    def rows(self) -> list[CellRow]:
        """A row for every cell that was asked for, measured or not."""
        return [cell.row for cell in self.cells]

    @property
    def details(self) -> Mapping[str, CellDetail]:
        """What a cell's own page shows, by the cell's key; only of measured cells."""
        return {cell.row.cell: cell.detail for cell in self.cells if cell.detail is not None}


def confirmations(folder: RunFolder) -> dict[str, Confirmed]:
    """What the fresh trials of a run say, by the cell's key."""
    record, slo = folder.record, slo_of(folder.record)
    found = {}
    for trials in by_cell(folder.confirmation.trials()):
        row = aggregate([MeasuredTrial.of(trial, slo) for trial in trials], record)
        found[row.cell] = Confirmed(
            value=row.throughput_img_per_s or 0.0,
            low=row.throughput_img_per_s_low,
            high=row.throughput_img_per_s_high,
            repeats=row.repeats,
            verdict=row.verdict,
            findings=row.findings,
            slo_met=row.slo_met,
        )
    return found


def complete(measured: Sequence[CellRow], record: RunRecord) -> list[CellRow]:
    """The measured rows, one for each planned cell without a trial, and the findings on cells.

    In the order that the cells were planned in.
    """
    known = {row.cell: row for row in with_agreement(measured)}
    for cell in record.planned:
        if cell.key not in known:
            known[cell.key] = absent(cell, record)
    rows = list(known.values())
    order = {cell.key: index for index, cell in enumerate(record.planned)}
    judged = [with_cell_findings(row, rows, record) for row in rows]
    return sorted(judged, key=lambda row: order.get(row.cell, len(order)))


def _readable(folder: RunFolder, unreadable: list[Unreadable]) -> Iterator[Trial]:
    """The trials that can be read; the others are added to `unreadable`."""
    for one in folder.read_trials():
        if isinstance(one, Trial):
            yield one
        else:
            unreadable.append(one)


def _with_lost(record: RunRecord, unreadable: Sequence[Unreadable]) -> RunRecord:
    """A cell none of whose trials can be read has failed for that reason, and was not left out."""
    return replace(record, failed={**{one.cell: one.reason for one in unreadable}, **record.failed})


def _with_unreadable(row: CellRow, unreadable: Sequence[Unreadable]) -> CellRow:
    """A measured row with a finding where some of its trials cannot be read."""
    lost = [one for one in unreadable if one.cell == row.cell]
    if not lost or not row.repeats:
        return row
    remarks = merged([*row.remarks, *(_lost(one) for one in lost)])
    return replace(row, remarks=remarks, findings=codes(remarks))


def _lost(one: Unreadable) -> Finding:
    return Finding(
        "unreadable-trial",
        Severity.WARNING,
        f"Repeat {one.repeat} is unreadable and left out: {one.reason}",
        "The disk was full or failed, or somebody changed the file.",
        "Restore the file, or measure that trial again with --resume.",
    )


def by_cell(trials: Iterable[Trial]) -> Iterator[list[Trial]]:
    """Group trials that come sorted by cell; only one cell's samples are in memory. Repeats in order."""
    group: list[Trial] = []
    for trial in trials:
        if group and group[0].cell.key != trial.cell.key:
            yield sorted(group, key=lambda one: one.plan.repeat)
            group = []
        group.append(trial)
    if group:
        yield sorted(group, key=lambda one: one.plan.repeat)
