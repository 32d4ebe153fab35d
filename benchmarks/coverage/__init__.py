"""The suite's claims about its own numbers, held against simulated servers whose truth is known.

Each module of this package but `row` is an area: its docstring is the text of a section of the page, its
`rows(studies, say)` makes the table. To add an area, add a module. `python -m benchmarks.coverage` writes
docs/results/coverage.md; areas that are not run keep their section.
"""

from __future__ import annotations

import inspect
import pkgutil
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.coverage.row import Row

PAGE = Path(__file__).parents[2] / "docs" / "results" / "coverage.md"
COLUMNS = ("claim", "over", "goal", "measured", "holds", "studies")
HOLDS = {True: "yes", False: "no", None: "-"}
ABOUT = (
    "# Coverage: claims against simulated servers with known truth\n\n"
    "This page is for everyone who wants to know how far the intervals, verdicts and proofs of `bench` can "
    "be trusted. Each row simulates many studies of a server with known true figures, hands the samples to "
    "the same functions that judge a real run, and counts how often the claim held. The simulations run in "
    "virtual time. Their seeds are in the code of `benchmarks/coverage/`, so the same versions give the same "
    "figures.\n\n"
    "To measure again: `make coverage`, or `python -m benchmarks.coverage AREA` for one area."
)

Say = Callable[[str], None]


def areas() -> tuple[str, ...]:
    """Names of the modules that make rows."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if name not in ("row", "__main__")))


def section(area: str, studies: int, say: Say) -> tuple[str, list[Row]]:
    """Run an area. Returns its part of the page, and its rows."""
    module = import_module(f"{__name__}.{area}")
    rows: list[Row] = module.rows(studies, say)
    title, _, about = (inspect.getdoc(module) or area).partition("\n")
    measured = (
        f"Measured on {date.today():%Y-%m-%d} with Python {platform.python_version()} and "
        f"numpy {np.__version__}."
    )
    return f"## {title.rstrip('.')}\n<!-- {area} -->\n{about}\n\n{measured}\n\n{table(rows)}\n", rows


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    return _lines(
        COLUMNS,
        [(row.claim, row.over, row.goal, row.measured, HOLDS[row.holds], str(row.studies)) for row in rows],
    )


def _lines(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def rows_of(section: str) -> list[Row]:
    """The rows of the table in a section of the page."""
    held = {word: value for value, word in HOLDS.items()}
    lines = (re.split(r"(?<!\\) \| ", line.strip("| ")) for line in section.splitlines() if line[:2] == "| ")
    cells = [[text.replace("\\|", "|") for text in line] for line in lines if len(line) == len(COLUMNS)]
    return [
        Row(claim, over, goal, measured, held[holds], int(studies))
        for claim, over, goal, measured, holds, studies in cells
        if studies.isdecimal()
    ]


def summary(sections: Iterable[str]) -> str:
    """The first table of the page: each claim with its worst row. One that does not hold is the worst."""
    cells = []
    for part in sections:
        claims: dict[str, list[Row]] = {}
        for row in rows_of(part):
            claims.setdefault(row.claim, []).append(row)
        for claim, rows in claims.items():
            if all(row.holds is None for row in rows):
                continue  # a figure without a goal is no claim
            worst, misses = min(rows, key=_goodness), sum(row.holds is False for row in rows)
            held = f"no: missed in {misses} of {len(rows)} rows" if misses else f"yes, in {len(rows)} rows"
            cells.append((claim, worst.goal, f"{worst.measured} - {worst.over}", held))
    return "## Summary\n<!-- summary -->\n\n" + _lines(("claim", "goal", "worst row", "held"), cells)


def _goodness(row: Row) -> tuple[bool, float]:
    """What the worst row of a claim has the least of: by whether it holds, and its first figure."""
    number = re.search(r"\d+(?:\.\d+)?", row.measured)
    value = float(number[0]) if number else 0.0
    return row.holds is not False, value if row.goal.startswith(">=") else -value


def renewed(page: str, sections: dict[str, str]) -> str:
    """The page with these sections instead of those of the same areas; the others stay."""
    parts = page.split("\n## ")[1:]
    known = {part.partition("<!-- ")[2].partition(" -->")[0]: f"## {part.strip()}\n" for part in parts}
    known.pop("summary", None)
    ordered = [text.strip() for _, text in sorted({**known, **sections}.items())]
    return "\n\n".join([ABOUT, summary(ordered), *ordered]) + "\n"
