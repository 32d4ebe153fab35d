"""A comparison as text, markdown, HTML or JSON; and what the command needs of it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from rich.console import Console
from rich.markup import escape as rich_escape
from rich.table import Table

from bench.analysis.comparison import Comparison, Result, compare, exit_code
from bench.analysis.stats import Change, Interval
from bench.core.gates import Gate, parse_gate
from bench.core.units import plural, significant
from bench.report.static_page import static_page
from bench.report.terminal import plain, table_row

__all__ = ["Comparison", "Gate", "compare", "exit_code", "parse_gate", "render"]

_STYLE = {"regression": "red", "inconclusive": "yellow", "better": "green", "no change": "none"}
_STYLES = """
.regression { color: var(--bad); } .inconclusive { color: var(--warn); } .better { color: var(--good); }"""
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
    said = ", ".join(named.values())
    gates = ", ".join(str(gate) for gate in comparison.gates)
    return f"; {plural(len(comparison.cells), 'cell')}, gates {gates}: {said}"


def notes(comparison: Comparison) -> list[str]:
    """What is inconclusive and what would settle it; what was not compared; what else differs."""
    found: dict[str, list[str]] = {}
    for cell in comparison.cells:
        for result in cell.results:
            if result.why:
                found.setdefault(result.why, []).append(f"{cell.name} {result.gate}")
    lines = [f"{_few(cells)}: {why}" for why, cells in found.items()]
    for name, cells in (
        (comparison.base.name, comparison.only_base),
        (comparison.new.name, comparison.only_new),
    ):
        lines += [f"Only in {name}: {_few(list(cells))}."] if cells else []
    lines += [f"Differs in {what}: {a or 'none'} -> {b or 'none'}." for what, a, b in comparison.differences]
    if comparison.paired:
        lines.append("Ratios are paired: trials of both took turns.")
    return lines


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _rows(comparison: Comparison) -> Iterator[tuple[list[str], Result]]:
    for cell in comparison.cells:
        for result in cell.results:
            unit = "img/s" if result.gate.measure == "throughput" else "ms"
            values = [f"{significant(v)} {unit}" if v else "n/a" for v in (result.base, result.new)]
            ratio = f"{result.interval.value:.3f}" if result.interval else "n/a"
            middle = f"{result.hodges_lehmann:.3f}" if result.hodges_lehmann else "n/a"
            yield (
                [cell.name, str(result.gate), *values, ratio, _bounds(result.interval), middle, result.word],
                result,
            )


def _bounds(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "n/a"
    return f"{interval.low:.3f}-{interval.high:.3f}"


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
        "ratio": interval.value if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "hodges_lehmann": result.hodges_lehmann,
        "verdict": result.word,
        "why": result.why,
    }


def as_html(comparison: Comparison) -> str:
    """One file without scripts; the intervals are drawn as SVG on a common log axis."""
    span = _span(comparison)
    body = "".join(_html_row(cells, result, span) for cells, result in _rows(comparison))
    head = "".join(f"<th class=left scope=col>{escape(name)}</th>" for name in _HTML_HEADINGS)
    said = "".join(f"<li>{escape(line)}</li>" for line in notes(comparison)) or "<li>None.</li>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return static_page(
        kind="Comparison of two runs",
        heading=f"{verdict(comparison)}.",
        facts=f"{_counts(comparison).lstrip(';, ')}. Intervals are 95 % over repeats, drawn on a log axis; "
        "full line: no change, dashed: the gate, right: more.",
        body=f'<section><div class="scroll">{table}</div></section>'
        f"<section><h2>Notes</h2><ul>{said}</ul></section>",
        style=_STYLES,
    )


def _html_row(cells: Sequence[str], result: Result, span: float) -> str:
    """The verdict first: it is what a narrow screen shows."""
    *others, word = cells
    shown = [
        f'<b class="{word.split()[0]}">{escape(word)}</b>',
        *map(escape, others[:2]),
        _drawn(result, span),
    ]
    return f"<tr>{''.join(f'<td class=left>{cell}</td>' for cell in (*shown, *map(escape, others[2:])))}</tr>"


def _span(comparison: Comparison) -> float:
    """Half the axis, as a logarithm: wide enough for every interval and gate, at least 10 %."""
    ratios = [1.1]
    for cell in comparison.cells:
        for result in cell.results:
            interval = result.interval
            ratios += (
                [result.gate.limit, *(v for v in (interval.value, interval.low, interval.high) if v)]
                if interval
                else []
            )
    return min(math.log(4), max(abs(math.log(value)) for value in ratios) * 1.1)


def _drawn(result: Result, span: float) -> str:
    if result.interval is None:
        return ""

    def x(ratio: float) -> float:
        return round(100 + 96 * max(-1.0, min(1.0, math.log(ratio) / span)), 1)

    low, high = result.interval.low or result.interval.value, result.interval.high or result.interval.value
    return (
        '<svg width="200" height="18" role="img" aria-label="interval">'
        '<line x1="100" x2="100" y1="1" y2="17" stroke="currentColor" opacity="0.35"/>'
        f'<line x1="{x(result.gate.limit)}" x2="{x(result.gate.limit)}" y1="1" y2="17" '
        'stroke="var(--bad)" stroke-dasharray="2 2"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="9" y2="9" stroke="currentColor" stroke-width="1.6"/>'
        f'<circle cx="{x(result.interval.value)}" cy="9" r="3.6" fill="currentColor"/></svg>'
    )
