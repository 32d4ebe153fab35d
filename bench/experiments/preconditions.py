"""What a server cannot be asked, said before anything is measured.

Of a server that runs elsewhere only its configuration is known: whether it has a GPU, it says itself, and
then the cells that need one fail with its sentence.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from bench.core import open_files
from bench.core.cell import Engine
from bench.core.mistakes import Mistakes
from bench.core.spec import Reload, SweepSpec
from bench.core.units import count
from bench.core.vit_variants import AXES, Compile, Precision, has_variants
from bench.protocols.routes import missing_route
from bench.sensors import nvml
from bench.sensors.host import usable_cores
from bench.server import model_config
from bench.server.provider import Provider
from bench.server.session import Session

_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine that serves has."""

    has_gpu: bool
    has_compiler: bool

    @classmethod
    def here(cls) -> Host:
        return cls(nvml.count() > 0, any(shutil.which(name) for name in _COMPILERS))


def check_before(provider: Provider, spec: SweepSpec, mistakes: Mistakes) -> None:
    """Of a server started here, the repository on disk tells before anything starts."""
    repository = provider.repository
    check_open_files(spec, mistakes, is_served_here=repository is not None)
    if repository is None:
        return
    known = repository.models()
    limit = None
    if spec.model in known:
        config = repository.config(spec.model)
        limit = int(config.get("max_batch_size", 0))
        declared = model_config.served(config).parameters
        check_parameters(spec, declared, mistakes, may_read_others=not repository.is_shipped)
        refuse_variants(spec, config, mistakes, Host.here())
    check_against(spec, known or (f"no model ({repository.path} has none)",), limit, mistakes)


def check_open_files(spec: SweepSpec, mistakes: Mistakes, *, is_served_here: bool) -> None:
    """Whether every user can have a connection. A server started here has one for each user, too.

    Workers of Locust's master may run on other machines, and refuse by themselves what does not fit there.
    """
    users = max(spec.concurrencies, default=0)
    if not users or spec.workers:
        return
    is_alone = Engine.PERF_ANALYZER in spec.engines
    most = 1 if is_alone or is_served_here else spec.processes or usable_cores()
    wanted = open_files.processes(users, is_open_loop=False)
    if wanted == 0 or wanted > most:
        why = (
            f"needs {count(open_files.needed(users, is_open_loop=False))} open files in one process, and the "
            f"hard limit here is {count(open_files.most())}: use fewer users"
        )
        more = f", --processes {wanted}" if not (is_alone or is_served_here) and wanted else ""
        mistakes.wrong("--concurrency", str(users), f"{why}{more}, or raise it (ulimit -Hn)")


def check_open(session: Session, spec: SweepSpec) -> None:
    """Of somebody else's server, only it can tell. Raises WrongUse with every mistake."""
    if session.repository is not None:
        return
    mistakes = Mistakes()
    check_against(spec, session.triton.models(), None, mistakes)
    mistakes.check()
    if spec.reload is Reload.REPEAT and not session.triton.allows_loading():
        mistakes.wrong(
            "--reload", spec.reload, "that server loads no models on request: start it with "
            "--model-control-mode=explicit, or give --reload never",
        )  # fmt: skip
        mistakes.check()
    base = session.serving.base()
    served = model_config.served(dict(base))
    check_against(spec, (), served.max_batch, mistakes)
    check_parameters(spec, served.parameters, mistakes, may_read_others=True)
    refuse_variants(spec, base, mistakes, None)
    for protocol in spec.protocols:
        if missing := missing_route(session.target, protocol, spec.vias):
            mistakes.wrong("--protocol", protocol, missing)
    mistakes.check()


def refuse_variants(
    spec: SweepSpec, config: Mapping[str, Any], mistakes: Mistakes, host: Host | None
) -> None:
    """Leaves a sentence in `mistakes` for everything asked that cannot be. `host`: None for a remote one.

    `config`: of the model, as its file or its server says.
    """
    asked = {name: values for name, values in spec.parameters if name in AXES}
    if not asked:
        return
    if not has_variants(config):
        names = ", ".join(f"--{name}" for name in asked)
        mistakes.wrong(
            "--model", spec.model, f"has no such variants: give --model python_vit, which has, or no {names}"
        )
        return
    for name, values in asked.items():
        _check_values(name, values, mistakes)
    if host is not None:
        _check_host(asked, host, mistakes)


def _check_values(name: str, values: tuple[str, ...], mistakes: Mistakes) -> None:
    """Those of --precision are checked when read; --parameter precision=... is not."""
    for value in values:
        if value not in list(AXES[name]):
            mistakes.wrong(f"--{name}", value, f"unknown; allowed: {', '.join(AXES[name])}")


def _check_host(asked: Mapping[str, tuple[str, ...]], host: Host, mistakes: Mistakes) -> None:
    rules: tuple[tuple[str, Callable[[str], bool], bool, str], ...] = (
        ("precision", lambda value: value == Precision.TF32, host.has_gpu,
         "rounds on the tensor cores of a GPU, and this machine has none; bf16 is what helps a CPU"),
        ("compile", lambda value: value == Compile.MAX_AUTOTUNE, host.has_gpu,
         "tunes GPU kernels and captures CUDA graphs, and this machine has no GPU; allowed: none, default"),
        ("compile", lambda value: value == Compile.DEFAULT, host.has_compiler,
         f"needs a C++ compiler where the model is served, and none of {', '.join(_COMPILERS)} is on $PATH"),
    )  # fmt: skip
    for name, concerns, is_there, why in rules:
        for value in asked.get(name, ()):
            if concerns(value) and not is_there:
                mistakes.wrong(f"--{name}", value, why)


def check_parameters(
    spec: SweepSpec, known: Collection[str], mistakes: Mistakes, *, may_read_others: bool = False
) -> None:
    """A model takes a parameter that it does not read, and serves as before. `known`: those it declares.

    A model of others may read one that it does not declare: then only a likely slip is refused.
    """
    for name, values in spec.parameters:
        is_likely = not may_read_others or get_close_matches(name, known)
        if name not in known and name not in AXES and is_likely:
            said = ", ".join(sorted(known)) or "none"
            mistakes.wrong(
                "--parameter",
                f"{name}={','.join(values)}",
                f"{spec.model} has no such parameter; its configuration declares {said}",
            )


def check_ceiling(provider: Provider, spec: SweepSpec, mistakes: Mistakes) -> None:
    """Only a model with variants has a bare model to compare with."""
    repository = provider.repository
    if repository is not None and not has_variants(repository.config(spec.model)):
        mistakes.wrong("--ceiling", spec.model, "only the shipped ViT has a bare model to compare with")


def check_against(
    spec: SweepSpec, known_models: Sequence[str], max_batch: int | None, mistakes: Mistakes
) -> None:
    """What only the target can tell: is the model there, does the batch fit."""
    if known_models and spec.model not in known_models:
        mistakes.wrong("--model", spec.model, f"not in the repository; it has {', '.join(known_models)}")
        return
    limits = [m for m in spec.max_batches if m is not None] or ([max_batch] if max_batch is not None else [])
    if not limits:
        return
    limit = max(1, min(limits))  # a model without a batch axis still takes one item
    if max(spec.preferred_batches, default=0) > limit:
        mistakes.wrong("--preferred-batch", str(spec.preferred_batches[-1]), f"over the maximum of {limit}")
    over = [batch for batch in spec.batches if batch > limit]
    if over:
        allowed = f"allowed: 1 to {limit}, or raise it with --max-batch"
        takes_none = max_batch == 0 and not any(spec.max_batches)
        said = "the model takes no batches: use --batch 1" if takes_none else allowed
        text = ",".join(map(str, over))
        mistakes.wrong("--batch", text, f"over the model's maximum of {limit}; {said}")
