"""`python -m benchmarks.coverage [AREA...]`: simulate, print, renew docs/results/coverage.md."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console

from benchmarks.coverage import PAGE, areas, renewed, section


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(areas()))
@click.option("--studies", default=400, show_default=True, help="Number of simulated studies of a row.")
@click.option("--docs/--no-docs", default=True, show_default=True, help="Renew docs/results/coverage.md.")
def main(names: tuple[str, ...], studies: int, docs: bool) -> None:
    """Hold the suite's claims against simulated servers. Without AREA, every area runs.

    The exit code is 1 when a claim does not hold.
    """
    say = partial(Console(stderr=True, highlight=False).print, markup=False, soft_wrap=True)
    misses = 0
    for name in names or areas():
        say(f"== {name}, {studies} studies a row")
        text, rows = section(name, studies, say)
        click.echo(text)
        misses += sum(row.holds is False for row in rows)
        if docs:
            PAGE.write_text(renewed(PAGE.read_text() if PAGE.exists() else "", {name: text}))
    if misses:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
