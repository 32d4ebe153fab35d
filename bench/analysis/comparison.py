"""Two runs, cell by cell: did it get worse by more than a gate allows, and can that be told?

A gate says how much worse a figure may get, such as `p99>+5%` or `throughput<-3%`. Ratios new / base come
with an interval over repeats: paired where trials of both were interleaved, else of two groups. The interval
decides, and Hodges-Lehmann's estimate stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.engine_agreement import values_of
from bench.analysis.labels import label
from bench.analysis.results import RunResults
from bench.analysis.stats import (
    LEAST_REPEATS,
    Change,
    Interval,
    change_of,
    hodges_lehmann,
    paired_ratio,
    ratio,
    repeats_to_settle,
    samples_needed,
)
from bench.core.cell import Engine
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_OK, WrongUse
from bench.core.gates import DEFAULT_GATES, Gate
from bench.core.run_folder import RunRecord

# Runs on machines that differ in one of these measure different things.
_MACHINE = ("cpu", "cores", "architecture")
# These keys of a spec only name a variant; in what it differs is seen in what it sets.
_OURS = ("variant", "turns")
# Settings of a server that cells are matched by, beside its parameters.
_SETTINGS = ("replicas", "instances", "max_batch", "max_queue_delay_us")


@dataclass(frozen=True, slots=True)
class Result:
    """One gate on one cell. `why`: of an inconclusive one, with what would settle it."""

    gate: Gate
    base: float | None  # pooled or mean over repeats, as the rows have it
    new: float | None
    interval: Interval | None  # of new / base
    hodges_lehmann: float | None
    change: Change
    why: str = ""

    @property
    def word(self) -> str:
        """The change; `better` where the interval clears the gate's mirror image."""
        bounds = self.interval
        if self.change is Change.NO_CHANGE and bounds and bounds.low is not None and bounds.high is not None:
            mirror = 1 / self.gate.limit
            if (bounds.high < mirror) if self.gate.higher_is_worse else (bounds.low > mirror):
                return "better"
        return str(self.change)


@dataclass(frozen=True, slots=True)
class CellComparison:
    base: CellRow
    new: CellRow
    results: tuple[Result, ...]
    by_max_batch: bool = False  # cells differ in it

    @property
    def name(self) -> str:
        engine = "" if self.new.engine == Engine.LOCUST else f" · {self.new.engine}"
        return f"{label(self.new, with_max_batch=self.by_max_batch)}{engine}"


@dataclass(frozen=True, slots=True)
class Comparison:
    base: RunRecord
    new: RunRecord
    gates: tuple[Gate, ...]
    cells: tuple[CellComparison, ...]
    only_base: tuple[str, ...]
    only_new: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]  # what, of base, of new
    paired: bool = False

    @property
    def change(self) -> Change:
        """The worst of all cells; inconclusive without any."""
        changes = {result.change for cell in self.cells for result in cell.results}
        for change in (Change.REGRESSION, Change.INCONCLUSIVE):
            if change in changes:
                return change
        return Change.NO_CHANGE if changes else Change.INCONCLUSIVE


def compare(
    base: RunResults,
    new: RunResults,
    gates: Sequence[Gate] = (),
    *,
    force: bool = False,
    paired: bool = False,
    variants: bool = False,
) -> Comparison:
    """Judge `new` against `base`. `paired`: their trials took turns, repeat by repeat. `variants`: they are
    meant to differ in what of the server each has one value of. Runs that took turns are both.

    Raises WrongUse when machines or models differ, unless `force`.
    """
    turns = took_turns(base.record, new.record)
    mistakes = [] if turns else unlike(base.record, new.record)
    if mistakes and not force:
        raise WrongUse([*mistakes, "--anyway compares them all the same; the ratios then mix both changes."])
    return compare_rows(
        base.record,
        base.rows,
        new.record,
        new.rows,
        gates or DEFAULT_GATES,
        paired=paired or turns,
        variants=variants or turns,
    )


def took_turns(base: RunRecord, new: RunRecord) -> bool:
    """Whether one command measured both, round by round."""
    return bool(base.spec.get("turns")) and base.spec["turns"] == new.spec.get("turns")


def compare_rows(
    base: RunRecord,
    base_rows: Iterable[CellRow],
    new: RunRecord,
    new_rows: Iterable[CellRow],
    gates: Sequence[Gate],
    *,
    paired: bool = False,
    variants: bool = False,
) -> Comparison:
    """The same on rows; cells are matched by their parameters, whatever the model is called."""
    base_rows, new_rows = list(base_rows), list(new_rows)
    apart = _apart(base_rows, new_rows) if variants else frozenset()
    before = {_key(row, apart): row for row in base_rows}
    after = {_key(row, apart): row for row in new_rows}
    cells = tuple(
        CellComparison(
            before[key],
            row,
            tuple(_result(gate, before[key], row, paired=paired) for gate in gates),
            by_max_batch=len({other.max_batch for other in new_rows}) > 1,
        )
        for key, row in after.items()
        if key in before
    )
    return Comparison(
        base=base,
        new=new,
        gates=tuple(gates),
        cells=cells,
        only_base=tuple(label(row) for key, row in before.items() if key not in after),
        only_new=tuple(label(row) for key, row in after.items() if key not in before),
        differences=differences(base, new),
        paired=paired,
    )


def exit_code(comparison: Comparison) -> int:
    codes = {
        Change.REGRESSION: EXIT_MISSED,
        Change.INCONCLUSIVE: EXIT_INCONCLUSIVE,
        Change.NO_CHANGE: EXIT_OK,
    }
    return codes[comparison.change]


def unlike(base: RunRecord, new: RunRecord) -> list[str]:
    """Sentences on why two runs do not measure the same thing."""
    reasons = [
        f"The machines differ in {name}: {base.machine.get(name, 'none')} in {base.name}, "
        f"{new.machine.get(name, 'none')} in {new.name}."
        for name in _machine_names(base, new)
        if base.machine.get(name) != new.machine.get(name)
    ]
    for what, a, b in (("models", _models(base), _models(new)), ("weights", base.weights, new.weights)):
        if a != b:
            reasons.append(
                f"The {what} differ: {a or 'unknown'} in {base.name}, {b or 'unknown'} in {new.name}."
            )
    return reasons


def differences(base: RunRecord, new: RunRecord) -> tuple[tuple[str, str, str], ...]:
    """Everything that is not the same in the two records, for a reader to judge."""
    differing = []
    for part in ("machine", "versions", "spec"):
        a, b = getattr(base, part), getattr(new, part)
        names = [name for name in {**a, **b} if a.get(name) != b.get(name) and name not in _OURS]
        differing += [
            (f"{part}: {name}", str(a.get(name, "")), str(b.get(name, "")))
            for name in names
            if name != "parameters"
        ]
    differing += _differing_parameters(base, new)
    for part in ("target", "weights", "slo"):
        if getattr(base, part) != getattr(new, part):
            differing.append((part, getattr(base, part), getattr(new, part)))
    return tuple(differing)


def _differing_parameters(base: RunRecord, new: RunRecord) -> list[tuple[str, str, str]]:
    """Parameters of the model that were asked for, by name; `default` where one was not."""
    a, b = (
        {name: ", ".join(map(str, values)) for name, values in record.spec.get("parameters", ())}
        for record in (base, new)
    )
    return [
        (f"parameter {name}", a.get(name, "default"), b.get(name, "default"))
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]


def _machine_names(base: RunRecord, new: RunRecord) -> list[str]:
    gpus = {name for name in {**base.machine, **new.machine} if name.startswith("gpu") and name[3:].isdigit()}
    return [*_MACHINE, *sorted(gpus)]


def _models(record: RunRecord) -> str:
    return ", ".join(
        sorted({cell.server.model for cell in record.planned} or {str(record.spec.get("model", ""))})
    )


def _key(row: CellRow, apart: Collection[str] = ()) -> tuple[object, ...]:
    """What a cell is matched by; `apart`: settings of the server that are left out of it."""
    server = sorted((name, value) for name, value in _server(row).items() if name not in apart)
    return (row.engine, row.protocol, row.via, row.batch, row.concurrency, row.rate_per_s, row.arrival,
            row.shared_memory, *server)  # fmt: skip


def _server(row: CellRow) -> dict[str, object]:
    """Settings by name; what was left as it is has no entry."""
    known = {name: getattr(row, name) for name in _SETTINGS}
    return {name: v for name, v in {**known, **dict(row.parameters)}.items() if v is not None}


def _apart(*tables: Sequence[CellRow]) -> frozenset[str]:
    """Settings that have one value in each table, if not the same in both: what sets variants apart."""
    names = {name for table in tables for row in table for name in _server(row)}
    return frozenset(
        name for name in names if all(len({_server(row).get(name) for row in table}) == 1 for table in tables)
    )


def _result(gate: Gate, base: CellRow, new: CellRow, *, paired: bool) -> Result:
    a, b = values_of(base, gate.measure) or [], values_of(new, gate.measure) or []
    shown = (_shown(base, gate.measure), _shown(new, gate.measure))
    for name, row in (("base", base), ("new", new)):
        if row.verdict != "VALID":
            reasons = ", ".join(row.findings.split()) or row.reason or "no findings"
            why = f"The cell is {row.verdict} in {name}: {reasons}."
            return Result(gate, *shown, None, None, Change.INCONCLUSIVE, why)
    if not a or not b:
        return Result(gate, *shown, None, None, Change.INCONCLUSIVE, _too_few_samples(gate, base, new))
    interval = paired_ratio(a, b) if paired and len(a) == len(b) else ratio(a, b)
    change = change_of(interval, gate.limit, higher_is_worse=gate.higher_is_worse)
    why = _unsettled(interval, gate) if change is Change.INCONCLUSIVE else ""
    return Result(gate, *shown, interval, hodges_lehmann(a, b), change, why)


def _shown(row: CellRow, measure: str) -> float | None:
    if measure == "throughput":
        return row.throughput_img_per_s
    return row.latency_ms(float(measure.removeprefix("p")))


def _too_few_samples(gate: Gate, base: CellRow, new: CellRow) -> str:
    percent = float(gate.measure.removeprefix("p")) if gate.measure != "throughput" else PERCENTS[0]
    fewest = min(row.latency_n / max(1, row.repeats) for row in (base, new))
    needed = samples_needed(percent)
    return (
        f"{gate.measure} needs {needed} requests in each repeat, the fewest have about {fewest:.0f}: "
        "lengthen --duration."
    )


def _unsettled(interval: Interval | None, gate: Gate) -> str:
    if interval is None or interval.low is None:
        return f"An interval needs {LEAST_REPEATS} repeats of each: give --repeats {LEAST_REPEATS} or more."
    count = repeats_to_settle(interval, gate.limit)
    if count is None:
        return "The ratio lies on the gate itself."
    return f"The interval reaches across the gate: about {count} repeats of each would settle it."
