"""From the values of flags to a SweepSpec. What goes wrong between flags is noted as a mistake."""

from __future__ import annotations

from typing import Any

from bench.cli.values import Values
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory
from bench.core.options import MEASURING
from bench.core.spec import QUICK_REPEATS, Scenario, SweepSpec
from bench.core.vit_variants import AXES

CONCURRENCY = 4
# LoadGen's offline scenario hands over everything at once; 16 in flight keep several instances busy.
OFFLINE_CONCURRENCY = 16
# LoadGen's multi-stream scenario sends so many samples a query.
SAMPLES_PER_QUERY = 8


def sweep_spec(values: Values) -> SweepSpec:
    """The spec as far as the flags alone tell."""
    fields = {option.field: values[option.name] for option in MEASURING if option.field}
    known = {name: value for name, value in fields.items() if value is not None}
    spec = SweepSpec(**{"model": "", "batches": (1,), **known, **_combined(values), **_load(values)})
    _check(values, spec)
    return spec


def _combined(values: Values) -> dict[str, Any]:
    """Fields that more than one flag sets, or that one flag sets with others."""
    height, width = values["image"] or (224, 224)
    is_auto = values["duration"] == "auto"
    every_protocol = tuple(Protocol) if values["deploy"] else (Protocol.HTTP,)
    return {
        "image_height": height,
        "image_width": width,
        "auto_duration": is_auto,
        **({"duration_s": 5.0} if is_auto else {}),
        **({"repeats": QUICK_REPEATS} if values["quick"] else {}),
        # A service made for the run is made to be measured as a whole.
        "protocols": values["protocol"] or every_protocol,
        "preferred_batches": tuple(sorted(values["preferred_batch"] or ())),
        "parameters": _parameters(values),
        "workers": values["workers"] or 0,
    }


def _parameters(values: Values) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """--precision and the like, which take only what the ViT knows, then those of --parameter."""
    plain: tuple[tuple[str, tuple[str, ...]], ...] = values["parameter"]
    names = [name for name, _ in plain]
    for name in sorted({name for name in names if names.count(name) > 1}):
        values.wrong("parameter", "names one parameter twice; give its values in one flag", name)
    own = {name: values[name] for name in AXES if values.has(name)}
    for name in sorted(own.keys() & set(names)):
        values.wrong("parameter", f"is given twice: --{name} says it too", name)
    axes = tuple((name, tuple(map(str, chosen))) for name, chosen in own.items() if chosen)
    return (*axes, *((name, chosen) for name, chosen in plain if name not in own))


def _load(values: Values) -> dict[str, Any]:
    """How much load there is: users, a rate, or what --scenario says."""
    scenario, rates = values["scenario"], values["rate"] or ()
    if scenario is None:
        users = values["concurrency"] or (() if values.has("rate") else (CONCURRENCY,))
        return {"concurrencies": users, "rates_per_s": rates}
    is_server = scenario is Scenario.SERVER
    if values.has("concurrency") or (values.has("rate") and not is_server):
        values.wrong("scenario", "sets the load itself: leave out --concurrency and --rate")
    if is_server:
        if not values.has("rate"):
            values.wrong("scenario", "needs --rate; `bench search` finds the highest rate that holds an SLO")
        if values["arrival"] not in (Arrival.POISSON, None):
            values.wrong("arrival", "--scenario server is poisson; leave it out")
        return {"concurrencies": (), "rates_per_s": rates}
    single = scenario is Scenario.SINGLE_STREAM
    if single and values.has("batch") and values["batch"] not in ((1,), None):
        values.wrong("batch", "--scenario single-stream sends one image; leave it out")
    users = (OFFLINE_CONCURRENCY,) if scenario is Scenario.OFFLINE else (1,)
    batches = {"batches": (1,)} if single else {}
    if scenario is Scenario.MULTI_STREAM and not values.has("batch"):
        batches = {"batches": (SAMPLES_PER_QUERY,)}
    return {"concurrencies": users, "rates_per_s": (), **batches}


def _check(values: Values, spec: SweepSpec) -> None:
    if spec.preferred_batches and -1 in spec.queue_delays_us:
        values.wrong("preferred_batch", "needs the dynamic batcher: leave out --max-queue-delay off")
    if SharedMemory.CUDA in spec.shared_memory and Engine.LOCUST in spec.engines:
        values.wrong("shared_memory", "only --engine perf_analyzer does that; allowed: none, system", "cuda")
