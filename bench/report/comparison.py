"""A comparison as text, markdown, HTML or JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape as rich_escape
from rich.table import Table

from bench.analysis.comparison import Comparison, Result
from bench.analysis.power import POWER
from bench.analysis.stats import Change
from bench.core.gates import Gate
from bench.core.units import percent, plural, significant
from bench.report import templates
from bench.report.terminal import plain, table_row

_STYLE = {"regression": "red", "inconclusive": "yellow", "better": "green", "no change": "none"}
_HTML_HEADINGS = (
    "verdict",
    "cell",
    "gate",
    "",
    "base",
    "new",
    "new / base",
    "95 % interval",
    "Hodges-Lehmann",
)
_HEADINGS = ("cell", "gate", "base", "new", "new / base", "95 % interval", "Hodges-Lehmann", "verdict")


def render(comparison: Comparison, form: str) -> str:
    """`form`: table, md, html or json."""
    return {"table": as_table, "md": as_markdown, "html": as_html, "json": as_json}[form](comparison)


def headline(comparison: Comparison) -> str:
    """The verdict and what it is made of, in a sentence."""
    return f"{verdict(comparison)}{_counts(comparison)}."


def verdict(comparison: Comparison) -> str:
    words = {
        Change.REGRESSION: "Regression",
        Change.INCONCLUSIVE: "Inconclusive",
        Change.NO_CHANGE: "No regression",
    }
    return f"{words[comparison.change]}: {comparison.new.name} against {comparison.base.name}"


def _counts(comparison: Comparison) -> str:
    if not comparison.cells:
        return ", which have no cell in common"
    results = [result for cell in comparison.cells for result in cell.results]
    counts = {word: sum(result.word == word for result in results) for word in _STYLE}
    named = {word: f"{n} {word}" for word, n in counts.items() if n}
    if counts["regression"]:
        named["regression"] = plural(counts["regression"], "regression")
    outcomes = ", ".join(named.values())
    gates = ", ".join(str(gate) for gate in comparison.gates)
    return f"; {plural(len(comparison.cells), 'cell')}, gates {gates}: {outcomes}"


def notes(comparison: Comparison) -> list[str]:
    """What is inconclusive and what would settle it; what was not compared; what else differs."""
    by_reason: dict[str, list[str]] = {}
    for cell in comparison.cells:
        for result in cell.results:
            if result.why:
                by_reason.setdefault(result.why, []).append(f"{cell.name} {result.gate}")
    lines = [f"{_few(cells)}: {why}" for why, cells in by_reason.items()]
    for name, cells in (
        (comparison.base.name, comparison.only_base),
        (comparison.new.name, comparison.only_new),
    ):
        lines += [f"Only in {name}: {_few(list(cells))}."] if cells else []
    lines += [f"Differs in {what}: {a or 'none'} -> {b or 'none'}." for what, a, b in comparison.differences]
    lines += [sentence for gate in comparison.gates if (sentence := _seen(comparison, gate))]
    if comparison.paired:
        lines.append("Ratios are paired: trials of both runs were interleaved.")
    if comparison.cells:
        lines.append(
            "Intervals are of each cell alone. A regression holds for all cells and gates together: "
            "at most 5 % of comparisons without any change name one."
        )
    if comparison.luck:
        lines.append(
            "The luck of a server's start is not in the intervals, because the model stayed loaded: what all "
            f"cells have in common is a regression only beyond a luck of {comparison.luck:.0%} a start. "
            "With --reload repeat in both runs, or measured interleaved as bench sweep --against does, it is "
            "in them."
        )
    return lines


def _seen(comparison: Comparison, gate: Gate) -> str:
    """The smallest change that such a comparison sees by this gate, in the typical and the worst cell."""
    results = [
        r for cell in comparison.cells for r in cell.results if r.gate == gate and r.spread is not None
    ]
    if not results:
        return ""
    spreads = sorted(result.spread or 0.0 for result in results)
    known = sorted(math.inf if result.smallest is None else result.smallest for result in results)
    said = f"{gate}: with repeats that spread as measured (sd {percent(spreads[len(spreads) // 2])}"
    if known[len(known) // 2] == math.inf:
        return f"{said}), no change of a single cell is seen in {POWER:.0%} of such comparisons."
    worst = f" ({_up_to(known[-1])} in the cell that spreads most)" if len(known) > 1 else ""
    of_cells = " in the typical cell" if len(known) > 1 else ""
    return (
        f"{said}{of_cells}), {POWER:.0%} of such comparisons see a change of "
        f"{percent(known[len(known) // 2])} or more{worst}."
    )


def _up_to(change: float) -> str:
    return "none" if change == math.inf else percent(change)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _rows(comparison: Comparison) -> Iterator[tuple[list[str], Result]]:
    for cell in comparison.cells:
        for result in cell.results:
            values = [_value(result, value) for value in (result.base, result.new)]
            ratio = _number(result, result.interval.value) if result.interval else "n/a"
            middle = f"{result.hodges_lehmann:.3f}" if result.hodges_lehmann else "n/a"
            yield (
                [cell.name, str(result.gate), *values, ratio, _bounds(result), middle, result.word],
                result,
            )


def _value(result: Result, value: float | None) -> str:
    if value is None or not (value or result.gate.is_difference):
        return "n/a"
    if result.gate.is_difference:
        return f"{significant(value * 100)} %"
    return f"{significant(value)} {'img/s' if result.gate.measure == 'throughput' else 'ms'}"


def _number(result: Result, value: float) -> str:
    """A ratio, or a difference of shares with its sign."""
    return f"{value * 100:+.2f} %" if result.gate.is_difference else f"{value:.3f}"


def _bounds(result: Result) -> str:
    interval = result.interval
    if interval is None or interval.low is None or interval.high is None:
        return "n/a"
    between = " to " if result.gate.is_difference else "-"
    return f"{_number(result, interval.low)}{between}{_number(result, interval.high)}"


def as_table(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=400, highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for cells, result in _rows(comparison):
        table.add_row(*(rich_escape(cell) for cell in cells[:-1]), f"[{_STYLE[result.word]}]{cells[-1]}[/]")
    console.print(headline(comparison), markup=False)
    console.print(table)
    for line in notes(comparison):
        console.print(line, markup=False)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    return "\n".join(line.rstrip() for line in text.splitlines())


def as_markdown(comparison: Comparison) -> str:
    lines = [f"**{plain(headline(comparison))}**", "", table_row(_HEADINGS), "|" + " --- |" * len(_HEADINGS)]
    lines += [table_row(cells) for cells, _ in _rows(comparison)]
    return "\n".join([*lines, "", *(f"- {plain(line)}" for line in notes(comparison))]).rstrip() + "\n"


def as_json(comparison: Comparison) -> str:
    return json.dumps(
        {
            "verdict": str(comparison.change),
            "base": comparison.base.name,
            "new": comparison.new.name,
            "gates": [str(gate) for gate in comparison.gates],
            "power": POWER,  # of every smallest_change and repeats_to_settle
            "luck_allowed": comparison.luck,
            "cells": [
                {"cell": cell.new.cell, "results": [_json(result) for result in cell.results]}
                for cell in comparison.cells
            ],
            "only_base": comparison.only_base,
            "only_new": comparison.only_new,
            "differences": comparison.differences,
        },
        indent=1,
    )


def _json(result: Result) -> dict[str, Any]:
    interval = result.interval
    return {
        "gate": str(result.gate),
        "base": result.base,
        "new": result.new,
        "ratio": interval.value if interval and not result.gate.is_difference else None,
        "difference": interval.value if interval and result.gate.is_difference else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "hodges_lehmann": result.hodges_lehmann,
        "verdict": result.word,
        "why": result.why,
        "spread": result.spread,
        "smallest_change": result.smallest,
        "repeats_to_settle": result.repeats,
    }


def as_html(comparison: Comparison) -> str:
    """One file without scripts; the intervals are drawn as SVG on a common log axis."""
    half_axis = _half_axis(comparison)
    return templates.render(
        "comparison.html",
        kind="Comparison of two runs",
        heading=f"{verdict(comparison)}.",
        facts=f"{_counts(comparison).lstrip(';, ')}. Intervals are 95 % over repeats, drawn on a log axis. "
        "Full line: no change; dashed line: the gate; right: more.",
        headings=_HTML_HEADINGS,
        rows=[_html_row(cells, result, half_axis) for cells, result in _rows(comparison)],
        notes=notes(comparison),
    )


def _html_row(cells: Sequence[str], result: Result, half_axis: float) -> dict[str, Any]:
    *others, word = cells
    return {
        "word": word,
        "style": word.split()[0],
        "before": others[:2],
        "interval": _interval_places(result, half_axis),
        "after": others[2:],
    }


def _half_axis(comparison: Comparison) -> float:
    """Half the axis, as a logarithm: enough for every interval and gate, at least 10 %, at most 4 times."""
    ratios = [1.1]
    for cell in comparison.cells:
        for result in cell.results:
            if result.interval and not result.gate.is_difference:
                bounds = (result.interval.value, result.interval.low, result.interval.high)
                ratios += [result.gate.limit, *(value for value in bounds if value)]
    return min(math.log(4), max(abs(math.log(value)) for value in ratios) * 1.1)


def _interval_places(result: Result, half_axis: float) -> dict[str, float] | None:
    """Where an interval and its gate stand, in pixels of a drawing that is 200 wide."""
    if result.interval is None or result.gate.is_difference:
        return None

    def place(ratio: float) -> float:
        return round(100 + 96 * max(-1.0, min(1.0, math.log(ratio) / half_axis)), 1)

    value = result.interval.value
    ratios = {
        "gate": result.gate.limit,
        "low": result.interval.low or value,
        "high": result.interval.high or value,
        "value": value,
    }
    return {name: place(ratio) for name, ratio in ratios.items()}
