"""A command line read as `bench` reads it, and nothing done."""

from __future__ import annotations

from bench.cli.click_commands import VerbCommand
from bench.cli.commands import VERBS
from bench.cli.values import Values


def values_of(verb: str, *words: str) -> Values:
    """What `bench VERB WORDS` asks for."""
    known = next(one for one in VERBS if one.name == verb)
    context = VerbCommand(known).make_context(verb, list(words))
    return Values.of(known.options, context.params, ("bench", verb, *words))
