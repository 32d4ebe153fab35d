"""The participants of an A/B measurement, and how their rounds are interleaved.

Participants are the variants, and what the base run served where that can be served again. Each measures its
cells as a sweep of its own, on one server. A round measures every cell of a configuration once. The rounds of
all participants are interleaved, every other time in reverse (A B, B A, A B...). Drift of the machine then
hits all of them, and a drift that is linear in time leaves the mean of the ratios alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from bench.analysis.comparison import Gate, unlike
from bench.core.errors import WrongUse
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder
from bench.core.spec import PlannedTrial, SweepSpec
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
from bench.experiments.progress import Say
from bench.experiments.sweep import Sweep
from bench.sensors import environment
from bench.server import model_config
from bench.server.control import Triton
from bench.server.serving import Serving
from bench.server.session import Opened, models_of, repository_of, weights_of, with_weights


def interleaved(sweeps: Sequence[Sweep]) -> list[tuple[Sweep, tuple[PlannedTrial, ...]]]:
    """Every round of every participant's sweep, in the order in which they are measured."""
    order: list[tuple[Sweep, tuple[PlannedTrial, ...]]] = []
    specs = [sweep.runner.spec for sweep in sweeps]
    for servers in zip_longest(*(spec.configurations() for spec in specs)):
        rounds = [
            [(sweep, trials) for trials in spec.rounds(server)] if server else []
            for sweep, spec, server in zip(sweeps, specs, servers, strict=True)
        ]
        for repeat, of_all in enumerate(zip_longest(*rounds)):
            known = [entry for entry in of_all if entry is not None]
            order += known if repeat % 2 == 0 else known[::-1]
    return order


def measure_interleaved(sweeps: Sequence[Sweep]) -> None:
    """Measure what is not in the run folders yet; a model stays loaded until another participant needs it.

    Raises as `Sweep.run`; what was measured stays.
    """
    for sweep in sweeps:
        sweep.runner.loaded = sweeps[0].runner.loaded
    for sweep, trials in interleaved(sweeps):
        sweep.measure(trials)
    for sweep in sweeps:
        sweep.runner.folder.finish()


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
class Participant:
    """One of those that are compared."""

    variant: Variant
    spec: SweepSpec
    target: Opened  # with a serving of its own


@contextmanager
def participants_of(
    asked: Asked,
    specs: Mapping[Variant, SweepSpec],
    target: Opened,
    check_remote: Callable[[Opened, SweepSpec, Mistakes], None],
    say: Say,
) -> Iterator[list[Participant]]:
    """Each with its own base configuration; somebody else's server gets its models back as they were.

    `check_remote`: raises WrongUse when a server that runs already cannot do what a spec asks for.
    """
    if asked.remote is not None:
        _check_models(specs, target)
    before: dict[str, Mapping[str, Any]] = {}
    try:
        variants = [_participant(asked, variant, spec, target, before) for variant, spec in specs.items()]
        if asked.remote is not None:
            for participant in variants:
                check_remote(participant.target, participant.spec, Mistakes())
        yield [*_base(asked, variants, before, say), *variants]
    finally:
        _give_back(target.triton, before)


def _participant(
    asked: Asked, variant: Variant, spec: SweepSpec, target: Opened, before: dict[str, Mapping[str, Any]]
) -> Participant:
    config, weights = _base_config(asked, applied(asked.given, variant), target, before)
    serving = Serving(target.triton, spec.model, with_version(config, variant.version), is_ours=True)
    return Participant(variant, spec, replace(target, serving=serving, weights=weights))


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


def _base(
    asked: Asked, variants: Sequence[Participant], before: dict[str, Mapping[str, Any]], say: Say
) -> list[Participant]:
    """What the base served, unless that is unknown, cannot be served, or is the same as the one variant."""
    if asked.base is None:
        return []
    record, new = asked.base.record, variants[0]
    spec = base_spec(record, new.spec)
    then = served_before(record, spec)
    known = models_of(repository_of(asked.given)) if asked.remote is None else new.target.triton.models()
    if then is not None and spec.model in known:
        if asked.remote is not None:
            _kept(new.target, spec.model, before)
        now = new.target.serving.configure(new.spec.configurations()[0]).config
        if len(variants) > 1 or differ(then, now):
            serving = Serving(new.target.triton, spec.model, then, is_ours=True)
            old = replace(new.target, serving=serving, weights=record.weights)
            return [Participant(Variant(BASE), spec, old)]
    say(f"{record.name} is not served again: the comparison uses what was measured then.")
    here = environment.machine()
    now_record = replace(
        record, name=new.variant.name, machine=here, weights=new.target.weights, planned=new.spec.cells()
    )
    mistakes = unlike(record, now_record)
    if mistakes and not asked.given["anyway"]:
        raise WrongUse([*mistakes, "--anyway judges all the same; the ratios then mix both changes."])
    return []
