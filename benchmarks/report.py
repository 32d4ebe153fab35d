"""The report: what it costs to make, and how long a reader waits for it in a headless Chromium."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from selenium import webdriver
from tests.synthetic import Study, World

from benchmarks.browser import chromium, look
from benchmarks.findings import ROOT, Findings, Goal, Table, versions
from tests import synthetic

REPEATS, SAMPLES = 5, 10_000
MANY = 1_000_000
WIDTHS = (1600, 380)
OPEN_GOAL_S, MAKE_GOAL_S = 2.0, 10.0
PAGE_GOAL_BYTES, PEAK_GOAL_BYTES = 2_500_000, 500_000_000
_TIMEOUT_S = 600.0
_OPENINGS_A_ROUND = 3

ABOUT = (
    f"Generated runs: 60 cells x {REPEATS} repeats x {SAMPLES:,} samples, and one trial of {MANY:,} samples. "
    "Made: cells.csv and report.html in a fresh process, with its peak memory. Opened: the page of 60 cells "
    "from a file in a headless Chromium, several times in one browser; milliseconds since navigation began, "
    "as the page's own clock and marks have them, medians over all openings."
)
# What a reader waits for, in the order it happens: the page's own marks and the browser's.
_STEPS = (
    ("bytes parsed, Plotly run, data read", "data"),
    ("text, card, heat map and table there", "text"),
    ("load event", "load"),
    ("first contentful paint", "paint"),
    ("charts in sight drawn", "sight"),
    ("all charts drawn", "ready"),
)
_READ = """
const of = (name) => performance.getEntriesByName(name)[0]?.startTime ?? null;
const load = performance.getEntriesByType('navigation')[0].loadEventEnd;
return {data: of('data'), text: of('text'), load, paint: of('first-contentful-paint'), sight: of('sight'),
        ready: of('ready')};
"""

Opening = Mapping[str, float]


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    """`seconds` means nothing here: nothing is loaded with requests."""
    del seconds
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        say(f"generating 60 cells x {REPEATS} x {SAMPLES:,} samples, and a trial of {MANY:,}")
        sixty, many = _sixty(Path(scratch) / "sixty"), _many(Path(scratch) / "many")
        say("making their reports")
        made = {name: [_made(path) for _ in range(rounds)] for name, path in (("60", sixty), ("1M", many))}
        say("opening the page")
        opened = {width: _openings(sixty / "report.html", width, rounds) for width in WIDTHS}
    return Findings(
        name="report",
        title="The report: made, and opened",
        about=ABOUT,
        settings={"rounds": rounds, "openings of a width": rounds * _OPENINGS_A_ROUND},
        versions=versions(plotly=_plotly()),
        tables=(_made_table(made), _opened_table(opened)),
        goals=_goals(made, opened),
        figures={"made": made, "opened_ms": opened},
    )


def _sixty(path: Path) -> Path:
    cells = synthetic.grid(batches=(1, 4, 8, 16, 32), levels=(1, 4, 16))
    world = World(requests=SAMPLES, gpu=True)
    return synthetic.write(path, Study(cells=cells, repeats=REPEATS, world=world, slo="p99=100ms")).path


def _many(path: Path) -> Path:
    study = Study(cells=(synthetic.cell(),), repeats=1, world=World(requests=round(1.2 * MANY)))
    return synthetic.write(path, study).path


def _made(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.report_cost", str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    cost: dict[str, float] = json.loads(ended.stdout)
    return cost


def _openings(report: Path, width: int, rounds: int) -> list[Opening]:
    """A browser of its own each round."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as profile:
            driver = chromium(Path(profile))
            try:
                look(driver, width=width)
                driver.get("about:blank")
                found += [_opening(driver, report) for _ in range(_OPENINGS_A_ROUND)]
            finally:
                driver.quit()
    return found


def _opening(driver: webdriver.Chrome, report: Path) -> Opening:
    driver.get("about:blank")
    driver.get(report.as_uri())
    end = time.monotonic() + _TIMEOUT_S
    while driver.execute_script("return document.documentElement.dataset.ready") != "1":
        if time.monotonic() > end:
            raise RuntimeError(f"{report} is not drawn after {_TIMEOUT_S:g} s: open it and read its console.")
        time.sleep(0.2)
    found: Opening = driver.execute_script(_READ)
    return found


def _plotly() -> str:
    head = (ROOT / "bench" / "report" / "web" / "vendor" / "plotly-cartesian.min.js").read_text(
        encoding="utf-8"
    )[:300]
    return head.split(" v")[1].split()[0] if " v" in head else "unknown"


def _made_table(made: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    names = {"60": f"60 cells x {REPEATS} x {SAMPLES:,}", "1M": f"1 x {MANY:,}"}
    rows = tuple(
        (
            names[kind],
            f"{median(cost['csv_s'] for cost in costs):.2f}",
            f"{median(cost['page_s'] for cost in costs):.2f}",
            f"{max(cost['peak_bytes'] for cost in costs) / 1e6:.0f}",
            f"{costs[0]['page_bytes'] / 1e6:.2f}",
        )
        for kind, costs in made.items()
    )
    columns = ("samples", "cells.csv, s", "report.html, s", "peak memory, MB", "report.html, MB")
    return Table("Made", columns, rows, "Times are medians of the rounds, memory is the largest.")


def _opened_table(opened: Mapping[int, Sequence[Opening]]) -> Table:
    rows = tuple(
        (text, *(_median_and_most([one[name] for one in opened[width]]) for width in WIDTHS))
        for text, name in _STEPS
    )
    return Table("Opened", ("ms since navigation began", *(f"{width} px wide" for width in WIDTHS)), rows,
                 "Median (largest) of all openings.")  # fmt: skip


def _median_and_most(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({max(values):.0f})"


def _goals(
    made: Mapping[str, Sequence[Mapping[str, float]]], opened: Mapping[int, Sequence[Opening]]
) -> tuple[Goal, ...]:
    load_s = median(one["load"] for one in opened[WIDTHS[0]]) / 1e3
    sight_s = median(one["sight"] for one in opened[WIDTHS[0]]) / 1e3
    page_s = max(median(cost["csv_s"] + cost["page_s"] for cost in costs) for costs in made.values())
    peak = max(cost["peak_bytes"] for costs in made.values() for cost in costs)
    size = max(cost["page_bytes"] for costs in made.values() for cost in costs)
    return (
        _goal(
            f"60 cells open in under {OPEN_GOAL_S:g} s (load event)", load_s, OPEN_GOAL_S, f"{load_s:.2f} s"
        ),
        _goal(f"its charts in sight within {OPEN_GOAL_S:g} s", sight_s, OPEN_GOAL_S, f"{sight_s:.2f} s"),
        _goal(f"made in under {MAKE_GOAL_S:g} s", page_s, MAKE_GOAL_S, f"at most {page_s:.2f} s"),
        _goal("peak memory under 500 MB", peak, PEAK_GOAL_BYTES, f"at most {peak / 1e6:.0f} MB"),
        _goal("one file under 2.5 MB", size, PAGE_GOAL_BYTES, f"at most {size / 1e6:.2f} MB"),
    )


def _goal(text: str, value: float, limit: float, figure: str) -> Goal:
    return Goal(text, figure, "yes" if value < limit else "no")
