"""Those that take turns: each variant, and what the base served where that can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.comparison import Gate, unlike
from bench.cli.verbs.sweep import check_remote
from bench.core.errors import WrongUse
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder
from bench.core.spec import SweepSpec
from bench.core.target import Target
from bench.experiments.ab_test.variants import (
    BASE,
    Variant,
    applied,
    base_spec,
    differ,
    served_before,
    with_version,
)
from bench.experiments.preconditions import check_against
from bench.report.publish import TALK
from bench.sensors import host as machine
from bench.sensors import nvml
from bench.server import model_config
from bench.server.control import Triton
from bench.server.serving import Serving
from bench.server.session import Opened, models_of, repository_of, weights_of, with_weights


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that was typed, read."""

    given: Mapping[str, Any]
    command: Sequence[str]
    slo: str
    gates: tuple[Gate, ...]
    base: RunFolder | None
    remote: Target | None


@dataclass(frozen=True, slots=True)
class Taker:
    """One that takes turns."""

    variant: Variant
    spec: SweepSpec
    target: Opened  # with a serving of its own


@contextmanager
def takers_of(asked: Asked, specs: Mapping[Variant, SweepSpec], target: Opened) -> Iterator[list[Taker]]:
    """Each with its own base configuration; somebody else's server gets its models back as they were."""
    if asked.remote is not None:
        _check_models(specs, target)
    before: dict[str, Mapping[str, Any]] = {}
    try:
        found = [_taker(asked, variant, spec, target, before) for variant, spec in specs.items()]
        if asked.remote is not None:
            for taker in found:
                check_remote(taker.target, taker.spec, Mistakes())
        yield [*_old(asked, found, before), *found]
    finally:
        _give_back(target.triton, before)


def _taker(
    asked: Asked, variant: Variant, spec: SweepSpec, target: Opened, before: dict[str, Mapping[str, Any]]
) -> Taker:
    config, weights = _base_config(asked, applied(asked.given, variant), target, before)
    serving = Serving(target.triton, spec.model, with_version(config, variant.version), is_ours=True)
    return Taker(variant, spec, replace(target, serving=serving, weights=weights))


def _check_models(specs: Mapping[Variant, SweepSpec], target: Opened) -> None:
    flags, known = Mistakes(), target.triton.models()
    for spec in specs.values():
        check_against(spec, known, None, flags)
    _check(flags)


def _check(flags: Mistakes) -> None:
    """Raises what is wrong with all of them, each mistake once."""
    flags.mistakes = list(dict.fromkeys(flags.mistakes))
    flags.check()


def _give_back(triton: Triton, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Only what is served otherwise by now: a load takes a server's time."""
    for model, config in before.items():
        if not triton.model_ready(model) or triton.config(model) != config:
            triton.load(model, config)


def _base_config(
    asked: Asked, given: Mapping[str, Any], target: Opened, before: dict[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], str]:
    """A model's whole configuration and its weights in a sentence; `before` keeps a remote one's."""
    model = given["model"]
    if asked.remote is not None:
        return _kept(target, model, before), ""
    config = model_config.read(repository_of(given) / model / "config.pbtxt")
    weights = weights_of(config, given["vit"])
    return (with_weights(config, weights), weights.origin) if weights else (config, "")


def _kept(target: Opened, model: str, before: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if model not in before:
        before[model] = dict(Serving(target.triton, model).base())
    return before[model]


def _old(asked: Asked, takers: Sequence[Taker], before: dict[str, Mapping[str, Any]]) -> list[Taker]:
    """What the base served, where it can be had and is not what the one new variant is served as."""
    if asked.base is None:
        return []
    record, new = asked.base.record, takers[0]
    spec = base_spec(record, new.spec)
    then = served_before(record, spec)
    known = models_of(repository_of(asked.given)) if asked.remote is None else new.target.triton.models()
    if then is not None and spec.model in known:
        if asked.remote is not None:
            _kept(new.target, spec.model, before)
        now = new.target.serving.configure(new.spec.configurations()[0]).config
        if len(takers) > 1 or differ(then, now):
            serving = Serving(new.target.triton, spec.model, then, is_ours=True)
            old = replace(new.target, serving=serving, weights=record.weights)
            return [Taker(Variant(BASE), spec, old)]
    TALK.print(f"{record.name} is not served again: judged against what was measured then.", soft_wrap=True)
    here = {**machine.describe(), **nvml.describe()}
    now_record = replace(
        record, name=new.variant.name, machine=here, weights=new.target.weights, planned=new.spec.cells()
    )
    mistakes = unlike(record, now_record)
    if mistakes and not asked.given["anyway"]:
        raise WrongUse([*mistakes, "--anyway judges all the same; the ratios then mix both changes."])
    return []
