"""The public Python API: open run folders as DataFrames and figures, compare them, measure new ones.

`import bench` offers `bench.load`, `bench.sweep`, `bench.Run` and `bench.Comparison`. docs/python.md shows
them in use. Everything else in the package is private and may change with any version.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis import comparison
from bench.analysis.cell_row import COLUMNS, PERCENTS
from bench.analysis.cell_table import frame
from bench.analysis.results import RunResults
from bench.analysis.stats import Interval
from bench.cli.commands import SWEEP
from bench.cli.progress import ConsoleProgress
from bench.cli.values import Values
from bench.core.gates import parse_gate
from bench.core.options import OPTIONS, Option
from bench.core.run_folder import RunFolder
from bench.core.samples import Outcome
from bench.experiments.progress import Silent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_PERCENTILES = tuple(f"latency_p{percent:g}_ms".replace(".", "_") for percent in PERCENTS)
_TRIALS = (
    *("cell", "repeat", "requests", "errors"),
    *("throughput_req_per_s", "throughput_img_per_s", "goodput_img_per_s", "in_flight_mean"),
    *(*_PERCENTILES, "verdict", "findings"),
)
_FINDINGS = ("cell", "code", "severity", "seen", "cause", "next_step")
_CHANGES = ("cell", "gate", "base", "new", "ratio", "ratio_low", "ratio_high", "change", "why")
# Options of `bench sweep` that print something, compare, or need a cluster's pods are not of the Python API.
_NOT_FROM_PYTHON = (
    *("against", "variant", "fail_if", "anyway", "dry_run", "as_json"),
    *("in_cluster", "load_image", "load_account"),
)


@dataclass(frozen=True)
class Run:
    """One run folder. It is read when it is first looked at, each trial once.

        run = bench.load("reports/example")
        run.cells.sort_values("throughput_img_per_s")
        run.figure("throughput").write_html("throughput.html")

    Raises RunFolderError, when it is looked at, where a file of the folder is missing or broken.
    """

    path: Path

    @cached_property
    def _results(self) -> RunResults:
        return RunResults.of(RunFolder.open(self.path))

    @property
    def name(self) -> str:
        """The run's name: as given with --name, else made of the model and the time."""
        return self._results.record.name

    @property
    def command(self) -> str:
        """The command line that measured the run. Secrets are masked."""
        return shlex.join(self._results.record.command)

    @property
    def is_valid(self) -> bool:
        """Whether every cell that was asked for is measured and VALID."""
        rows = self._results.rows
        return bool(rows) and all(row.verdict == "VALID" for row in rows)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: the columns of cells.csv, then one per further parameter of the server.

        Units are in the names. `_low` and `_high` bound a figure at 95 % over repeats. A figure that could
        not be had is NaN or None, never 0.
        """
        return frame(self._results.rows) if self._results.rows else _frame((), COLUMNS)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per measured trial, with its own throughput and percentiles.

        A percentile is NaN where the trial has too few samples for it. `findings` are the codes of the
        trial's findings, separated by blanks.
        """
        return _frame(
            (
                (
                    cell.row.cell,
                    trial.repeat,
                    trial.requests,
                    trial.errors,
                    trial.throughput_req_per_s,
                    trial.throughput_img_per_s,
                    trial.goodput_img_per_s,
                    trial.in_flight_mean,
                    *trial.latencies_ms,
                    str(trial.verdict),
                    " ".join(finding.code for finding in trial.findings),
                )
                for cell in self._results.cells
                for trial in cell.trials
            ),
            _TRIALS,
        )

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row per finding on a cell: its code and severity, what was seen, the cause, the next step."""
        return _frame(
            (
                (row.cell, one.code, str(one.severity), one.seen, one.cause, one.next_step)
                for row in self._results.rows
                for one in row.remarks
            ),
            _FINDINGS,
        )

    def samples(self, cell: str, repeat: int) -> pd.DataFrame:
        """Every request of one trial, those of warm-up and drain too.

        Columns: `intended_ns`, `sent_ns`, `done_ns` (int64, one monotonic clock), `outcome` in words, and
        `in_window`, whether the answer came inside the measured window. `cell` and `repeat` are values of
        the columns of `trials`. Raises KeyError where the run has no such trial.
        """
        import pandas as pd

        for trial in self._results.folder.trials():
            if trial.cell.key == cell and trial.plan.repeat == repeat:
                samples, window = trial.samples, trial.window
                return pd.DataFrame(
                    {
                        "intended_ns": samples.intended_ns,
                        "sent_ns": samples.sent_ns,
                        "done_ns": samples.done_ns,
                        "outcome": [Outcome(code).name for code in samples.outcome],
                        "in_window": (samples.done_ns >= window.start_ns) & (samples.done_ns < window.end_ns),
                    }
                )
        raise KeyError(f"{self.path} has no trial {repeat} of cell {cell!r}: run.trials lists all there are")

    def figure(self, name: str, variant: str | None = None) -> go.Figure:
        """One of the report's charts as a Plotly figure, such as "throughput" or "latency-by-batch".

        `variant` chooses among several views of a chart, such as "p99" of "throughput". Raises ValueError
        with the names that there are, and where the run has nothing to draw.
        """
        from bench.report.charts import figure

        return figure(name, self._results.rows, variant)

    def compare(
        self, new: Run | str | Path, gates: Sequence[str] = (), *, anyway: bool = False
    ) -> Comparison:
        """Judge run `new` against this one, cell by cell, as `bench compare THIS NEW` does.

        `gates` say how much worse a figure may get, such as "p99>+5%" and "throughput<-3%"; without any they
        are "throughput<-5%" and "p50>+5%". `anyway` compares although machines, models or weights differ.
        Raises WrongUse for runs that cannot be compared, ValueError for a gate that is none.
        """
        other = new if isinstance(new, Run) else load(new)
        judged = comparison.compare(
            self._results, other._results, [parse_gate(gate) for gate in gates], force=anyway
        )
        return Comparison(judged)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared: `verdict` for all of it, `changes` cell by cell."""

    _judged: comparison.Comparison

    @property
    def verdict(self) -> str:
        """The worst of all cells: "regression", "inconclusive" or "no change"."""
        return str(self._judged.change)

    @cached_property
    def changes(self) -> pd.DataFrame:
        """One row per cell and gate: both values, the ratio new / base with its 95 % interval, the change.

        Errors are compared by their difference, so they have no ratio.
        """
        return _frame(
            (
                (
                    cell.new.cell,
                    str(result.gate),
                    result.base,
                    result.new,
                    *_bounds(None if result.gate.is_difference else result.interval),
                    str(result.change),
                    result.why,
                )
                for cell in self._judged.cells
                for result in cell.results
            ),
            _CHANGES,
        )

    def markdown(self) -> str:
        """The comparison for a pull request, as `bench compare --format md` prints it."""
        from bench.report.comparison import as_markdown

        return as_markdown(self._judged)


def load(path: str | Path) -> Run:
    """Open a run folder. Raises RunFolderError where there is none."""
    return Run(RunFolder.open(Path(path)).path)


def sweep(*, progress: bool = False, **options: Any) -> Run:
    """Measure every combination of what is asked, write the run folder with its report, and open it.

        run = bench.sweep(model="delay", batch=[1, 8], concurrency=4, duration="2s", out="reports/delay")

    `options` are those of `bench sweep`, with underscores: numbers, texts such as "5s", lists for lists, True
    for switches. docs/options.md lists them. `progress` shows what happens on stderr. Raises TypeError for an
    option that there is not, WrongUse with every mistake before anything starts, and TargetError or ToolError
    when nothing more can be measured. What was measured until then stays in the folder.
    """
    from bench.cli.verbs.sweep import checked, output_for, request_of
    from bench.experiments import sweep_request
    from bench.report.publish import write_files

    values = _values(options)
    spec, provider = checked(values)
    request = request_of(values, spec, output_for(values, spec.model))
    if progress:
        with ConsoleProgress() as watcher:
            folder = sweep_request.run(request, provider, watcher, watcher.say)
    else:
        folder = sweep_request.run(request, provider, Silent())
    write_files(RunResults.of(folder))
    return Run(folder.path)


def _values(options: Mapping[str, Any]) -> Values:
    known = [option for option in SWEEP.options if option.name not in _NOT_FROM_PYTHON]
    names = {option.name for option in known}
    if unknown := sorted(options.keys() - names):
        allowed = ", ".join(sorted(names))
        raise TypeError(f"bench.sweep has no option {', '.join(unknown)}: give some of {allowed}")
    texts = {name: _text(OPTIONS[name], value) for name, value in options.items() if value is not None}
    words = [word for name, text in texts.items() for word in _words(OPTIONS[name], text)]
    return Values.of(known, texts, ("bench", "sweep", *words))


def _text(option: Option, value: Any) -> Any:
    """As somebody would type it: a list of an option that may be repeated stays one."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    if option.multiple:
        return tuple(map(str, value)) if is_list else (str(value),)
    if isinstance(value, bool):
        return value
    return ",".join(map(str, value)) if is_list else str(value)


def _words(option: Option, text: Any) -> list[str]:
    if isinstance(text, bool):
        return [option.long] if text else [option.off] if option.off else []
    if isinstance(text, tuple):
        return [word for one in text for word in (option.long, one)]
    return [option.long, text]


def _bounds(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if interval is None else (interval.value, interval.low, interval.high)


def _frame(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))
