"""Flags of `bench report` and `bench compare`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.cli.lazy_import import verb


@click.command(
    epilog="\b\nExamples:\n"
    "  bench report reports/mine\n"
    "  bench report reports/main reports/mine\n"
    "  bench report reports\n"
    "  bench report reports/mine --format md"
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write.  [default: one run's report.html, of several overlay.html beside them; other "
    "formats to stdout]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "table", "json"]),
    default="html",
    show_default=True,
    help="html: the page; md: for a pull request; table: as after a sweep; json: a row a cell.",
)
def report(runs: Sequence[Path], out: Path | None, form: str) -> None:
    """Rebuild a report from run folders alone.

    Several runs are laid over each other, and the newest is judged; a folder of runs gets an index.html of
    them.

    Ends with 0, 1 where a run misses its SLO, or 3 where a cell is INVALID, missing or undecided.
    """
    sys.exit(verb("cli.verbs.report", "report")(runs, out, form))


@click.command(
    epilog="\b\nExamples:\n"
    "  bench compare reports/main reports/mine\n"
    "  bench compare reports/main reports/mine --fail-if 'p99>+5%' --fail-if 'throughput<-3%'\n"
    "  bench compare reports/main reports/mine --format html --out compare.html"
)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--fail-if",
    multiple=True,
    metavar="GATE",
    help="'p99>+5%', 'throughput<-3%'; may be repeated.  [default: 'throughput<-5%' and 'p50>+5%']",
)
@click.option("--anyway", is_flag=True, help="Compare although machines, models or weights differ.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "md", "html", "json"]),
    default="table",
    show_default=True,
    help="md: for a pull request; html: a page with the intervals drawn.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of stdout.")
def compare(**given: Any) -> None:
    """Judge run folder NEW against BASE, cell by cell: regression, no change, or inconclusive.

    A gate is missed when the whole 95 % interval of new / base lies beyond it, and held when all of it lies
    on this side; else more repeats are needed, and it says how many.

    Ends with 0, 1 for a regression, or 3 for inconclusive.
    """
    sys.exit(verb("cli.verbs.report", "compare")(given))
