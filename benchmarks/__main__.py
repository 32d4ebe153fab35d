"""`python -m benchmarks [NAME...]`: measure, print, write JSON and docs/results/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import click
import psutil
from rich.console import Console

from benchmarks import generator, overhead, pacing, report, serving, studies, truth, workers
from benchmarks.findings import Findings, publish

Benchmark = Callable[[float, int, Callable[[str], None]], Findings]
BENCHMARKS: Mapping[str, Benchmark] = {
    "truth": truth.run,
    "studies": studies.run,
    "generator": generator.run,
    "pacing": pacing.run,
    "overhead": overhead.run,
    "report": report.run,
    "serving": serving.run,
    "workers": workers.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--seconds", default=4.0, show_default=True, help="Length of the window of a trial.")
@click.option("--rounds", default=3, show_default=True, help="Number of times that everything is measured.")
@click.option("--docs/--no-docs", default=True, show_default=True, help="Renew docs/results/.")
def main(names: tuple[str, ...], seconds: float, rounds: int, docs: bool) -> None:
    """Measure the suite itself. Without NAMES, every benchmark runs."""
    say = partial(Console(stderr=True, highlight=False).print, markup=False, soft_wrap=True)
    for name in names or tuple(BENCHMARKS):
        others_percent = psutil.cpu_percent(interval=1.0)
        say(f"== {name} ({others_percent:.0f} % of the CPU is busy with other things)")
        found = BENCHMARKS[name](seconds, rounds, say)
        publish(replace(found, others_percent=others_percent), _console(), docs=docs)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=160)


if __name__ == "__main__":
    main()
