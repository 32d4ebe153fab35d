"""What variants cannot be, said before anything starts.

Of a server that runs elsewhere only its configuration is known: whether it has a GPU, it says itself, and
then the cells that need one fail with its sentence.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.cli.flags import Flags
from bench.core.spec import SweepSpec
from bench.core.vit_variants import AXES, Compile, Precision, has_variants
from bench.sensors import nvml

_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine that serves has."""

    has_gpu: bool
    has_compiler: bool

    @classmethod
    def here(cls) -> Host:
        return cls(nvml.count() > 0, any(shutil.which(name) for name in _COMPILERS))


def refuse_variants(spec: SweepSpec, config: Mapping[str, Any], flags: Flags, host: Host | None) -> None:
    """Leaves a sentence in `flags` for everything asked that cannot be. `host`: None for a remote one.

    `config`: of the model, as its file or its server says.
    """
    asked = {name: values for name, values in spec.parameters if name in AXES}
    if not asked:
        return
    if not has_variants(config):
        names = ", ".join(f"--{name}" for name in asked)
        flags.wrong(
            "--model", spec.model, f"has no such variants: give --model python_vit, which has, or no {names}"
        )
        return
    for name, values in asked.items():
        _check_values(name, values, flags)
    if host is not None:
        _check_host(asked, host, flags)


def _check_values(name: str, values: tuple[str, ...], flags: Flags) -> None:
    """Those of --precision are checked when read; --parameter precision=... is not."""
    for value in values:
        if value not in list(AXES[name]):
            flags.wrong(f"--{name}", value, f"unknown; allowed: {', '.join(AXES[name])}")


def _check_host(asked: Mapping[str, tuple[str, ...]], host: Host, flags: Flags) -> None:
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
                flags.wrong(f"--{name}", value, why)
