"""The suite's claims about its own numbers, held against simulated servers whose truth is known.

Each module of this package but `row` is an area: its docstring is the text of a section of the page, its
`rows(studies, say)` makes the table. To add an area, add a module. `python -m benchmarks.coverage` writes
docs/results/coverage.md; areas that are not run keep their section.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.coverage.row import Row

PAGE = Path(__file__).parents[2] / "docs" / "results" / "coverage.md"
COLUMNS = ("claim", "over", "goal", "measured", "holds", "studies")
HOLDS = {True: "yes", False: "no", None: "-"}
ABOUT = (
    "# Coverage: claims against simulated servers with known truth\n\n"
    "This page is for everyone who wants to know how far the intervals, verdicts and proofs of `bench` can "
    "be trusted. Each row simulates many studies of a server with known true figures, hands the samples to "
    "the same functions that judge a real run, and counts how often the claim held. The simulations run in "
    "virtual time and are seeded.\n\n"
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
    return f"## {title.rstrip('.')}\n<!-- {area} -->\n{about}\n\n{table(rows)}\n", rows


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    lines: list[Sequence[str]] = [COLUMNS, ["---"] * len(COLUMNS)]
    lines += [
        (row.claim, row.over, row.goal, row.measured, HOLDS[row.holds], str(row.studies)) for row in rows
    ]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def renewed(page: str, sections: dict[str, str]) -> str:
    """The page with these sections instead of those of the same areas; the others stay."""
    parts = page.split("\n## ")[1:]
    known = {part.partition("<!-- ")[2].partition(" -->")[0]: f"## {part.strip()}\n" for part in parts}
    return "\n\n".join([ABOUT, *(text.strip() for _, text in sorted({**known, **sections}.items()))]) + "\n"
