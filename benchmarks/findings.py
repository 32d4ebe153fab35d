"""What a benchmark found: tables for a terminal and for docs/results/, JSON for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from bench.analysis.stats import Interval
from bench.core.units import bytes_text
from bench.core.version import __version__
from bench.sensors import environment

ROOT = Path(__file__).parents[1]
JSON_FOLDER = ROOT / "benchmarks" / "results"
DOCS_FOLDER = ROOT / "docs" / "results"
OPEN = "`open` means not decided, for example because the interval includes the goal."
_PACKAGES = ("locust", "gevent", "numpy")


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """`met`: yes, no, or open where the interval lies across the goal."""

    text: str
    figure: str
    met: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    name: str
    title: str
    about: str  # how it was measured, one paragraph
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    tables: tuple[Table, ...]
    goals: tuple[Goal, ...]
    figures: Any  # everything measured, for JSON
    others_percent: float = 0.0  # of the machine's CPU, by others, just before
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def with_goals(self) -> tuple[Table, ...]:
        rows = tuple((goal.text, goal.figure, goal.met) for goal in self.goals)
        return (Table("Goals", ("goal", "measured", "met"), rows, OPEN), *self.tables)


def versions(**more: str) -> dict[str, str]:
    return {"bench": __version__, **{name: version(name) for name in _PACKAGES}, **more}


def met(low: float | None, value: float, high: float | None, goal: float, *, at_least: bool) -> str:
    """Does [low, high] lie on the right side of the goal? Without bounds the value itself decides."""
    ends = [value if end is None else end for end in (low, high)]
    right = [end >= goal if at_least else end <= goal for end in ends]
    return "yes" if all(right) else "open" if any(right) else "no"


def interval_text(interval: Interval | None, unit: str = "") -> str:
    if interval is None:
        return "n/a"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3g}{unit}"
    return f"{interval.value:.3g}{unit} ({interval.low:.3g}-{interval.high:.3g})"


def publish(findings: Findings, console: Console, *, docs: bool) -> None:
    """Print, write JSON, and renew the page of docs/results/ when asked."""
    show(findings, console)
    JSON_FOLDER.mkdir(parents=True, exist_ok=True)
    data = {**asdict(findings), "machine": environment.machine()}
    (JSON_FOLDER / f"{findings.name}.json").write_text(json.dumps(data, indent=1) + "\n")
    if docs:
        DOCS_FOLDER.mkdir(parents=True, exist_ok=True)
        (DOCS_FOLDER / f"{findings.name}.md").write_text(markdown(findings, environment.machine()))


def show(findings: Findings, console: Console) -> None:
    console.print(f"\n[bold]{findings.title}[/bold]", highlight=False)
    for table in findings.with_goals():
        shown = RichTable(title=table.title, title_justify="left", caption=table.note or None)
        for position, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if position == 0 else "right")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def markdown(findings: Findings, of_machine: Mapping[str, str]) -> str:
    command = f"python -m benchmarks {findings.name}"
    said = [
        f"# {findings.title}",
        findings.about,
        _facts(findings, of_machine),
        *(_section(table) for table in findings.with_goals()),
        f"To measure again: `{command}`, on a machine where nothing else runs.",
    ]
    return "\n\n".join(said) + "\n"


def _facts(findings: Findings, of_machine: Mapping[str, str]) -> str:
    memory = bytes_text(int(of_machine["memory_bytes"]))
    about = {
        "measured": findings.at,
        "machine": f"{of_machine['cpu']}, {of_machine['cores']} usable cores, {memory}, {of_machine['os']}",
        "versions": _listed({"Python": of_machine["python"], **findings.versions}),
        "settings": _listed(findings.settings),
        "other programs": f"used {findings.others_percent:.0f} % of the CPU just before",
    }
    return "\n".join(f"* {name}: {text}" for name, text in about.items())


def _listed(entries: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entries.items())


def _section(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    body = "\n".join(_line(line) for line in lines)
    return f"## {table.title}\n\n{body}" + (f"\n\n{table.note}" if table.note else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
