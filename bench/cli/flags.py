"""From flags as typed to a SweepSpec: every mistake is found and named, then all are raised at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from bench.core import units
from bench.core.cell import Arrival, Engine, Protocol, SharedMemory, Via
from bench.core.errors import WrongUse
from bench.core.spec import DEFAULT_REPEATS, QUICK_REPEATS, Scenario, SweepSpec
from bench.core.vit_variants import AXES

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)

DEFAULT_BATCH = "1,8,32"
DEFAULT_CONCURRENCY = "4"
OFFLINE_CONCURRENCY = "16"  # keeps several instances busy; LoadGen hands over everything at once
MAX_BATCH = 4096
MAX_USERS = 10_000
MAX_INSTANCES = 256
MAX_REPLICAS = 64


@dataclass(slots=True)
class Flags:
    """Reads one flag after another; `mistakes` collects what is wrong with them."""

    mistakes: list[str] = field(default_factory=list)

    def one(self, flag: str, text: str, parse: Callable[[str], tuple[T, ...]], instead: T) -> T:
        """The one value of a flag that takes a single one."""
        nothing: tuple[T, ...] = (instead,)
        values = self.read(flag, text, parse, nothing)
        if len(values) > 1:
            self.wrong(flag, text, "give one value")
        return values[0]

    def read(self, flag: str, text: str, parse: Callable[[str], T], instead: T) -> T:
        """What the flag says; after a mistake `instead`, so that reading can go on."""
        try:
            return parse(text)
        except ValueError as error:
            self.wrong(flag, text, str(error))
            return instead

    def wrong(self, flag: str, text: str, allowed: str) -> None:
        self.mistakes.append(f"{f'{flag} {text}'.rstrip()}: {allowed}")

    def check(self) -> None:
        """Raises WrongUse with every mistake found so far."""
        if self.mistakes:
            raise WrongUse(self.mistakes)


def integers(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    return lambda text: units.parse_integers(text, low=low, high=high)


def choices(kind: type[Choice]) -> Callable[[str], tuple[Choice, ...]]:
    """A comma-separated list of an enum's values, each once; `both` where there are two."""

    def parse(text: str) -> tuple[Choice, ...]:
        if text.strip() == "both" and len(kind) == 2:
            return tuple(kind)
        names = [name.strip() for name in text.split(",")]
        allowed = ", ".join(kind)
        unknown = [name for name in names if name not in list(kind)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is unknown; allowed: {allowed}")
        if len(set(names)) < len(names):
            raise ValueError(f"names one twice; allowed: each of {allowed} once")
        return tuple(kind(name) for name in names)

    return parse


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not all(re.fullmatch("[0-9]{1,4}", side) and 1 <= int(side) <= 8192 for side in (height, width)):
        raise ValueError("give HEIGHTxWIDTH in pixels, 1 to 8192 each, e.g. 224x224")
    return int(height), int(width)


def fraction(text: str) -> float:
    allowed = "give a fraction from 0 to 1, or a percentage"
    try:
        value = units.parse_percent(text) if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(allowed) from None
    if not 0 <= value <= 1:
        raise ValueError(allowed)
    return value


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


def _preferred(given: Mapping[str, Any], flags: Flags) -> tuple[int, ...]:
    """Sizes that the dynamic batcher goes for; without one there is nothing to prefer."""
    text = given.get("preferred_batch")
    if not text:
        return ()
    if "off" in str(given.get("max_queue_delay") or ""):
        flags.wrong("--preferred-batch", text, "needs the dynamic batcher: leave out --max-queue-delay off")
    nothing: tuple[int, ...] = ()
    return tuple(sorted(flags.read("--preferred-batch", text, integers(1, MAX_BATCH), nothing)))


def _parameters(given: Mapping[str, Any], flags: Flags) -> tuple[tuple[str, tuple[str, ...]], ...]:
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


def sweep_spec(given: Mapping[str, Any], flags: Flags) -> SweepSpec:
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
        protocols=read("--protocol", _protocol(given), choices(Protocol), (Protocol.HTTP,)),
        engines=read("--engine", given["engine"], choices(Engine), (Engine.LOCUST,)),
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


def _scenario(given: Mapping[str, Any], flags: Flags) -> Mapping[str, Any]:
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


def check_parameters(
    spec: SweepSpec, known: Collection[str], flags: Flags, *, may_read_others: bool = False
) -> None:
    """A model takes a parameter that it does not read, and serves as before. `known`: those it declares.

    A model of others may read one that it does not declare: then only a likely slip is refused.
    """
    for name, values in spec.parameters:
        is_likely = not may_read_others or get_close_matches(name, known)
        if name not in known and name not in AXES and is_likely:
            said = ", ".join(sorted(known)) or "none"
            flags.wrong(
                "--parameter",
                f"{name}={','.join(values)}",
                f"{spec.model} has no such parameter; its configuration declares {said}",
            )


def check_against(spec: SweepSpec, known_models: Sequence[str], max_batch: int | None, flags: Flags) -> None:
    """What only the target can tell: is the model there, does the batch fit."""
    if known_models and spec.model not in known_models:
        flags.wrong("--model", spec.model, f"not in the repository; it has {', '.join(known_models)}")
        return
    limits = [m for m in spec.max_batches if m is not None] or ([max_batch] if max_batch is not None else [])
    if not limits:
        return
    limit = max(1, min(limits))  # a model without a batch axis still takes one item
    if max(spec.preferred_batches, default=0) > limit:
        flags.wrong("--preferred-batch", str(spec.preferred_batches[-1]), f"over the maximum of {limit}")
    over = [batch for batch in spec.batches if batch > limit]
    if over:
        flags.wrong(
            "--batch",
            ",".join(map(str, over)),
            f"over the model's maximum of {limit}; allowed: 1 to {limit}, or raise it with --max-batch",
        )


def _optional(
    flags: Flags, flag: str, text: str | None, parse: Callable[[str], tuple[int, ...]]
) -> tuple[int | None, ...]:
    nothing: tuple[int | None, ...] = (None,)
    return nothing if not text else flags.read(flag, text, parse, nothing)


def positive_duration(text: str) -> float:
    seconds = units.parse_duration_s(text)
    if seconds <= 0:
        raise ValueError("must be longer than nothing, e.g. 10s")
    return seconds


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
