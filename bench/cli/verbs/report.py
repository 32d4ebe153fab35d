"""`bench report` and `bench compare`: run folders put before a reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.analysis import cell_table as cells_table
from bench.analysis import comparison as comparing
from bench.analysis.results import RunResults
from bench.cli.values import Values
from bench.cli.verbs.sweep import exit_code
from bench.core.errors import EXIT_OK, WrongUse, worst
from bench.core.files import write_text
from bench.core.run_folder import RunFolder
from bench.report import index, page, terminal
from bench.report.comparison import render
from bench.report.exports import EXPORTERS
from bench.report.publish import TALK


def report(values: Values) -> int:
    """`bench report`: from folders alone."""
    values.mistakes.check()
    return report_of(values["runs"], values["file"], values["report_format"])


def report_of(runs: Sequence[Path], out: Path | None, form: str) -> int:
    """A folder of runs gets an index of them; one that was measured interleaved gets a report over all."""
    members = index.family(runs[0]) if len(runs) == 1 else []
    if members:
        runs, out = [member.path for member in members], out or runs[0] / "report.html"
    elif len(runs) == 1 and not (runs[0] / "run.json").exists() and index.holds_runs(runs[0]):
        if form != "html" or out:
            raise WrongUse([f"{runs[0]} holds several runs and gets an index.html: name those you mean."])
        TALK.print(f"index: {index.write(runs[0])}", soft_wrap=True)
        return EXIT_OK
    results = [RunResults.of(RunFolder.open(path)) for path in runs]
    if form == "html":
        _write_page(results, out)
    elif out:
        write_text(out, EXPORTERS[form](results))
    elif form == "table" and len(results) == 1:
        (run,) = results
        terminal.show(run.rows, run.record, Console(highlight=False))  # in colour, where there is any
    else:
        print(EXPORTERS[form](results), end="")
    return worst([exit_code(run.rows, run.record.slo) for run in results])


def _write_page(runs: Sequence[RunResults], out: Path | None) -> None:
    """One run's page is in its folder; one over several is beside theirs, which stay as they are."""
    first = runs[0].folder.path
    path = out or (first / "report.html" if len(runs) == 1 else first.parent / "overlay.html")
    write_text(path, page.render(runs))
    if out is None:
        for run in runs:
            cells_table.write_csv(run.rows, run.folder.path / "cells.csv")
    TALK.print(f"report: {path}", soft_wrap=True)


def compare(values: Values) -> int:
    """`bench compare`."""
    values.mistakes.check()
    base, new = (RunResults.of(RunFolder.open(values[name])) for name in ("base", "new"))
    comparison = comparing.compare(base, new, values["fail_if"], force=values["anyway"])
    text = render(comparison, values["compare_format"])
    if values["file"]:
        write_text(values["file"], text)
    else:
        print(text)
    return comparing.exit_code(comparison)
