"""From flags as typed to a SweepSpec: every mistake is found and named, then all are raised at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from bench.core import units
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory, Via
from bench.core.mistakes import Mistakes
from bench.core.parsing import choices, fraction, image_size, integers, positive_duration
from bench.core.spec import DEFAULT_REPEATS, QUICK_REPEATS, Scenario, SweepSpec
from bench.core.vit_variants import AXES

T = TypeVar("T")

DEFAULT_BATCH = "1,8,32"
DEFAULT_CONCURRENCY = "4"
OFFLINE_CONCURRENCY = "16"  # keeps several instances busy; LoadGen hands over everything at once
MAX_BATCH = 4096
MAX_USERS = 10_000
MAX_INSTANCES = 256
MAX_REPLICAS = 64


def variants(texts: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`--parameter name=a,b` flags -> axes of model parameters."""
    axes = []
    for text in texts:
        name, equals, values = text.partition("=")
        listed = tuple(v.strip() for v in values.split(","))
        if not name or not equals or not all(listed) or len(set(listed)) < len(listed):
            raise ValueError("give NAME=VALUE[,VALUE...], each value once")
        axes.append((name, listed))
    if len({name for name, _ in axes}) < len(axes):
        raise ValueError("names one parameter twice; list its values in one flag")
    return tuple(axes)


def _preferred(given: Mapping[str, Any], flags: Mistakes) -> tuple[int, ...]:
    """Sizes that the dynamic batcher goes for; without one there is nothing to prefer."""
    text = given.get("preferred_batch")
    if not text:
        return ()
    if "off" in str(given.get("max_queue_delay") or ""):
        flags.wrong("--preferred-batch", text, "needs the dynamic batcher: leave out --max-queue-delay off")
    nothing: tuple[int, ...] = ()
    return tuple(sorted(flags.read("--preferred-batch", text, integers(1, MAX_BATCH), nothing)))


def _parameters(given: Mapping[str, Any], flags: Mistakes) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """--precision and the like, which only take what the ViT knows, then those of --parameter."""
    texts = given["parameter"]
    none: tuple[tuple[str, tuple[str, ...]], ...] = ()
    plain = flags.read("--parameter", " ".join(texts), lambda _: variants(texts), none)
    known = {name: str(given[name]) for name in AXES if given.get(name)}
    for name in sorted(known.keys() & dict(plain).keys()):
        flags.wrong("--parameter", name, f"is given twice: --{name} says it too")
    nothing: tuple[StrEnum, ...] = ()
    read = {name: flags.read(f"--{name}", text, choices(AXES[name]), nothing) for name, text in known.items()}
    named = tuple((name, tuple(map(str, values))) for name, values in read.items() if values)
    return (*named, *((name, values) for name, values in plain if name not in known))


def _protocol(given: Mapping[str, Any]) -> str:
    """A service made for the run is made to be measured as a whole."""
    return given.get("protocol") or ("http,grpc" if given.get("deploy") else "http")


def sweep_spec(given: Mapping[str, Any], flags: Mistakes) -> SweepSpec:
    """The spec as far as the flags alone tell; mistakes are left in `flags`."""
    read = flags.read
    given = _scenario(given, flags)
    has_rate = bool(given.get("rate"))
    concurrency = given.get("concurrency") or ("" if has_rate else DEFAULT_CONCURRENCY)
    is_auto = given["duration"] == "auto"
    height, width = read("--image", given["image"], image_size, (224, 224))
    quick = bool(given["quick"])
    if quick and given.get("repeats"):
        flags.wrong("--quick", "", "goes without --repeats: it measures each cell once")
    repeats = str(given.get("repeats") or (QUICK_REPEATS if quick else DEFAULT_REPEATS))
    spec = SweepSpec(
        model=given["model"],
        batches=read("--batch", given["batch"], integers(1, MAX_BATCH), (1,)),
        replicas=_optional(flags, "--replicas", given.get("replicas"), integers(1, MAX_REPLICAS)),
        instances=_optional(flags, "--instances", given.get("instances"), integers(1, MAX_INSTANCES)),
        max_batches=_optional(flags, "--max-batch", given.get("max_batch"), integers(1, MAX_BATCH)),
        queue_delays_us=_optional(flags, "--max-queue-delay", given.get("max_queue_delay"), _delays_us),
        preferred_batches=_preferred(given, flags),
        parameters=_parameters(given, flags),
        concurrencies=read("--concurrency", concurrency, integers(1, MAX_USERS), ()) if concurrency else (),
        rates_per_s=read("--rate", given["rate"], units.parse_rates, ()) if has_rate else (),
        arrival=flags.one("--arrival", given["arrival"], choices(Arrival), Arrival.POISSON),
        protocols=read("--protocol", _protocol(given), choices(Protocol, "both"), (Protocol.HTTP,)),
        engines=read("--engine", given["engine"], choices(Engine, "both"), (Engine.LOCUST,)),
        shared_memory=read(
            "--shared-memory", given["shared_memory"], choices(SharedMemory), (SharedMemory.NONE,)
        ),
        vias=read("--via", given["via"], choices(Via), ()) if given.get("via") else (None,),
        duration_s=5.0 if is_auto else read("--duration", given["duration"], positive_duration, 5.0),
        auto_duration=is_auto,
        scenario=Scenario(given["scenario"]) if given.get("scenario") else None,
        warmup_s=read("--warmup", given["warmup"], units.parse_duration_s, 1.0),
        repeats=flags.one("--repeats", repeats, integers(1, 1000), 1),
        seed=flags.one("--seed", str(given["seed"]), integers(0, 2**31 - 1), 1),
        image_height=height,
        image_width=width,
        check_fraction=read("--check", str(given["check"]), fraction, 0.01),
        timeout_s=read("--timeout", given["timeout"], positive_duration, 60.0),
        processes=read("--processes", given["processes"], _processes, 0),
        workers=flags.one("--workers", str(given["workers"]), integers(1, 1000), 0)
        if given.get("workers")
        else 0,
    )
    if SharedMemory.CUDA in spec.shared_memory and Engine.LOCUST in spec.engines:
        flags.wrong("--shared-memory", "cuda", "only --engine perf_analyzer does that; allowed: none, system")
    return spec


def _scenario(given: Mapping[str, Any], flags: Mistakes) -> Mapping[str, Any]:
    """--scenario sets the load; flags that set it too are mistakes."""
    text = given.get("scenario")
    if not text:
        return given
    scenario = flags.one("--scenario", text, choices(Scenario), Scenario.OFFLINE)
    fixed = {**given, "scenario": scenario.value}
    if given.get("concurrency") or (given.get("rate") and scenario is not Scenario.SERVER):
        flags.wrong("--scenario", text, "sets the load itself: leave out --concurrency and --rate")
    match scenario:
        case Scenario.SINGLE_STREAM:
            if given["batch"] not in ("1", DEFAULT_BATCH):
                flags.wrong(
                    "--batch", given["batch"], "--scenario single-stream sends one image; leave it out"
                )
            return {**fixed, "batch": "1", "concurrency": "1"}
        case Scenario.MULTI_STREAM:
            return {**fixed, "concurrency": "1"}
        case Scenario.SERVER:
            if not given.get("rate"):
                flags.wrong("--scenario", text, "needs --rate; `bench search` finds the highest that holds")
            if given["arrival"] != Arrival.POISSON:
                flags.wrong("--arrival", given["arrival"], "--scenario server is poisson; leave it out")
            return {**fixed, "arrival": "poisson"}
        case Scenario.OFFLINE:
            return {**fixed, "concurrency": OFFLINE_CONCURRENCY}


def _optional(
    flags: Mistakes, flag: str, text: str | None, parse: Callable[[str], tuple[int, ...]]
) -> tuple[int | None, ...]:
    nothing: tuple[int | None, ...] = (None,)
    return nothing if not text else flags.read(flag, text, parse, nothing)


def _delays_us(text: str) -> tuple[int, ...]:
    """`off` switches the dynamic batcher off; 0 batches what is waiting, without waiting for more."""
    delays = tuple(
        -1 if part.strip() == "off" else round(units.parse_duration_s(part) * 1e6) for part in text.split(",")
    )
    if len(set(delays)) < len(delays):
        raise ValueError("names one delay twice; allowed: off, 0, 500us, 1ms...")
    return delays


def _processes(text: str) -> int:
    if text == "auto":
        return 0
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= 128:
        raise ValueError("give auto, or a number from 1 to 128")
    return int(text)
