"""Ten servers with a configuration space each, in virtual time, and what their whole grids would say.

`python -m tests.support.tuning_spaces` prints the best cell of each grid anew, after a change of a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.analysis.slo import Holds
from bench.analysis.stats import estimate_under, nearest_rank, percentile
from bench.core.samples import Int64, Samples, Window
from bench.core.slo import Slo, parse_slo
from bench.experiments.tune.history import Point, Reading, Space
from bench.loadgen.arrivals import poisson
from tests.support.batching import BatchingServer, closed_loop, open_loop
from tests.support.simulation import SECOND

WARMUP_S = 0.3
OFF = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """`server`: of one configuration, by the names of the axes.

    `best`: what `grid_best` says, recorded, since that simulates every cell of the grid. `loads`: whether a
    configuration loads at all, by the names of the axes.
    """

    name: str
    best: Point
    space: Space
    slo: Slo
    server: Callable[[Mapping[str, Any]], BatchingServer]
    seconds: float = 3.0
    loads: Callable[[Mapping[str, Any]], bool] = lambda _: True

    @property
    def bound_s(self) -> float:
        return self.slo.latencies[-1][1] / 1e9

    def trial(self, point: Point, seed: int, seconds: float) -> tuple[float, Int64]:
        """Images a second, and the response times, of one trial."""
        named = self.space.named(point.configuration)
        batch, level = self.space.batch(point.configuration), self.space.levels[point.level]
        window = Window(round(WARMUP_S * SECOND), round((WARMUP_S + seconds) * SECOND))
        server, end_s = self.server(named), WARMUP_S + seconds
        if self.space.is_open_loop:
            samples = open_loop(server, poisson(level, end_s, seed).tolist(), batch=batch, seed=seed)
            asked = samples.intended_in(window)
        else:
            samples = closed_loop(server, int(level), batch=batch, seconds=end_s, seed=seed)
            asked = samples.done_in(window)
        return _images(samples, window, batch), asked.response_ns

    def measure(self, seed: int) -> Callable[[Point, int], Reading]:
        """As the verb measures: one trial more, judged with all before."""
        latencies: dict[Point, list[Int64]] = {}
        count = iter(range(seed * 100_000, (seed + 1) * 100_000))

        def once(point: Point, times: int) -> Reading:
            if not self.loads(self.space.named(point.configuration)):
                return Reading(0.0, Holds.NO, "The model does not load.")
            images, taken = self.trial(point, next(count), times * self.seconds)
            latencies.setdefault(point, []).append(taken)
            ordered_ns = np.sort(np.concatenate(latencies[point]))
            percent, bound_ns = self.slo.latencies[-1]
            over = nearest_rank(ordered_ns, percent) / bound_ns
            return Reading(images, outcome(ordered_ns, self.slo), over=float(over))

        return once

    def truth(self, point: Point) -> tuple[float, bool]:
        """Images a second, and whether the SLO holds, of trials many times as long.

        Three of them, since a whole trial has its luck: one alone would judge that.
        """
        trials = [self.trial(point, seed, 12 * self.seconds) for seed in (4_242, 4_243, 4_244)]
        taken = np.sort(np.concatenate([latencies for _, latencies in trials]))
        holds = all(nearest_rank(taken, p) <= bound for p, bound in self.slo.latencies)
        return float(np.mean([images for images, _ in trials])), holds


def _images(samples: Samples, window: Window, batch: int) -> float:
    return len(samples.done_in(window)) * batch / window.seconds


def outcome(ordered_ns: Int64, slo: Slo) -> Holds:
    """As `decide.holds` says it of a cell."""
    ((percent, bound_ns),) = slo.latencies
    value = percentile(ordered_ns, percent).value_ns
    if value is None:
        return Holds.UNKNOWN
    if value > bound_ns:
        return Holds.NO
    proved = estimate_under(ordered_ns, percent)
    return Holds.YES if proved is not None and proved <= bound_ns else Holds.LIKELY


def _delay_ns(named: Mapping[str, Any]) -> int | None:
    delay = named.get("queue delay", OFF)
    return None if delay == OFF else delay * 1000


def _space(levels: tuple[float, ...], *, is_open_loop: bool = False, **axes: tuple[Any, ...]) -> Space:
    named = tuple((name.replace("_", " "), values) for name, values in axes.items())
    return Space(named, levels, is_open_loop)


def _linear(base_ms: float, item_ms: float, contention: float, coherence: float = 0.0) -> Any:
    """a + b items, slowed by every other busy instance, and by every pair of them."""
    return lambda items, busy: (
        (base_ms + item_ms * items) * (1 + contention * (busy - 1) + coherence * busy * (busy - 1))
    )


def _server(execution: Any, **noise: float) -> Callable[[Mapping[str, Any]], BatchingServer]:
    return lambda named: BatchingServer(
        execution_ms=execution,
        instances=named.get("instances", 1),
        max_batch=named.get("max batch", 64),
        delay_ns=_delay_ns(named),
        **{"jitter": 0.05, "luck": 0.01, **noise},
    )


def _precise(factors: Mapping[str, tuple[float, float]], contention: float, **noise: float) -> Any:
    """A base and a time an item for each precision."""

    def server(named: Mapping[str, Any]) -> BatchingServer:
        return _server(_linear(*factors[named["precision"]], contention), **noise)(named)

    return server


def _gpu(items: int, busy: int) -> float:
    """Flat up to 16 items, then linear; instances share it and only hide each other's copies."""
    return (1.0 + 0.05 * items) + max(6.0, 6.0 * items / 16) * busy * 0.9


def _cliff(items: int, busy: int) -> float:
    """Past 16 items the cache is too small."""
    return (4.0 + 1.6 * items * (2.2 if items > 16 else 1.0)) * (1 + 0.3 * (busy - 1))


def _batch_steps(items: int, busy: int) -> float:
    """Padded to the next bucket: 1, 4, 8, 16, 32."""
    bucket = next(size for size in (1, 4, 8, 16, 32, 64) if size >= items)
    return (3.0 + 1.1 * bucket) * (1 + 0.45 * (busy - 1))


USERS = (1, 2, 4, 8, 16, 32, 64)
MANY = (*USERS, 128, 256)
DELAYS = (OFF, 0, 1000, 5000)
SPACES = (
    Simulated(
        name="monotone: more of everything is better",
        best=Point((8, 32, 1000), 8),
        space=_space(MANY, instances=(1, 2, 4, 8), max_batch=(4, 8, 16, 32), queue_delay=DELAYS),
        slo=parse_slo("p95=200ms"),
        server=_server(_linear(8.0, 1.0, 0.05)),
    ),
    Simulated(
        name="interior optimum of instances",
        best=Point((4, 16, 0), 6),
        space=_space(
            (*USERS, 128), instances=(1, 2, 3, 4, 6, 8), max_batch=(1, 4, 16), queue_delay=(OFF, 0, 2000)
        ),
        slo=parse_slo("p95=100ms"),
        server=_server(_linear(5.0, 2.0, 0.15, 0.06)),
    ),
    Simulated(
        name="the SLO cuts batches and load",
        best=Point((4, 8, 1000), 5),
        space=_space(USERS, instances=(1, 2, 4), max_batch=(1, 2, 4, 8, 16, 32, 64), queue_delay=DELAYS),
        slo=parse_slo("p95=30ms"),
        server=_server(_linear(4.0, 1.2, 0.3)),
    ),
    Simulated(
        name="queue delay against max batch",
        best=Point((4, 32, 0), 5),
        space=_space(
            (4, 8, 16, 32, 64, 128),
            instances=(1, 2, 4),
            max_batch=(4, 16, 32),
            queue_delay=(OFF, 0, 1000, 5000, 20000),
        ),
        slo=parse_slo("p95=60ms"),
        server=_server(_linear(12.0, 0.15, 0.6)),
    ),
    Simulated(
        name="instances contend: one is enough",
        best=Point((4, 32, 1000), 5),
        space=_space(USERS, instances=(1, 2, 3, 4), max_batch=(1, 8, 32), queue_delay=DELAYS),
        slo=parse_slo("p99=80ms"),
        server=_server(_linear(3.0, 0.5, 1.1), jitter=0.1),
    ),
    Simulated(
        name="bf16 faster, its base dearer",
        best=Point((4, 32, 2000, "bf16"), 6),
        space=_space(
            USERS,
            instances=(1, 2, 4),
            max_batch=(1, 8, 32),
            queue_delay=(OFF, 0, 2000),
            precision=("fp32", "bf16"),
        ),
        slo=parse_slo("p95=80ms"),
        server=_precise({"fp32": (2.0, 2.0), "bf16": (5.0, 0.8)}, 0.5),
    ),
    Simulated(
        name="bf16 slower, fp16 faster, noisy machine",
        best=Point((4, 16, 0, "fp16"), 6),
        space=_space(
            USERS,
            instances=(1, 2, 4),
            max_batch=(4, 16),
            queue_delay=(OFF, 0, 2000),
            precision=("fp32", "bf16", "fp16"),
        ),
        slo=parse_slo("p90=100ms"),
        server=_precise(
            {"fp32": (4.0, 1.5), "bf16": (4.0, 2.5), "fp16": (4.0, 1.1)}, 0.4, jitter=0.2, luck=0.04
        ),
    ),
    Simulated(
        name="client batch on a GPU that several instances share",
        best=Point((4, 32, 0), 2),
        space=_space(
            (1, 2, 4, 8, 16, 32), instances=(1, 2, 4), batch=(1, 4, 8, 16, 32), queue_delay=(OFF, 0, 1000)
        ),
        slo=parse_slo("p95=50ms"),
        server=_server(_gpu),
    ),
    Simulated(
        name="open loop, a cache that is too small for large batches",
        best=Point((4, 8, 2000), 4),
        space=_space(
            (100, 200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000),
            is_open_loop=True,
            instances=(1, 2, 3, 4),
            max_batch=(1, 4, 8, 16, 32),
            queue_delay=(OFF, 0, 2000),
        ),
        slo=parse_slo("p99=60ms"),
        server=_server(_cliff),
        seconds=4.0,
    ),
    Simulated(
        name="open loop, padded batches, executions that vary",
        best=Point((4, 4, 5000), 8),
        space=_space(
            (50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200),
            is_open_loop=True,
            instances=(1, 2, 4, 6),
            max_batch=(1, 4, 8, 32),
            queue_delay=DELAYS,
        ),
        slo=parse_slo("p95=40ms"),
        server=_server(_batch_steps, jitter=0.25),
    ),
)


def grid_best(of: Simulated) -> Point:
    """Of every cell measured once, the one that serves most of those that truly hold the SLO."""
    once = of.measure(seed=77)
    cells = [Point(c, level) for c in of.space.configurations() for level in range(len(of.space.levels))]
    readings = [(once(point, 1), point) for point in cells]
    seen = [(reading.img_per_s, point) for reading, point in readings if reading.holds is not Holds.NO]
    best, most = None, 0.0
    for images, point in sorted(seen, key=lambda pair: pair[0], reverse=True):
        if best is not None and images < 0.95 * most:  # noise does not lift it over the best
            break
        true, holds = of.truth(point)
        if holds and true > most:
            best, most = point, true
    assert best is not None
    return best


if __name__ == "__main__":
    for simulated in SPACES:
        print(simulated.name, grid_best(simulated), sep="\n    ")
