"""Command lines as the table of options reads and writes them.

A spec becomes the flags that ask for it, and a recorded command says which of its words name the server, the
load or the output. So the page can show the command that repeats a cell, a run can be measured again with
`--against`, and a sweep inside a cluster is asked the same question. Commands of older runs are understood as
long as their flags are in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cattrs
from cattrs.preconf.json import make_converter

from bench.core.kinds import listed
from bench.core.options import BY_FLAG, MEASURING, OPTIONS, Option, Scope
from bench.core.run_folder import RunRecord
from bench.core.spec import Scenario, SweepSpec
from bench.core.target import MASK
from bench.core.vit_variants import AXES

# What was measured, beyond what a spec holds.
TARGET = (Scope.ADDRESS, Scope.EMBEDDED, Scope.SERVICE, Scope.DEPLOY, Scope.SLO)
# Who makes the load, which is not a part of what is measured.
LOAD_MAKERS = (Scope.WORKERS, Scope.IN_CLUSTER)
# A sweep inside a cluster is told its service and its workers by the command outside, which keeps the output.
OUTSIDE = (Scope.OUTPUT, Scope.SERVICE, Scope.DEPLOY, Scope.WORKERS, Scope.IN_CLUSTER)
_converter = make_converter()
# User and password in the address that a word may be.
_USER = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://).*@")


@dataclass(frozen=True, slots=True)
class Said:
    """One flag of a command line with its text; `option` is None for a word that the table does not know."""

    option: Option | None
    text: str
    words: tuple[str, ...]  # as they were typed

    def masked(self) -> tuple[str, ...]:
        """The words without what is secret in them."""
        if self.option is None:
            return tuple(_USER.sub(rf"\1{MASK}@", word) for word in self.words)
        if self.option.is_switch or not self.text:
            return self.words
        last = self.words[-1].removesuffix(self.text) + self.option.kind.masked(self.text)
        return (*self.words[:-1], last)

    @property
    def is_masked(self) -> bool:
        """Whether it is a header whose value is not known any more."""
        return self.option is not None and self.option.is_secret and self.masked()[-1].endswith(MASK)

    def is_of(self, scopes: Iterable[Scope]) -> bool:
        return self.option is not None and self.option.scope in scopes


def read(command: Sequence[str]) -> Iterator[Said]:
    """The words behind `bench VERB`, flag by flag: `--flag value`, `--flag=value`, `-n value`, `-nvalue`."""
    pending = iter(command[2:])
    for word in pending:
        is_short = word[:1] == "-" and word[1:2] not in ("", "-")
        name, equals, value = (word[:2], word[2:], word[2:]) if is_short else word.partition("=")
        option = BY_FLAG.get(name)
        if option is None or option.is_switch:
            yield Said(option, "true", (word,))
        elif equals:
            yield Said(option, value, (word,))
        else:
            rest = tuple(value for value in [next(pending, None)] if value is not None)
            yield Said(option, "".join(rest), (word, *rest))


def inside_cluster(command: Sequence[str]) -> tuple[str, ...]:
    """The arguments of the sweep in the cluster, from the whole command line here."""
    return tuple(word for said in read(command) if not said.is_of(OUTSIDE) for word in said.words)


def without_secrets(command: Sequence[str]) -> list[str]:
    """The command line as it may be stored: without values of headers, users and passwords."""
    return [*command[:2], *(word for said in read(command) for word in said.masked())]


def repeated_words(record: RunRecord, scopes: Iterable[Scope]) -> list[str]:
    """The flags of the run's own command that belong to these scopes, without secrets."""
    wanted = set(scopes)
    return [
        word
        for said in read(record.command)
        if said.option and not said.is_masked and said.is_of(wanted)
        for word in said.words
    ]


def target_flags(record: RunRecord) -> dict[str, Any]:
    """Option -> text of what the run's own command says of its target; a tuple where it may be repeated."""
    found: dict[str, Any] = {}
    for said in read(record.command):
        if said.option is None or said.is_masked or not said.is_of(TARGET):
            continue
        name = said.option.name
        found[name] = (*found.get(name, ()), said.text) if said.option.multiple else said.text
    return {name: True if OPTIONS[name].is_switch else text for name, text in found.items()}


def spec_of(record: RunRecord) -> SweepSpec:
    """What a run was asked. What its record leaves out has its default."""
    known = {"batches": [1], "seed": record.seed, **record.spec}
    try:
        spec: SweepSpec = _converter.structure(known, SweepSpec)
    except (cattrs.BaseValidationError, TypeError, ValueError):  # of a verb with axes of its own
        return SweepSpec(model=str(known.get("model", "")), batches=(1,), seed=record.seed)
    return spec


def flags_of(spec: SweepSpec) -> dict[str, Any]:
    """Option -> the text that asks for it, a tuple of texts where it may be repeated. None: left out."""
    flags: dict[str, Any] = {}
    for option in MEASURING:
        value = getattr(spec, option.field) if option.field else None
        is_left_out = value is None or value == () or value == (None,)
        if option.field:
            flags[option.name] = None if is_left_out else option.format(value)
    flags |= {"image": OPTIONS["image"].format((spec.image_height, spec.image_width))}
    flags |= {"duration": "auto"} if spec.auto_duration else {}
    flags |= {name: listed(values) for name, values in spec.parameters if name in AXES}
    others = [axis for axis in spec.parameters if axis[0] not in AXES]
    flags["parameter"] = tuple(OPTIONS["parameter"].format(axis) for axis in others)
    if spec.scenario is not None:  # It sets the load itself, but for the rates of the server's one.
        flags |= {"concurrency": None, "arrival": OPTIONS["arrival"].default}
        flags |= {} if spec.scenario is Scenario.SERVER else {"rate": None}
    return flags


def words(flags: Mapping[str, Any]) -> list[str]:
    """As typed, without what is so by default."""
    typed: list[str] = []
    for name, text in flags.items():
        option = OPTIONS[name]
        if option.multiple:
            typed += [word for one in text for word in (option.long, one)]
        elif text is not None and (option.is_stated or text != option.default):
            typed += [option.long, str(text)]
    return typed


def levels() -> set[str]:
    """Options that say how much load there is: one that is given again replaces all of them."""
    return {option.name for option in MEASURING if option.scope is Scope.LEVEL}
