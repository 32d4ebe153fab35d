"""The tables in docs/options.md, which `python -m bench.cli.option_tables docs/options.md` renews."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench.cli.click_commands import option_help
from bench.cli.commands import SWEEP, VERBS, Verb
from bench.core.options import Option, Scope

BEGIN, END = "<!-- options: made by bench.cli.option_tables -->", "<!-- /options -->"


def renewed(page: str) -> str:
    """The page with the tables between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """Every option of `bench sweep` under its heading; of each other verb what is different there."""
    lines: list[str] = []
    for heading in dict.fromkeys(scope.heading for scope in Scope):
        lines += [f"### {heading}", "", *_table([o for o in SWEEP.options if o.scope.heading == heading])]
    for verb in VERBS:
        if verb is not SWEEP:
            lines += [f"## bench {verb.name}", "", *_of_verb(verb)]
    return "\n".join(lines)


def _of_verb(verb: Verb) -> Iterator[str]:
    shared = [option for option in verb.options if option in SWEEP.options]
    own = [option for option in verb.options if option not in shared]
    yield from _table(own)
    if shared:
        yield f"As in `bench sweep`: {', '.join(f'`{option.long}`' for option in shared)}."
        yield ""


def _table(options: list[Option]) -> Iterator[str]:
    if options:
        yield "| option | what it does |"
        yield "| --- | --- |"
        for option in options:
            metavar = "" if option.is_switch or option.is_argument else f" {option.kind.metavar}"
            flags = ", ".join(f"`{flag}`" for flag in (f"{option.long}{metavar}", *option.aliases))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in (flags, option_help(option))) + " |"
        yield ""


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
