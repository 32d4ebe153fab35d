"""The cells of a run as a table for a terminal, or as markdown for a pull request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.labels import full_name, lacks_proof, latency, load_text, throughput, with_range
from bench.analysis.recommendation import (
    WIDE,
    Basis,
    Limit,
    Recommendation,
    Stated,
    overlap,
    recommend,
    stated,
)
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.core.findings import Severity
from bench.core.run_folder import RunRecord
from bench.core.slo import parse_slo
from bench.core.units import percent, plural, significant
from bench.report.mlperf import headline

# Shown where they are what sets two cells apart.
_SETTINGS: dict[str, Callable[[CellRow], object]] = {
    "model": lambda row: row.model,
    "max b.": lambda row: row.max_batch,
    "queue": lambda row: row.max_queue_delay_us,
    "memory": lambda row: row.shared_memory,
}
_LEFT = ("protocol", "via", "through", "load", "engine", "verdict", "model", "memory")
_STYLE = {"VALID": "green", "INVALID": "red", "FAILED": "red", "NOT RUN": "yellow"}


def show(rows: Sequence[CellRow], record: RunRecord, console: Console) -> None:
    """The answer, the table, then each finding once with the cells it is of. Plain without a terminal."""
    for line in summary(rows, record):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    kept = _used(rows)
    for heading in kept:
        table.add_column(escape(heading), justify="left" if heading in _LEFT else "right", no_wrap=True)
    for row in rows:
        cells, style = _cells(row), _STYLE.get(row.verdict, "none")
        table.add_row(
            *(f"[{style}]{escape(cells[c])}[/]" if c == "verdict" else escape(cells[c]) for c in kept)
        )
    # Without a terminal rich assumes 80 columns and would cut: files and pipes have no width.
    wide = console if console.is_terminal else Console(file=console.file, width=400, highlight=False)
    wide.print(table)
    for line in missing(rows):
        console.print(line, markup=False, soft_wrap=True)
    remarks = findings(rows)
    if remarks:
        console.print()
    for line in remarks:
        console.print(line, markup=False, soft_wrap=True)


def markdown(rows: Sequence[CellRow], record: RunRecord) -> str:
    """The same, for a comment."""
    kept = _used(rows)
    lines = [*(f"{line}  " for line in map(plain, summary(rows, record))), "", table_row(kept)]
    lines.append("|" + "|".join(" :--- " if name in _LEFT else " ---: " for name in kept) + "|")
    lines += [table_row([_cells(row)[name] for name in kept]) for row in rows]
    notes = [*missing(rows), *findings(rows)]
    return "\n".join([*lines, "", *(f"- {plain(line)}" for line in notes)]).rstrip() + "\n"


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell) for cell in cells)} |"


def plain(text: str) -> str:
    """Text of data in markdown: no markup, no HTML, no table cells, no line breaks of its own."""
    for character in "\\`*_[]|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def summary(rows: Sequence[CellRow], record: RunRecord) -> list[str]:
    """What a reader wants first: what to run, and whether to believe it."""
    slo = parse_slo(record.slo) if record.slo else None
    limit = Limit.of(slo) if slo else None
    choice = recommend(rows, limit)
    lines = [record.weights] if record.weights else []
    scenario = headline(rows, record)
    died = restarts(record)
    return [
        *lines,
        *([scenario] if scenario else []),
        *_answer(choice, limit, rows),
        *_trust(rows, choice),
        *([died] if died else []),
    ]


def restarts(record: RunRecord) -> str:
    """How often the server had to be started again, in a sentence; "" where it never died."""
    count = len(record.crashes)
    return f"tritonserver died {plural(count, 'time')} and was started again." if count else ""


def _answer(choice: Recommendation, limit: Limit | None, rows: Sequence[CellRow]) -> list[str]:
    best = choice.best
    if not choice.valid and any(row.verdict == "VALID" and row.fails_too_often for row in rows):
        return ["No cell is recommended: too many requests failed in each that is valid."]
    if not choice.valid:
        return ["No valid cell was measured."]
    bound = str(limit) if limit else ""
    if best is None and limit and choice.counts[Holds.UNKNOWN]:
        needed = samples_needed(limit.percent)
        return [
            f"Too few samples to tell what meets {bound}: p{limit.percent:g} needs {needed} requests "
            "per cell."
        ]
    if best is None:
        return [f"No measured configuration holds {bound}."]
    lead = f"For {bound} run" if limit else "For the most throughput run"
    why = "" if choice.proved or limit is None else lacks_proof(best, limit.percent)
    proved = "" if choice.proved else f" (likely, not proved{f'; {why}' if why else ''})"
    said = stated(best)
    images = with_range(said.value, said.low, said.high)
    lines = [f"{lead} {full_name(best, choice.valid)}: {images} img/s{proved}.", *_basis(best, said, choice)]
    if said.low and said.high and said.high / said.low > WIDE:
        lines.append("Its interval is wide: measure longer, with more repeats, or on a quieter machine.")
    if choice.next_best is not None:
        apart = {None: "", True: "; intervals overlap: choose either", False: "; clearly less"}
        distance = apart[overlap(best, choice.next_best)]
        other = full_name(choice.next_best, choice.valid)
        lines.append(f"Next best: {other}: {throughput(choice.next_best)} img/s{distance}.")
    if choice.quickest is not None:
        median = significant(choice.quickest.latency_ms(50.0) or 0)
        lines.append(f"Lowest median latency: {full_name(choice.quickest, choice.valid)}: {median} ms.")
    if limit is not None:
        counts = [f"{n} {verbs[n != 1]}" for kind, verbs in _HELD.items() if (n := choice.counts[kind])]
        lines.append(f"Of {len(choice.valid)} valid cells: {', '.join(counts)}.")
    return lines


def _basis(best: CellRow, said: Stated, choice: Recommendation) -> list[str]:
    """What the stated throughput rests on, and what the trials said that the cell was picked by."""
    fresh, lines = best.confirmed, []
    if fresh is not None and said.basis is not Basis.CONFIRMED:
        why = f": {fresh.verdict}, {fresh.findings}" if fresh.verdict != "VALID" else ": too few"
        lines.append(f"Not confirmed by its {plural(fresh.repeats, 'fresh trial')}{why}.")
    if said.basis is Basis.CONFIRMED and fresh is not None:
        lines.append(
            f"Confirmed: measured in {plural(fresh.repeats, 'fresh trial')} after it was picked; "
            f"it was picked with {throughput(best)} img/s."
        )
    if fresh is not None and fresh.slo_met is False:
        lines.append("Its fresh trials miss the SLO that was asked: choose less load, or measure longer.")
    if said.basis is Basis.CORRECTED:
        lines.append(
            f"Corrected for having been the best of {choice.candidates}; measured: {throughput(best)} img/s."
        )
    return lines


# What is said of one valid cell, and of several.
_HELD = {
    Holds.YES: ("meets the SLO", "meet the SLO"),
    Holds.LIKELY: ("probably does", "probably do"),
    Holds.NO: ("misses it", "miss it"),
    Holds.UNKNOWN: ("has too few samples to tell", "have too few samples to tell"),
}


def _trust(rows: Sequence[CellRow], choice: Recommendation) -> list[str]:
    lines = []
    counts = {word: sum(row.verdict == word for row in rows) for word in _STYLE}
    if counts["VALID"] < len(rows):
        lines.append(f"Cells: {', '.join(f'{n} {word}' for word, n in counts.items() if n)}.")
    failing = [row for row in rows if row.verdict == "VALID" and row.fails_too_often]
    if failing:
        worst = max(failing, key=lambda row: row.errors / row.asked)
        lines.append(
            f"Not recommended, as too many requests failed: {plural(len(failing), 'cell')} (up to "
            f"{percent(worst.errors / worst.asked)} of the requests)."
        )
    if any(row.throughput_img_per_s_low is None for row in choice.valid):
        lines.append("Fewer than three repeats: no confidence intervals; the figures are indicative.")
    return lines


def missing(rows: Sequence[CellRow]) -> list[str]:
    """Why some percentiles are n/a, or have no upper bound: a line for all of them."""
    lacking = {
        f"p{p.percent:g} needs {p.needed}"
        for row in rows
        for p in row.percentiles
        if p.percent in (50.0, 99.0) and row.latency_n and p.value_ns is None
    }
    lines = [f"n/a: too few samples (n); {', '.join(sorted(lacking))}."] if lacking else []
    unbounded = [
        row for row in rows if row.latency_p99_ms_low is not None and row.latency_p99_ms_high is None
    ]
    if unbounded:
        least = ", ".join(f"> {significant(row.latency_p99_ms_low or 0)} ms" for row in unbounded[:3])
        more = ", ..." if len(unbounded) > 3 else ""
        seconds = max((row.proof_s[PERCENTS.index(99.0)] or 0 for row in unbounded), default=0)
        longer = f" Use --duration {significant(seconds, 2)}s or more." if seconds else ""
        lines.append(
            f"No upper bound of p99 in {plural(len(unbounded), 'cell')} ({least}{more}): late requests come "
            f"in clusters, or had no answer in time.{longer}"
        )
    return lines


def findings(rows: Sequence[CellRow]) -> list[str]:
    """Each finding once, the most severe first, with how many cells have it and what to do."""
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        if row.verdict == "FAILED" and not row.remarks:
            _count(seen, ("FAILED", row.reason), row.reason)
        for finding in row.remarks:
            if finding.severity is not Severity.NOTE:
                text = f"{finding.seen} {finding.cause} {finding.next_step}"
                _count(seen, (finding.severity.value, finding.code), text)
    order = ("FAILED", *(severity.value for severity in Severity))
    return [
        f"{severity}{'' if severity == 'FAILED' else f' {code}'} ({n} cell{'' if n == 1 else 's'}): {text}"
        for (severity, code), (n, text) in sorted(seen.items(), key=lambda item: order.index(item[0][0]))
    ]


def _count(seen: dict[tuple[str, str], tuple[int, str]], key: tuple[str, str], text: str) -> None:
    count, first = seen.get(key, (0, text))
    seen[key] = (count + 1, first)


def _cells(row: CellRow) -> dict[str, str]:
    return {
        "protocol": row.protocol,
        "batch": str(row.batch),
        "pods": "" if row.replicas is None else str(row.replicas),
        "via": row.via or "",
        "through": row.way or "",
        "inst.": "" if row.instances is None else str(row.instances),
        "model": row.model,
        "max b.": "" if row.max_batch is None else str(row.max_batch),
        "queue": "" if row.max_queue_delay_us is None else _queue(row.max_queue_delay_us),
        "memory": row.shared_memory,
        "load": load_text(row),
        "engine": row.engine,
        "img/s": throughput(row) if row.throughput_img_per_s else "",
        "req/s": significant(row.throughput_req_per_s) if row.throughput_req_per_s else "",
        "p50 ms": _or_missing(row, 50.0),
        "p99 ms": _or_missing(row, 99.0),
        "n": str(row.latency_n) if row.latency_n else "",
        "errors": str(row.errors) if row.errors else "",
        "within SLO": {True: "yes", False: "no", None: "not proved"}[row.slo_met] if row.latency_n else "",
        "engines": row.agreement or "",
        "verdict": row.verdict,
        **dict(row.parameters),
    }


def _queue(us: int) -> str:
    return "off" if us == -1 else f"{significant(us / 1e3)} ms"


def _or_missing(row: CellRow, percent: float) -> str:
    return latency(row, percent) or ("n/a" if row.latency_n else "")


def _used(rows: Sequence[CellRow]) -> list[str]:
    """The columns there is something to say in."""
    parameters = sorted({name for row in rows for name in row.parameters})
    engines = ["engine"] if len({row.engine for row in rows}) > 1 else []
    errors = ["errors"] if any(row.errors for row in rows) else []
    slo = ["within SLO"] if any(row.goodput_img_per_s is not None for row in rows) else []
    agreement = ["engines"] if any(row.agreement for row in rows) else []
    pods = ["pods"] if any(row.replicas is not None for row in rows) else []
    via = ["via"] if len({row.via for row in rows}) > 1 else []
    way = ["through"] if any(row.way for row in rows) else []
    differing = [name for name, of in _SETTINGS.items() if len({of(row) for row in rows}) > 1]
    figures = ["img/s", "req/s", "p50 ms", "p99 ms", "n"]
    return [
        "protocol",
        *via,
        *way,
        "batch",
        *pods,
        "inst.",
        "load",
        *differing,
        *parameters,
        *engines,
        *figures,
        *errors,
        *slo,
        *agreement,
        "verdict",
    ]
