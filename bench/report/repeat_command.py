"""Flags that ask for the same again: of a whole run, or of one of its cells."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import cattrs
from cattrs.preconf.json import make_converter

from bench.analysis.cell_row import CellRow
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory, Via
from bench.core.run_folder import RunRecord
from bench.core.spec import DEFAULT_REPEATS, Scenario, SweepSpec
from bench.core.vit_variants import AXES

# What each flag of `bench sweep` is when it is left out; a test holds the two together.
DEFAULTS: Mapping[str, str | None] = {
    "replicas": None,
    "instances": None,
    "max_batch": None,
    "max_queue_delay": None,
    "preferred_batch": None,
    **dict.fromkeys(AXES),
    "concurrency": None,
    "rate": None,
    "arrival": "poisson",
    "scenario": None,
    "protocol": None,  # depends on --deploy
    "engine": "locust",
    "shared_memory": "none",
    "via": None,
    "image": "224x224",
    "duration": "5s",
    "warmup": "1s",
    "repeats": str(DEFAULT_REPEATS),
    "check": "1%",
    "timeout": "60s",
    "processes": "auto",
}
# Flags that say what is measured, beyond what a spec holds; of headers only the names would be known.
_SERVICE_FLAGS = ("--mlservice", "--platform", "--namespace", "-n", "--context", "--triton-image", "--gpu")
TARGET_FLAGS = (
    *("--url", "--grpc-url", "--metrics-url", "--vit", "--repository", "--slo"),
    *_SERVICE_FLAGS,
    *("--queue", "--set"),
)
_SWITCHES = ("--deploy",)  # have no value
# Who makes the load; not of what is measured.
_LOAD_FLAGS = ("--workers", "--locust-master", "--load-image", "--load-account")
_LOAD_SWITCHES = ("--in-cluster",)
_converter = make_converter()


def spec_of(record: RunRecord) -> SweepSpec:
    """What a run was asked; what its record leaves out is as by default."""
    known = {"batches": [1], "seed": record.seed, **record.spec}
    try:
        spec: SweepSpec = _converter.structure(known, SweepSpec)
    except (cattrs.BaseValidationError, TypeError, ValueError):  # of a verb with axes of its own
        return SweepSpec(model=str(known.get("model", "")), batches=(1,), seed=record.seed)
    return spec


def flags_of(spec: SweepSpec) -> dict[str, Any]:
    """Flag, as Python names it, -> its text; `parameter` is a tuple of them. None: left out."""
    parameters = {name: ",".join(values) for name, values in spec.parameters}
    return {
        "model": spec.model,
        "batch": _listed(spec.batches),
        "replicas": _optional(spec.replicas),
        "instances": _optional(spec.instances),
        "max_batch": _optional(spec.max_batches),
        "max_queue_delay": _delays(spec.queue_delays_us),
        "preferred_batch": _listed(spec.preferred_batches) or None,
        **{name: parameters.get(name) for name in AXES},
        "parameter": tuple(f"{name}={values}" for name, values in parameters.items() if name not in AXES),
        **_load(spec),
        "scenario": spec.scenario,
        "protocol": _listed(spec.protocols),
        "engine": _listed(spec.engines),
        "shared_memory": _listed(spec.shared_memory),
        "via": _optional(spec.vias),
        "image": f"{spec.image_height}x{spec.image_width}",
        "duration": "auto" if spec.auto_duration else _seconds(spec.duration_s),
        "warmup": _seconds(spec.warmup_s),
        "repeats": str(spec.repeats),
        "seed": str(spec.seed),
        "check": "1%" if spec.check_fraction == 0.01 else _plain(spec.check_fraction),
        "timeout": _seconds(spec.timeout_s),
        "processes": str(spec.processes) if spec.processes else "auto",
    }


def _load(spec: SweepSpec) -> dict[str, str | None]:
    """A scenario sets the load itself; of the server's one the rates are asked for."""
    rates = ",".join(f"{_plain(rate)}/s" for rate in spec.rates_per_s) or None
    if spec.scenario is not None:
        return {"concurrency": None, "rate": rates if spec.scenario is Scenario.SERVER else None,
                "arrival": "poisson"}  # fmt: skip
    return {"concurrency": _listed(spec.concurrencies) or None, "rate": rates, "arrival": spec.arrival.value}


def repeat_command(row: CellRow, record: RunRecord) -> str:
    """The command that measures one cell again, as it was measured here."""
    said = [*target_words(record), *_said(record, _LOAD_FLAGS, _LOAD_SWITCHES)]
    return shlex.join(["bench", "sweep", *words(flags_of(cell_spec(row, record))), *said])


def cell_spec(row: CellRow, record: RunRecord) -> SweepSpec:
    """The run's spec with the axes of one cell."""
    spec = spec_of(record)
    return replace(
        spec,
        model=row.model,
        batches=(row.batch,),
        replicas=(row.replicas,),
        instances=(row.instances,),
        max_batches=(row.max_batch or None,),  # 0 of a model without a batch axis: nothing to ask for
        queue_delays_us=(row.max_queue_delay_us,),
        parameters=tuple((name, (value,)) for name, value in row.parameters.items()),
        concurrencies=() if row.concurrency is None else (row.concurrency,),
        rates_per_s=() if row.rate_per_s is None else (row.rate_per_s,),
        arrival=Arrival(row.arrival) if row.arrival else spec.arrival,
        protocols=(Protocol(row.protocol),),
        engines=(Engine(row.engine),),
        shared_memory=(SharedMemory(row.shared_memory),),
        vias=(None if row.via is None else Via(row.via),),
    )


def words(flags: Mapping[str, Any]) -> list[str]:
    """As typed, without what is so by default."""
    said: list[str] = []
    for name, text in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "parameter":
            said += [word for one in text for word in (flag, one)]
        elif text is not None and text != DEFAULTS.get(name, ""):
            said += [flag, str(text)]
    return said


def target_words(record: RunRecord) -> list[str]:
    """The flags of the run's own command that say what was measured."""
    return _said(record, TARGET_FLAGS, _SWITCHES)


def _said(record: RunRecord, flags: Collection[str], switches: Collection[str]) -> list[str]:
    """Those of the run's own command, with their values."""
    said: list[str] = []
    given: Sequence[str] = record.command
    for position, word in enumerate(given):
        name, inline, _ = word.partition("=")
        if word in switches:
            said.append(word)
        elif name in flags:
            said += [word] if inline else given[position : position + 2]
    return said


def target_flags(record: RunRecord) -> dict[str, Any]:
    """The same as `flags_of` has it."""
    found: dict[str, Any] = {}
    pending = iter(target_words(record))
    for word in pending:
        name, inline, value = word.partition("=")
        is_switch = word in _SWITCHES
        said = True if is_switch else value if inline else next(pending, "")
        found[name.removeprefix("--").replace("-", "_")] = said
    return found


def _listed(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def _optional(values: Sequence[object]) -> str | None:
    return _listed([value for value in values if value is not None]) or None


def _delays(values: Sequence[int | None]) -> str | None:
    return _optional([None if us is None else "off" if us == -1 else f"{us}us" for us in values])


def _plain(value: float) -> str:
    """Exactly, and without an exponent."""
    return f"{Decimal(repr(value)).normalize():f}"


def _seconds(value: float) -> str:
    return f"{_plain(value)}s"
