"""Variants of a server, and what `bench sweep --against` and `--variant` ask of each.

A variant is the sweep's own flags with some of the server's settings changed: another model, version,
instance count, parameter. What of the server is one value in each of two variants is what sets them apart,
so cells are matched by all the rest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.analysis.comparison import Gate, parse_gate
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunRecord
from bench.core.spec import SweepSpec
from bench.core.vit_variants import AXES
from bench.report.repeat_command import flags_of, spec_of, target_flags
from bench.server.session import models_of, repository_of

BASE, NEW = "base", "new"  # what the two are called when nobody names them
_OF_SERVER = ("model", "instances", "max-batch", "max-queue-delay", *AXES)
_OF_LOAD = ("batch", "concurrency", "rate", "protocol", "engine", "arrival", "shared-memory", "duration")
_LOADS = ("concurrency", "rate", "scenario")  # one of them given again replaces all
_ALLOWED = (
    "give NAME=SETTING=VALUE[,SETTING=VALUE...], or NAME= for the flags as they are; settings: "
    f"version, {', '.join(_OF_SERVER)}, or a parameter of the model"
)


@dataclass(frozen=True, slots=True)
class Variant:
    """`settings`: (flag without dashes, or a model parameter, value)."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def version(self) -> int | None:
        """Of the model; None: as its policy says."""
        text = dict(self.settings).get("version")
        return None if text is None else int(text)


def parse_variant(text: str) -> Variant:
    """`new=instances=2,delay_ms=55` -> Variant. Raises ValueError saying what is allowed."""
    name, equals, rest = text.partition("=")
    settings = tuple(_setting(part) for part in rest.split(",") if rest)
    if not equals or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", name):
        raise ValueError(_ALLOWED)
    if len(dict(settings)) < len(settings):
        raise ValueError("sets something twice; a variant has one value of each")
    return Variant(name, settings)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        raise ValueError(_ALLOWED)
    if name in _OF_LOAD:
        raise ValueError(f"{name} is of the load, which all variants share; {_ALLOWED}")
    if name == "version" and not re.fullmatch("[1-9][0-9]{0,8}", value):
        raise ValueError("version: give a whole number from 1")
    return name, value


def variants_of(given: Mapping[str, Any], flags: Mistakes) -> tuple[Variant, ...]:
    """From --variant and --against; mistakes are left in `flags`."""
    texts: Sequence[str] = given["variant"]
    read = [flags.read("--variant", text, parse_variant, None) for text in texts]
    found = [variant for variant in read if variant is not None]
    names = [variant.name for variant in found]
    for name in sorted({name for name in names if names.count(name) > 1}):
        flags.wrong("--variant", name, "names two variants; give each a name of its own")
    if given["against"] is not None:
        if BASE in names:
            flags.wrong("--variant", BASE, "is what the run of --against is called; choose another name")
        return tuple(found) or (Variant(NEW),)
    if not texts:
        said = ("--fail-if", " ".join(given["fail_if"])) if given["fail_if"] else ("--anyway", "")
        flags.wrong(*said, "goes with --against RUN or --variant")
    elif len(texts) < 2:
        flags.wrong("--variant", texts[0], "needs a second one to be compared with, or --against RUN")
    return tuple(found)


def gates_of(given: Mapping[str, Any], flags: Mistakes) -> tuple[Gate, ...]:
    found = [flags.read("--fail-if", text, parse_gate, None) for text in given["fail_if"]]
    return tuple(gate for gate in found if gate is not None)


def inherited(given: Mapping[str, Any], explicit: Collection[str], base: RunRecord) -> dict[str, Any]:
    """The flags as typed, and where they say nothing, those the base was measured with."""
    before = {**flags_of(spec_of(base)), **target_flags(base)}
    own = set(explicit)
    if own & set(_LOADS):
        own |= set(_LOADS)
    if "quick" in own:
        own.add("repeats")
    if "url" in own:
        own |= {"vit", "repository"}  # of the server that the base started
    merged = {**given, **{name: text for name, text in before.items() if name not in own}}
    typed = given["parameter"] if "parameter" in own else ()
    named = {text.partition("=")[0] for text in typed}
    kept = [text for text in before["parameter"] if text.partition("=")[0] not in named]
    return {**merged, "parameter": (*kept, *typed)}


def applied(given: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """The flags that ask for one variant."""
    changed = dict(given)
    for name, value in variant.settings:
        if name in _OF_SERVER:
            changed[name.replace("-", "_")] = value
        elif name != "version":
            others = [text for text in changed["parameter"] if text.partition("=")[0] != name]
            changed["parameter"] = (*others, f"{name}={value}")
    return changed


def check_settings(given: Mapping[str, Any], variant: Variant, flags: Mistakes) -> None:
    """What the repository on disk tells: is there such a version."""
    model = str(given["model"])
    folder = repository_of(given) / model
    if model not in models_of(repository_of(given)):
        return  # said elsewhere
    version = variant.version
    if version is not None and not (folder / str(version)).is_dir():
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.name.isdigit()))
        flags.wrong("--variant", variant.name, f"{model} has no version {version}; it has {there}")


def with_version(config: Mapping[str, Any], version: int | None) -> dict[str, Any]:
    """A model configuration that serves just that version."""
    if version is None:
        return dict(config)
    return {**config, "version_policy": {"specific": {"versions": [version]}}}


def base_spec(base: RunRecord, new: SweepSpec) -> SweepSpec:
    """The base's server under the new one's load; of axes that both vary, only what both have."""
    before = spec_of(base)
    wanted = dict(new.parameters)
    return replace(
        new,
        model=before.model,
        replicas=_shared(before.replicas, new.replicas),
        instances=_shared(before.instances, new.instances),
        max_batches=_shared(before.max_batches, new.max_batches),
        queue_delays_us=_shared(before.queue_delays_us, new.queue_delays_us),
        parameters=tuple(
            (name, _shared(values, wanted.get(name, values))) for name, values in before.parameters
        ),
    )


def _shared(before: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in before if value in new) or before


def served_before(base: RunRecord, spec: SweepSpec) -> Mapping[str, Any] | None:
    """The configuration that the base's first cell was served with; None: its record has none."""
    first = base.served.get(spec.configurations()[0].key)
    return first if first is not None else next(iter(base.served.values()), None)


def differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two configurations, both read back from a server, set anything differently."""
    return any(before[name] != now[name] for name in before.keys() & now.keys())


def refuse_foreign(path: Path, names: Collection[str]) -> list[str]:
    """What in a folder is not of variants taking turns there."""
    if not path.is_dir():
        return [path.name] if path.exists() else []
    ours = (".log", ".html")
    return sorted(e.name for e in path.iterdir() if e.name not in names and e.suffix not in ours)
