"""click's commands made of the verbs and the table of options: flags, help and shell completion."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from bench.cli.commands import GROUPS, VERBS, Verb
from bench.cli.values import Values
from bench.core.errors import EXIT_INTERRUPTED
from bench.core.options import Option, Scope
from bench.core.paths import MODEL_REPOSITORY, REPORTS

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_HELP_ALL = "bench.help_all"


def add_verbs(group: click.Group) -> None:
    """Every verb as a command of `group`, or of a group of its own."""
    for verb in VERBS:
        first, _, second = verb.name.partition(" ")
        if second and first not in group.commands:
            group.add_command(click.Group(first, help=GROUPS[first]))
        parent = group.commands[first] if second else group
        assert isinstance(parent, click.Group)
        parent.add_command(VerbCommand(verb), second or first)


def load(place: str) -> Callable[[Values], int]:
    """The function at "module:name", imported now.

    Importing takes up to a second, and nothing is open yet: Ctrl-C then ends the process quietly, where
    Python would print a traceback, or a library would take it for its own failure.
    """
    module, _, name = place.partition(":")
    before = signal.signal(signal.SIGINT, _end)
    try:
        function: Callable[[Values], int] = getattr(import_module(module), name)
    finally:
        signal.signal(signal.SIGINT, before)
    return function


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.stderr.write("Interrupted.\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


class VerbCommand(click.Command):
    """A verb. `--help` shows its options under headings; of a verb with many, the common ones."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        parameters: list[click.Parameter] = [_parameter(option) for option in verb.options]
        if verb.is_long:
            parameters.append(
                click.Option(["--help-all"], is_flag=True, is_eager=True, expose_value=False,
                             callback=_help_all, help="Show all options.")
            )  # fmt: skip
        super().__init__(
            verb.name, params=parameters, callback=self._run, help=verb.help,
            epilog=examples(*verb.examples), context_settings=CONTEXT,
        )  # fmt: skip

    def _run(self, **texts: Any) -> None:
        from bench.server.leftovers import remove_leftovers  # imports of a declaration are kept light

        remove_leftovers()
        values = Values.of(self.verb.options, texts, ("bench", *sys.argv[1:]))
        sys.exit(load(self.verb.run)(values))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.verb.options if not option.is_argument]
        if self.verb.is_long and not ctx.meta.get(_HELP_ALL):
            common = [option for option in options if option.is_common or option.required]
            with formatter.section("Options that most people need first"):
                formatter.write_dl([_record(option) for option in common])
            formatter.write_paragraph()
            formatter.write_text(f"--help-all lists {len(options) - len(common)} more.")
            return
        sections = list(_sections(options)) if self.verb.is_long else [("Options", options)]
        for heading, section in sections:
            if section:
                with formatter.section(heading):
                    formatter.write_dl([_record(option) for option in section], col_max=34)


def examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _help_all(ctx: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked and not ctx.resilient_parsing:
        ctx.meta[_HELP_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _sections(options: Sequence[Option]) -> Iterator[tuple[str, list[Option]]]:
    for heading in dict.fromkeys(scope.heading for scope in Scope):
        yield heading, [option for option in options if option.scope.heading == heading]


def _parameter(option: Option) -> click.Parameter:
    offers = completion(option)
    if option.is_argument:  # The table says that it is missing, together with all other mistakes.
        return click.Argument(
            [option.name], type=str, nargs=-1 if option.multiple else 1, required=False,
            metavar=f"{option.long}..." if option.multiple else option.long, shell_complete=offers,
        )  # fmt: skip
    flags = [f"{option.long}/{option.off}"] if option.off else [*option.aliases, option.long]
    if option.is_switch:
        return click.Option([*flags, option.name], is_flag=True, default=None, help=option_help(option))
    return click.Option(
        [*flags, option.name], type=str, default=None, multiple=option.multiple,
        metavar=option.metavar or option.kind.metavar, help=option_help(option), shell_complete=offers,
    )  # fmt: skip


def option_help(option: Option) -> str:
    """Its help, with what happens without it."""
    default = option.without or ("" if option.is_switch else option.default) or ""
    default = default or (f"${option.variable}" if option.variable else "")
    ends = ["required"] if option.required else [f"default: {default}"] if default else []
    return "".join([option.help, *(f"  [{end}]" for end in ends)])


def _record(option: Option) -> tuple[str, str]:
    flags = ", ".join([*option.aliases, option.long, *([option.off] if option.off else [])])
    metavar = "" if option.is_switch else f" {option.metavar or option.kind.metavar}"
    return flags + metavar, option_help(option)


def completion(option: Option) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What a shell offers for a value: words in lists too, models, run folders, files, folders."""

    def items(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        kind = option.kind
        typed, comma, begun = incomplete.rpartition(",") if kind.is_list else ("", "", incomplete)
        words = [word for word in (*kind.words, *_names(kind.names)) if word.startswith(begun)]
        values = [f"{typed}{comma}{word}" for word in words]
        offers = [CompletionItem(value) for value in values if _can_be(option, value)]
        if kind.names in ("file", "folder", "run") and not offers:
            return [CompletionItem(incomplete, type="file" if kind.names == "file" else "dir")]
        return offers

    return items


def _can_be(option: Option, text: str) -> bool:
    """Whether it is a value: `http,both` is none, and `http,http` names one twice."""
    try:
        option.parse(text)
    except ValueError:
        return False
    return True


def _names(what: str) -> list[str]:
    """Models of the shipped repository; run folders where runs go."""
    if what == "model":
        return sorted(path.parent.name for path in MODEL_REPOSITORY.glob("*/config.pbtxt"))
    if what == "run":
        return sorted(str(path.parent) for path in Path(REPORTS).glob("*/run.json"))
    return []
