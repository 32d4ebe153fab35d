"""The participants of an A/B measurement, and how their rounds are interleaved.

Participants are the variants, and what the base run served where that can be served again. Each measures its
cells as a sweep of its own, on one server. A round measures every cell of a configuration once. The rounds of
all participants are interleaved, every other time in reverse (A B, B A, A B...). Drift of the machine then
hits all of them. A comparison weighs the rounds of both orders the same, so a drift that is linear in time
leaves its ratios alone, for odd numbers of rounds too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from bench.analysis.comparison import unlike
from bench.core.errors import WrongUse
from bench.core.gates import Gate
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder
from bench.core.spec import PlannedTrial, SweepSpec
from bench.core.variant import Variant
from bench.experiments.ab_test.variants import BASE, base_spec, differ, served_before, with_version
from bench.experiments.preconditions import check_against, check_open
from bench.experiments.run_setup import Output
from bench.experiments.sweep import Sweep
from bench.sensors import environment
from bench.server.control import Triton
from bench.server.serving import Serving
from bench.server.session import Say, Session


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What `--against` and `--variant` ask: which servers, and how they are judged."""

    specs: Mapping[Variant, SweepSpec]
    output: Output
    slo: str = ""
    gates: tuple[Gate, ...] = ()
    base: RunFolder | None = None  # of --against
    anyway: bool = False  # judge although the machine or the weights differ from the base's
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Participant:
    """One that is measured."""

    variant: Variant
    spec: SweepSpec
    session: Session  # with a serving of its own


@contextmanager
def participants_of(request: ComparisonRequest, session: Session, say: Say) -> Iterator[list[Participant]]:
    """Each with its own base configuration; somebody else's server gets its models back as they were."""
    if session.repository is None:
        _check_models(request.specs, session)
    before: dict[str, Mapping[str, Any]] = {}
    try:
        new = [_participant(variant, spec, session, before) for variant, spec in request.specs.items()]
        for one in new:
            check_open(one.session, one.spec)
        yield [*_old(request, new, before, say), *new]
    finally:
        _give_back(session.triton, before)


def _participant(
    variant: Variant, spec: SweepSpec, session: Session, before: dict[str, Mapping[str, Any]]
) -> Participant:
    config, weights = _base_config(spec.model, session, before)
    serving = Serving(session.triton, spec.model, with_version(config, variant.version), is_ours=True)
    return Participant(variant, spec, replace(session, serving=serving, weights=weights))


def _check_models(specs: Mapping[Variant, SweepSpec], session: Session) -> None:
    mistakes, known = Mistakes(), session.triton.models()
    for spec in specs.values():
        check_against(spec, known, None, mistakes)
    mistakes.check()


def _give_back(triton: Triton, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Only what is served otherwise by now: a load takes a server's time."""
    for model, config in before.items():
        if not triton.model_ready(model) or triton.config(model) != config:
            triton.load(model, config)


def _base_config(
    model: str, session: Session, before: dict[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], str]:
    """A model's whole configuration and its weights in a sentence; `before` keeps somebody else's."""
    if session.repository is None:
        return _kept(session, model, before), ""
    config, weights = session.repository.base(model)
    return config, weights.origin if weights else ""


def _kept(session: Session, model: str, before: dict[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if model not in before:
        before[model] = dict(Serving(session.triton, model).base())
    return before[model]


def _old(
    request: ComparisonRequest, new: list[Participant], before: dict[str, Mapping[str, Any]], say: Say
) -> list[Participant]:
    """What the base served, where it can be had and is not what the one new variant is served as."""
    if request.base is None:
        return []
    record, first = request.base.record, new[0]
    session, repository = first.session, first.session.repository
    spec = base_spec(record, first.spec)
    then = served_before(record, spec)
    if then is not None and spec.model in (repository.models() if repository else session.triton.models()):
        if repository is None:
            _kept(session, spec.model, before)
        now = session.serving.configure(first.spec.configurations()[0]).config
        if len(new) > 1 or differ(then, now):
            serving = Serving(session.triton, spec.model, then, is_ours=True)
            return [
                Participant(Variant(BASE), spec, replace(session, serving=serving, weights=record.weights))
            ]
    say(f"{record.name} is not served again: the comparison uses what was measured then.")
    now_record = replace(
        record,
        name=first.variant.name,
        machine=environment.machine(),
        weights=session.weights,
        planned=first.spec.cells(),
    )
    differences = unlike(record, now_record)
    if differences and not request.anyway:
        raise WrongUse([*differences, "--anyway judges all the same; the ratios then mix both changes."])
    return []
