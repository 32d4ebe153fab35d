"""What a tuning run knows: the space, every measurement in order, and what follows from them. Pure."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.analysis.distributions import student_t_quantile
from bench.analysis.slo import Holds
from bench.analysis.stats import Interval

Value = int | str | None  # None: as served
Configuration = tuple[Value, ...]  # one value an axis, in the order of the axes

Measure = Callable[["Point", int], "Reading"]  # one trial of a point, so many times as long
FITS = (Holds.YES, Holds.LIKELY)
INSTANCES, MAX_BATCH, QUEUE_DELAY, BATCH = "instances", "max batch", "queue delay", "batch"
# Before repeats tell, they are thought to differ by 2 %, with the weight of four of them.
_PRIOR_DEVIATION, _PRIOR_DEGREES = 0.02, 4
_CONFIDENCE = 0.90
_UNKNOWN_REPEATS = 3  # of a point with too few samples for the percentile


@dataclass(frozen=True, slots=True)
class Point:
    """`level`: which of the space's loads."""

    configuration: Configuration
    level: int


@dataclass(frozen=True, slots=True)
class Space:
    """Axes multiply, values in ascending order; `levels`: users, or requests a second, ascending."""

    axes: tuple[tuple[str, tuple[Value, ...]], ...]
    levels: tuple[float, ...]
    is_open_loop: bool = False

    @property
    def cells(self) -> int:
        """Of the grid."""
        return math.prod(len(values) for _, values in self.axes) * len(self.levels)

    def configurations(self) -> Iterator[Configuration]:
        return itertools.product(*(values for _, values in self.axes))

    def named(self, configuration: Configuration) -> dict[str, Value]:
        return dict(zip((name for name, _ in self.axes), configuration, strict=True))

    def instances(self, configuration: Configuration) -> int:
        return int(self.named(configuration).get(INSTANCES) or 0)

    def batch(self, configuration: Configuration) -> int:
        """Images a request."""
        return int(self.named(configuration).get(BATCH) or 1)

    def offered(self, point: Point) -> float:
        """Images a second, or images in flight."""
        return self.levels[point.level] * self.batch(point.configuration)


@dataclass(frozen=True, slots=True)
class Reading:
    """One trial, or a long one. `holds`: of all trials of its point so far, pooled; `why`: in a phrase.

    `over`: the percentile over its bound, of all of them; None where that is not the question, or not known.
    """

    img_per_s: float
    holds: Holds
    why: str = ""
    over: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """`stage`: start, axes, together, last, prove, confirm. `cost`: in measurements."""

    stage: str
    point: Point
    reading: Reading
    cost: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """`best` None: nothing measured holds the SLO."""

    best: Point | None
    runner_up: Point | None  # another configuration
    throughput: Interval | None  # img/s of the best, over its repeats
    runner_up_throughput: Interval | None
    apart: Interval | None  # best over runner-up, repeat by repeat
    proved: bool  # that the best holds the SLO, by its samples
    steps: tuple[Step, ...]
    cells: int  # of the grid
    untried: tuple[Configuration, ...]
    cost: int  # in measurements: `steps`, of which long ones count as several
    edges: tuple[str, ...]  # axes whose last value the best has
    out_of_budget: bool  # the search ended before it was through


class Stop(Exception):
    """No further measurement: the budget is spent, or whoever measures has had enough."""


@contextmanager
def is_spent(log: Log, reserve: int) -> Iterator[None]:
    """Ends the block, not the search, once only `reserve` measurements are left."""
    log.reserve = reserve
    try:
        yield
    except Stop:
        log.ran_out = log.ran_out or reserve > 0


def least_budget(space: Space) -> int:
    """To look along each axis of a small space once, and to confirm."""
    return min(space.cells, 12 + sum(len(values) - 1 for _, values in space.axes))


@dataclass(slots=True)
class Log:
    space: Space
    measure: Measure
    bound_s: float
    budget: int
    reserve: int = 0
    stage: str = ""
    ran_out: bool = False
    steps: list[Step] = field(default_factory=list)
    readings: dict[Point, list[Reading]] = field(default_factory=lambda: defaultdict(list))

    @property
    def points(self) -> list[Point]:
        """In the order they were first measured."""
        return list(self.readings)

    @property
    def spent(self) -> int:
        """Measurements; a long one counts as so many."""
        return sum(step.cost for step in self.steps)

    def measure_again(self, point: Point, times: int = 1) -> Reading:
        """`times`: as long. Raises Stop."""
        if self.spent + times > self.budget - self.reserve:
            raise Stop
        reading = self.measure(point, times)
        self.readings[point].append(reading)
        self.steps.append(Step(self.stage, point, reading, times))
        return reading

    def was_long(self, point: Point) -> bool:
        return any(step.point == point and step.cost > 1 for step in self.steps)

    def fits(self, point: Point) -> bool:
        """Measures the point unless it is known; again, while its samples are too few for the percentile."""
        while not self.is_known(point) or (
            self.holds(point) is Holds.UNKNOWN and self.count(point) < _UNKNOWN_REPEATS
        ):
            self.measure_again(point)
        return self.holds(point) in FITS

    def is_known(self, point: Point) -> bool:
        return point in self.readings

    def is_tried(self, configuration: Configuration) -> bool:
        return any(point.configuration == configuration for point in self.readings)

    def is_decided(self, configuration: Configuration, best: Point) -> bool:
        """Whether it is known not to serve more than the best: what misses a rate misses higher ones."""
        missed = [p for p in self.readings if p.configuration == configuration and self.holds(p) not in FITS]
        lowest = min((self.space.offered(p) for p in missed), default=math.inf)
        higher = (self.space.offered(Point(configuration, n)) for n in range(len(self.space.levels)))
        return lowest <= min((rate for rate in higher if rate > self.space.offered(best)), default=0.0)

    def holds(self, point: Point) -> Holds:
        return self.readings[point][-1].holds

    def over(self, point: Point) -> float:
        """How far from holding, where it misses: infinite where that is not known."""
        over = self.readings[point][-1].over
        return math.inf if over is None else over

    def count(self, point: Point) -> int:
        return len(self.readings[point])

    def throughputs(self, point: Point) -> list[float]:
        return [reading.img_per_s for reading in self.readings[point]]

    def mean(self, point: Point) -> float:
        """Geometric, as the report's; 0 where nothing got through."""
        values = self.throughputs(point)
        return float(np.exp(np.mean(np.log(values)))) if min(values) > 0 else 0.0

    def ranked(self, key: Callable[[Point], Any]) -> list[Point]:
        """The points that hold, the highest first."""
        return sorted((p for p in self.readings if self.holds(p) in FITS), key=key, reverse=True)

    def best(self) -> Point | None:
        return max((p for p in self.readings if self.holds(p) in FITS), key=self.mean, default=None)

    def lowest_tried(self) -> int:
        return min((point.level for point in self.readings), default=0)

    def potential(self, configuration: Configuration) -> float:
        """Images a second: what it served within the SLO, or at most may have, by its lowest missed load."""
        of = [point for point in self.readings if point.configuration == configuration]
        held = [self.mean(point) for point in of if self.holds(point) in FITS]
        if held:
            return max(held)
        lowest = min(of, key=lambda point: point.level, default=None)
        return 0.0 if lowest is None or lowest.level == 0 else self._ceiling(lowest)

    def lower(self, missed: Point, slack: float) -> int | None:
        """The next load to try below one that misses; None where none can win any more.

        Little's law: N = X R, and a mean R is within the bound where a high percentile is, so no more users
        can hold it than X times the bound.
        """
        best = self.best()
        if missed.level == 0 or (best is not None and self._ceiling(missed) * slack < self.mean(best)):
            return None
        if self.space.is_open_loop:
            return missed.level - 1
        most = slack * self.mean(missed) / self.space.batch(missed.configuration) * self.bound_s
        within = [n for n in range(missed.level) if self.space.levels[n] <= most]
        return within[-1] if within else 0

    def _ceiling(self, missed: Point) -> float:
        """What less load can serve at most."""
        below = self.space.offered(Point(missed.configuration, missed.level - 1))
        return below if self.space.is_open_loop else self.mean(missed)

    def may_reach_best(self, held: Point) -> bool:
        """Throughput rises no faster than the load."""
        best, levels = self.best(), self.space.levels
        return best is None or self.mean(held) * levels[-1] / levels[held.level] >= self.mean(best)

    def ratio(self, over: Point, under: Point) -> tuple[float, float]:
        """Bounds of `over` / `under` at 90 %, repeats of all points pooled."""
        deviation, degrees = self._deviation()
        spread = math.sqrt(1 / self.count(over) + 1 / self.count(under))
        half = student_t_quantile((1 + _CONFIDENCE) / 2, degrees) * deviation * spread
        middle = math.log(max(self.mean(over), 1e-9) / max(self.mean(under), 1e-9))
        return math.exp(middle - half), math.exp(middle + half)

    def _deviation(self) -> tuple[float, int]:
        """Of the logarithm of a repeat, and its degrees of freedom."""
        squares, degrees = _PRIOR_DEGREES * _PRIOR_DEVIATION**2, _PRIOR_DEGREES
        for values in map(_logarithms, self.readings.values()):
            if len(values) > 1:
                squares += float(np.var(values, ddof=1)) * (len(values) - 1)
                degrees += len(values) - 1
        return math.sqrt(squares / degrees), degrees


def _logarithms(readings: Sequence[Reading]) -> list[float]:
    return [math.log(reading.img_per_s) for reading in readings if reading.img_per_s > 0]
