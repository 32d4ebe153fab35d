"""Two runs, cell by cell: did it get worse by more than a gate allows, and can that be told?

A gate says how much worse a figure may get, such as `p99>+5%` or `throughput<-3%`. Ratios new / base come
with an interval over repeats: paired where trials of both were interleaved, else of two groups. The interval
decides, and Hodges-Lehmann's estimate stands beside it. A regression is beyond the gate by its one-sided
bound, and also has to hold among all cells and gates (`many_cells`). Where more requests fail, nothing
else is concluded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.engine_agreement import by_repeat, values_of
from bench.analysis.failures import rise_of, share
from bench.analysis.labels import label
from bench.analysis.many_cells import (
    COMMON_LEVEL,
    LUCK_OF_A_START,
    SINGLE_LEVEL,
    Evidence,
    Measured,
    evidence,
    holm,
)
from bench.analysis.power import (
    MOST_REPEATS,
    POWER,
    Design,
    measured_spread,
    repeats_to_settle,
    smallest_change,
)
from bench.analysis.results import RunResults
from bench.analysis.stats import (
    CONFIDENCE,
    LEAST_REPEATS,
    Change,
    Interval,
    change_of,
    hodges_lehmann,
    samples_needed,
)
from bench.core.cell import Engine
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_OK, WrongUse
from bench.core.gates import ERRORS, Gate, with_errors
from bench.core.run_folder import RunRecord
from bench.core.spec import Reload

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
    interval: Interval | None  # of new / base, errors: of new - base; not adjusted for the number of cells
    hodges_lehmann: float | None
    change: Change
    why: str = ""
    spread: float | None = None  # standard deviation of a repeat's logarithm, as measured
    smallest: float | None = None  # the change that POWER of such comparisons see, as a share of base
    repeats: int | None = None  # of each run: so many settle an inconclusive one in POWER of new runs

    @property
    def word(self) -> str:
        """The change; `better` where the interval clears the gate's mirror image."""
        bounds = None if self.gate.is_difference else self.interval
        if self.change is Change.NO_CHANGE and bounds and bounds.low is not None and bounds.high is not None:
            mirror = 1 / self.gate.limit
            if (bounds.high < mirror) if self.gate.higher_is_worse else (bounds.low > mirror):
                return "better"
        return str(self.change)


@dataclass(frozen=True, slots=True)
class Pairing:
    """`paired`: repeats of the same number belong together. `rounds`: of interleaved runs, else 0."""

    paired: bool
    rounds: int = 0

    def is_reversed(self, repeat: int) -> bool:
        """Whether `new` came before `base`: in every second round, as `ab_test.participants` orders them."""
        return self.rounds > 0 and repeat % self.rounds % 2 == 1


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
    luck: float = 0.0  # of a start, that is not in the intervals, as it is allowed for

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
    """Judge `new` against `base`. Interleaved runs are both `paired` and `variants`.

    `paired`: their trials were interleaved, repeat by repeat. `variants`: they are meant to differ in those
    settings of the server that have one value in each run.

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
        with_errors(gates),
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
    matched = [(before[key], row) for key, row in after.items() if key in before]
    luck = 0.0 if has_luck(base, new) else LUCK_OF_A_START
    several = len({row.max_batch for row in new_rows}) > 1
    pairing = Pairing(paired, int(new.spec.get("repeats", 0)) if took_turns(base, new) else 0)
    judged = _judged(matched, gates, pairing, luck)
    cells = tuple(
        CellComparison(*rows, results, by_max_batch=several)
        for rows, results in zip(matched, judged, strict=True)
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
        luck=luck,
    )


def has_luck(base: RunRecord, new: RunRecord) -> bool:
    """Whether repeats hold the luck of a start: the model was loaded for each of them.

    Interleaved runs that do not say so are older: those on one model loaded it when its turn came.
    """
    told = [record.spec.get("reload") for record in (base, new)]
    if None in told:
        return took_turns(base, new) and base.spec.get("model") == new.spec.get("model")
    return all(reload == Reload.REPEAT for reload in told)


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


def _judged(
    matched: Sequence[tuple[CellRow, CellRow]], gates: Sequence[Gate], pairing: Pairing, luck: float
) -> list[tuple[Result, ...]]:
    """Every gate on every pair of rows. A regression holds for all of them together: at most 5 % of
    comparisons in which nothing changed have even one.
    """
    columns = [_measure(gate, matched, pairing, luck) for gate in gates]
    sure, rising = _surely_worse(columns), _rising(matched)
    design = Design(
        repeats=0,
        paired=pairing.paired,
        alternates=pairing.rounds > 0,
        cells=len(matched),
        starts=len({tuple(sorted(_server(new).items())) for _, new in matched}),
        gates=len(gates),
        luck=luck,
    )
    results = []
    for place, (base, new) in enumerate(matched):
        of_cell = [
            _advised(_doubted(*column[place], luck) if place not in of_gate else column[place][0],
                     column[place][1], design)
            for column, of_gate in zip(columns, sure, strict=True)
        ]  # fmt: skip
        results.append(_beside_failures(of_cell, base, new, is_rising=place in rising))
    return results


_Column = list[tuple[Result, Evidence | None]]  # one gate on every cell, before the others are looked at


def _measure(
    gate: Gate, matched: Sequence[tuple[CellRow, CellRow]], pairing: Pairing, luck: float
) -> _Column:
    refused = [_refused(gate, base, new) for base, new in matched]
    known = [rows for rows, why in zip(matched, refused, strict=True) if not why]
    if gate.is_difference:
        found = [rise_of(base.repeat_failures, new.repeat_failures) for base, new in known]
    else:
        cells = [_measured(gate.measure, base, new) for base, new in known]
        found = evidence(
            cells,
            higher_is_worse=gate.higher_is_worse,
            paired=pairing.paired,
            luck=luck,
            is_reversed=pairing.is_reversed,
        )
    rest = iter(found)
    return [
        (Result(gate, *_shown(gate.measure, *rows), None, None, Change.INCONCLUSIVE, why), None)
        if why
        else _compared(gate, *rows, next(rest))
        for rows, why in zip(matched, refused, strict=True)
    ]


def _compared(gate: Gate, base: CellRow, new: CellRow, found: Evidence) -> tuple[Result, Evidence]:
    change = change_of(found.interval, gate.limit, higher_is_worse=gate.higher_is_worse)
    if change_of(found.one_sided, gate.limit, higher_is_worse=gate.higher_is_worse) is Change.REGRESSION:
        change = Change.REGRESSION
    if gate.is_difference and not new.errors:
        change = Change.NO_CHANGE  # requests too few to exclude a rise are no doubt while none of them failed
    why = _unsettled(found.interval, gate) if change is Change.INCONCLUSIVE else ""
    middle = None
    if not gate.is_difference:
        middle = hodges_lehmann(values_of(base, gate.measure) or [], values_of(new, gate.measure) or [])
    return Result(gate, *_shown(gate.measure, base, new), found.interval, middle, change, why), found


def _surely_worse(columns: Sequence[_Column]) -> list[set[int]]:
    """Of each gate, the cells that are worse for sure: by themselves, or with all their peers."""
    singles = [
        (gate, place, found)
        for gate, column in enumerate(columns)
        for place, (_, found) in enumerate(column)
        if found is not None
    ]
    by_peers = {(gate, e.peers): e.p_common for gate, _, e in singles if e.p_common is not None}
    alone = holm([1.0 if e.p_single is None else e.p_single for _, _, e in singles], SINGLE_LEVEL)
    together = dict(zip(by_peers, holm(list(by_peers.values()), COMMON_LEVEL), strict=True))
    sure: list[set[int]] = [set() for _ in columns]
    for (gate, place, found), is_sure in zip(singles, alone, strict=True):
        if is_sure or together.get((gate, found.peers), False):
            sure[gate].add(place)
    return sure


def _doubted(result: Result, found: Evidence | None, luck: float) -> Result:
    """A change beyond the gate that is not sure among all cells and gates is no regression."""
    if result.change is not Change.REGRESSION or found is None:
        return result
    why = "The change is beyond the gate, but among so many cells and gates that can be chance" + (
        f", or the luck of a server's start ({luck:.0%} is allowed for)." if luck else "."
    )
    return replace(result, change=Change.INCONCLUSIVE, why=why)


def _advised(result: Result, found: Evidence | None, design: Design) -> Result:
    """The result with what such a comparison would see, and of an inconclusive one what settles it."""
    gate, interval = result.gate, result.interval
    if found is None or found.error is None or interval is None or gate.is_difference:
        return result
    sign = 1 if gate.higher_is_worse else -1
    limit, estimate = sign * math.log(gate.limit), sign * math.log(interval.value)
    design = replace(design, repeats=interval.n)
    spread = measured_spread(design, found.error, found.degrees)
    least = smallest_change(design, limit, spread)
    measured = replace(
        result, spread=spread.value, smallest=None if least is None else abs(math.expm1(sign * least))
    )
    if result.change is not Change.INCONCLUSIVE:
        return measured
    count = repeats_to_settle(design, limit, estimate, spread)
    return replace(measured, repeats=count, why=f"{result.why} {_settling(count, design)}")


def _settling(count: int | None, design: Design) -> str:
    """The sentence on how many repeats settle a comparison."""
    if count is not None:
        return f"About {count} repeats of each settle it in {POWER:.0%} of new runs."
    if design.luck:
        return "More repeats of the same starts do not settle it: measure both with --reload repeat."
    return f"{MOST_REPEATS} repeats of each do not settle it."


def _rising(matched: Sequence[tuple[CellRow, CellRow]]) -> set[int]:
    """The cells in which more requests fail for sure, or in which too few repeats can tell.

    Where requests rarely fail, more of them fail in some of many cells by chance: hence Holm's procedure.
    """
    found = {
        place: rise_of(base.repeat_failures, new.repeat_failures).p_single
        for place, (base, new) in enumerate(matched)
        if share(base.repeat_failures) is not None and share(new.repeat_failures) is not None
    }
    sure = holm([0.0 if p is None else p for p in found.values()], (1 - CONFIDENCE) / 2)
    return {place for place, is_sure in zip(found, sure, strict=True) if is_sure}


def _beside_failures(
    results: Sequence[Result], base: CellRow, new: CellRow, *, is_rising: bool
) -> tuple[Result, ...]:
    """Where more requests fail, figures of those that got through decide nothing."""
    before, after = share(base.repeat_failures), share(new.repeat_failures)
    if before is None or after is None or after <= before:
        return tuple(results)
    is_settled = all(r.change is Change.NO_CHANGE for r in results if r.gate.is_difference)
    if is_settled and not is_rising:
        return tuple(results)
    why = (
        f"More requests fail in new ({after:.2%} against {before:.2%}), and the figure is of the others: "
        "remove the errors first."
    )
    return tuple(
        result if result.gate.is_difference else replace(result, change=Change.INCONCLUSIVE, why=why)
        for result in results
    )


def _measured(measure: str, base: CellRow, new: CellRow) -> Measured:
    """Logarithms by number of the repeat; cells of one server configuration share its start."""
    before, after = (
        {number: math.log(value) for number, value in by_repeat(row, measure).items()} for row in (base, new)
    )
    return Measured(before, after, tuple(sorted(_server(new).items())))


def _refused(gate: Gate, base: CellRow, new: CellRow) -> str:
    """Why the two rows cannot be compared by this gate; empty where they can."""
    for name, row in (("base", base), ("new", new)):
        if row.verdict != "VALID":
            reasons = ", ".join(row.findings.split()) or row.reason or "no findings"
            return f"The cell is {row.verdict} in {name}: {reasons}."
    if gate.is_difference:
        known = share(base.repeat_failures) is not None and share(new.repeat_failures) is not None
        return "" if known else "A run has no requests: lengthen --duration."
    values = [values_of(row, gate.measure) or [] for row in (base, new)]
    if not all(values):
        return _too_few_samples(gate, base, new)
    if min(map(min, values)) <= 0:
        return "In a repeat no request got through, so there is no ratio: look at its errors."
    return ""


def _shown(measure: str, base: CellRow, new: CellRow) -> tuple[float | None, float | None]:
    if measure == ERRORS:
        return share(base.repeat_failures), share(new.repeat_failures)
    if measure == "throughput":
        return base.throughput_img_per_s, new.throughput_img_per_s
    percent = float(measure.removeprefix("p"))
    return base.latency_ms(percent), new.latency_ms(percent)


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
    if gate.is_difference:
        return "The interval reaches across the gate: measure longer, or with more repeats."
    return "The interval reaches across the gate."
