"""What serving costs: the bare network, ours on Triton, and a plain model.py on Triton, interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.analysis.stats import Interval, geometric, paired_ratio
from bench.core.cell import Load, Protocol, ServerConfiguration
from bench.core.samples import Outcome
from bench.core.target import Target
from bench.core.trial import Served, Trial
from bench.experiments.ceiling.measure import Process
from bench.loadgen.locust.engine import LocustEngine
from bench.sensors.host import usable_cores
from bench.server import model_config
from bench.server.control import Triton
from bench.server.embedded import start
from bench.server.repository import SHIPPED, with_weights
from bench.server.serving import Serving
from bench.server.weights import resolve
from benchmarks.findings import Findings, Goal, Table, interval_text, met, versions
from benchmarks.rig import plan

BASELINE = Path(__file__).parent / "baseline_repository"
SIZES: dict[str, tuple[int, ...]] = {"tiny": (1, 8, 32), "base": (8, 32)}
GOALS = {"tiny": 0.85, "base": 0.9}  # served over bare, at batch 8 and 32
CLEAR = 1.2
WARMUP_S = 0.5
PASSES = 6  # at least so many requests a window
BARE, ONE, ALL, PLAIN = "bare", "ours, 1 instance", "ours, one instance per core", "plain model.py"

ABOUT = (
    "This page compares served throughput with that of the bare network, for everyone who wants to know "
    "what serving costs. All figures are images per second of the ViT with random weights in fp32, with "
    "`last_hidden_state` as output. Bare: the network in a separate process, pixels in memory, all "
    "cores, no Triton. Ours: `model_repository/python_vit` on an embedded Triton, 224x224 fp32 images "
    "over HTTP, one user more than instances, the load on the same machine. Plain: the behaviour of "
    "T9k's example model.py (`benchmarks/baseline_repository`), which answers one request after another "
    "through transformers' image processor and numpy. Each round measures all of them, one after "
    "another, and the bare network directly before each, so that every ratio compares neighbouring "
    "measurements. A request that crosses an edge of the window counts by the part of it that lies "
    "inside."
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Images a second of each subject, an element a round; `bare`: of the bare network just before it."""

    size: str
    batch: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    bare: dict[str, list[float]] = field(default_factory=dict)

    def add(self, subject: str, rate: float, bare: float) -> None:
        self.rates.setdefault(subject, []).append(rate)
        self.bare.setdefault(subject, []).append(bare)

    def of(self, subject: str) -> Interval | None:
        known = [rate for rates in self.bare.values() for rate in rates] if subject == BARE else None
        return geometric(known or self.rates[subject])

    def over(self, subject: str, base: str) -> Interval | None:
        return paired_ratio(self.bare[subject] if base == BARE else self.rates[base], self.rates[subject])

    def best(self) -> str:
        """Of our two."""
        return max((ONE, ALL), key=lambda subject: float(np.prod(self.rates[subject])))


@dataclass(frozen=True, slots=True)
class Server:
    """One model of one Triton."""

    target: Target
    serving: Serving

    def serve(self, instances: int) -> Served:
        return self.serving.configure(ServerConfiguration(model=self.serving.model, instances=instances))


@contextmanager
def server(repository: Path, model: str, size: str, scratch: Path) -> Iterator[Server]:
    config = with_weights(
        model_config.read(repository / model / "config.pbtxt"), resolve(size, has_gpu=False)
    )
    with start(repository, log=scratch / f"{model}-{size}.log") as running:
        triton = Triton(running.target)
        try:
            yield Server(running.target, Serving(triton, model, config, is_ours=True))
        finally:
            triton.close()


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    found: list[Measured] = []
    for size, batches in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
            found += measure(size, batches, seconds, rounds, Path(folder), say)
    return Findings(
        name="serving",
        title="Serving: throughput compared with the bare network",
        about=ABOUT,
        settings={"seconds, at least": seconds, "requests, at least": PASSES, "rounds": rounds},
        versions=versions(**{name: version(name) for name in ("torch", "transformers", "nvidia-pytriton")}),
        tables=(_table(found),),
        goals=tuple(_goals(found)),
        figures=[asdict(entry) for entry in found],
    )


def measure(
    size: str,
    batches: Sequence[int],
    seconds: float,
    rounds: int,
    scratch: Path,
    say: Callable[[str], None],
) -> list[Measured]:
    found = [Measured(size, batch) for batch in batches]
    with (
        Process(f"random:{size}:seed=0") as bare,
        server(SHIPPED, "python_vit", size, scratch) as ours,
        server(BASELINE, "vit_baseline", size, scratch) as plain,
        LocustEngine() as engine,
    ):
        for position in range(rounds):
            for subject, at, instances in ((ONE, ours, 1), (ALL, ours, usable_cores()), (PLAIN, plain, 1)):
                served = at.serve(instances)
                for entry in found:
                    say(f"round {position + 1}/{rounds}: {size}, batch {entry.batch}, {subject}")
                    (alone,) = bare.images_per_s(entry.batch, seconds)
                    window_s = max(seconds, PASSES * entry.batch / alone)
                    trial = _trial(engine, at.target, served, at.serving.model, entry.batch, window_s)
                    entry.add(subject, images_per_s(trial, entry.batch), alone)
    return found


def _trial(
    engine: LocustEngine, target: Target, served: Served, model: str, batch: int, seconds: float
) -> Trial:
    # One request is answered by each instance while the next one is on its way.
    users = 1 + model_config.served(served.config).instances
    load = Load(protocol=Protocol.HTTP, batch=batch, concurrency=users)
    trial = engine.measure(plan(model, load, seconds=seconds, warmup_s=WARMUP_S), target, served)
    if trial.errors:
        raise RuntimeError(f"{model}, batch {batch}: {next(iter(trial.errors))}")
    return trial


def images_per_s(trial: Trial, batch: int) -> float:
    """Each request by the part of it that lies in the window: whole ones are too few at a large batch."""
    samples, window = trial.samples, trial.window
    good = samples.outcome == Outcome.OK
    sent, done = samples.sent_ns[good], samples.done_ns[good]
    inside = np.minimum(done, window.end_ns) - np.maximum(sent, window.start_ns)
    parts = np.clip(inside, 0, None) / np.maximum(done - sent, 1)
    return float(parts.sum()) * batch / window.seconds


def _table(found: Sequence[Measured]) -> Table:
    return Table(
        "Images per second",
        ("size", "batch", BARE, ONE, ALL, PLAIN, f"{ONE} / bare", f"{ALL} / bare", "our best / plain"),
        tuple(
            (
                entry.size,
                str(entry.batch),
                *(_rate(entry.of(subject)) for subject in (BARE, ONE, ALL, PLAIN)),
                *(interval_text(entry.over(subject, BARE)) for subject in (ONE, ALL)),
                interval_text(entry.over(entry.best(), PLAIN)),
            )
            for entry in found
        ),
        "The figures are geometric means over rounds. The ratios are computed round by round, with their "
        "95 % interval. A ratio to the bare network can exceed 1, because instances with one thread each do "
        "not wait for other threads, while the threads of the bare network wait for each other.",
    )


def _rate(interval: Interval | None) -> str:
    return f"{interval.value:.1f}" if interval else "n/a"


def _goals(found: Sequence[Measured]) -> Iterator[Goal]:
    for size, goal in GOALS.items():
        for entry in found:
            if entry.size == size and entry.batch > 1:
                ratio, subject = entry.over(entry.best(), BARE), entry.best()
                text = f"{size}, batch {entry.batch}: served / bare at least {goal:g}"
                yield _goal(text, ratio, subject, goal)
    for entry in found:
        least = 1.0 if entry.batch == 1 else CLEAR
        text = f"{entry.size}, batch {entry.batch}: at least {least:g} times the plain model"
        yield _goal(text, entry.over(entry.best(), PLAIN), entry.best(), least)


def _goal(text: str, ratio: Interval | None, subject: str, least: float) -> Goal:
    if ratio is None:
        return Goal(text, "not measured", "no")
    said = met(ratio.low, ratio.value, ratio.high, least, at_least=True)
    return Goal(text, f"{interval_text(ratio)}, {subject}", said)
