"""The space that a tuning searches, every measurement in order, and what follows from them. Pure."""

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

Measure = Callable[["Point", int], "Reading"]  # one trial of a point, so many times as long as others
# A point that may be recommended: its samples prove that it meets the SLO, or make it likely.
FITS = (Holds.YES, Holds.LIKELY)
# The stage whose measurements nothing was chosen by.
CONFIRM = "confirm"
# Names of axes that every space has.
INSTANCES, MAX_BATCH, QUEUE_DELAY, BATCH = "instances", "max batch", "queue delay", "batch"
# Repeats of a point are assumed to differ by 2 % (standard deviation of ln(throughput)) before there are any.
# This assumption weighs as much as a deviation measured with four degrees of freedom.
_PRIOR_DEVIATION, _PRIOR_DEGREES = 0.02, 4
# Bounds of a ratio of two throughputs are those of this confidence.
_CONFIDENCE = 0.90
# Level of the t test for a change of the reference. Repeating ends sooner where the spread is small by luck,
# so that there are more false alarms than this level says: 5 % are claimed.
_LEVEL_OF_CHANGE = 0.03
# A smaller change, in ln(throughput), is not said.
_LEAST_CHANGE = 0.02
# A point with too few samples for the percentile is measured up to this often before it counts as a miss.
_UNKNOWN_REPEATS = 3
# The least budget of a tuning, beyond one measurement for each further value of an axis.
_LEAST_BUDGET = 12


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration under one load. `level`: index of the load in the space's levels."""

    configuration: Configuration
    level: int


@dataclass(frozen=True, slots=True)
class Space:
    """What a tuning may choose from: axes multiply, and each configuration can have each load.

    `axes`: (name, values in ascending order). `levels`: users, or requests per second in an open loop, in
    ascending order.
    """

    axes: tuple[tuple[str, tuple[Value, ...]], ...]
    levels: tuple[float, ...]
    is_open_loop: bool = False

    @property
    def cells(self) -> int:
        """How many points the whole grid has."""
        return math.prod(len(values) for _, values in self.axes) * len(self.levels)

    def configurations(self) -> Iterator[Configuration]:
        return itertools.product(*(values for _, values in self.axes))

    def named(self, configuration: Configuration) -> dict[str, Value]:
        return dict(zip((name for name, _ in self.axes), configuration, strict=True))

    def instances(self, configuration: Configuration) -> int:
        return int(self.named(configuration).get(INSTANCES) or 0)

    def batch(self, configuration: Configuration) -> int:
        """Images per request."""
        return int(self.named(configuration).get(BATCH) or 1)

    def offered(self, point: Point) -> float:
        """Images per second in an open loop, images in flight in a closed one."""
        return self.levels[point.level] * self.batch(point.configuration)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of one trial. `holds`: whether the SLO is met by all trials of the point so far, pooled.

    `why`: that in a phrase. `over`: the pooled percentile divided by its bound; None where it is not known.
    """

    img_per_s: float
    holds: Holds
    why: str = ""
    over: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement, in the order they were made.

    `stage`: start, axes, together, last, prove, confirm or watch. `cost`: in measurements of usual length.
    """

    stage: str
    point: Point
    reading: Reading
    cost: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The result of a tuning. `best` None: no point that was measured meets the SLO."""

    best: Point | None
    runner_up: Point | None  # the best point of any other configuration
    throughput: Interval | None  # img/s of the best, over all its repeats: what it was chosen by
    confirmed: Interval | None  # the same over the repeats since it was chosen; None where they are too few
    runner_up_throughput: Interval | None
    apart: Interval | None  # best over runner-up, repeat by repeat
    proved: bool  # whether the samples of the best prove that it meets the SLO
    change: float | None  # of the reference's throughput over the tuning, as a share; None: none was found
    steps: tuple[Step, ...]
    cells: int  # of the grid
    untried: tuple[Configuration, ...]
    cost: int  # in measurements: `steps`, of which long ones count as several
    at_limit: tuple[str, ...]  # axes of which the best has the largest value
    out_of_budget: bool  # whether the budget was used up before the search was finished


class Stop(Exception):
    """No further measurement: the budget is spent, or the user pressed Ctrl-C."""


@contextmanager
def is_spent(log: Log, reserve: int, *, unfinished: bool = False) -> Iterator[None]:
    """End the block, but not the search, once only `reserve` measurements of the budget are left.

    `unfinished`: whether the search is then not finished.
    """
    log.reserve = reserve
    try:
        yield
    except Stop:
        log.ran_out = log.ran_out or unfinished


def least_budget(space: Space) -> int:
    """Measurements needed to look along each axis of a small space once, and to confirm the best."""
    return min(space.cells, _LEAST_BUDGET + sum(len(values) - 1 for _, values in space.axes))


@dataclass(slots=True)
class Log:
    """Every measurement so far, and what follows from them."""

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
        """Measurements so far; a long one counts as several."""
        return sum(step.cost for step in self.steps)

    def measure_again(self, point: Point, times: int = 1) -> Reading:
        """One trial more, `times` as long as usual. Raises Stop when the budget is spent."""
        if self.spent + times > self.budget - self.reserve:
            raise Stop
        reading = self.measure(point, times)
        self.readings[point].append(reading)
        self.steps.append(Step(self.stage, point, reading, times))
        return reading

    def fresh(self, point: Point) -> list[float]:
        """Throughputs of the point since it was chosen: those that it was not chosen by."""
        return [s.reading.img_per_s for s in self.steps if s.point == point and s.stage == CONFIRM]

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

    def tried(self) -> list[Configuration]:
        """Every configuration that was measured, in the order of their first measurements."""
        return list(dict.fromkeys(point.configuration for point in self.readings))

    def is_broken(self, configuration: Configuration) -> bool:
        """Whether a configuration was measured and served nothing at all: it does not load, or it fails."""
        of = [self.throughputs(point) for point in self.readings if point.configuration == configuration]
        return bool(of) and not any(value > 0 for values in of for value in values)

    def is_decided(self, configuration: Configuration, best: Point) -> bool:
        """Whether it is known not to serve more than the best: what misses a rate misses higher ones."""
        missed = [p for p in self.readings if p.configuration == configuration and self.holds(p) not in FITS]
        lowest = min((self.space.offered(p) for p in missed), default=math.inf)
        higher = (self.space.offered(Point(configuration, n)) for n in range(len(self.space.levels)))
        return lowest <= min((rate for rate in higher if rate > self.space.offered(best)), default=0.0)

    def holds(self, point: Point) -> Holds:
        return self.readings[point][-1].holds

    def over(self, point: Point) -> float:
        """The percentile of a point divided by its bound; infinite where that is not known."""
        over = self.readings[point][-1].over
        return math.inf if over is None else over

    def count(self, point: Point) -> int:
        return len(self.readings[point])

    def throughputs(self, point: Point) -> list[float]:
        return [reading.img_per_s for reading in self.readings[point]]

    def mean(self, point: Point) -> float:
        """Mean of the throughput, as in the report; 0 where nothing got through."""
        values = self.throughputs(point)
        return float(np.mean(values)) if min(values) > 0 else 0.0

    def ranked(self, key: Callable[[Point], Any]) -> list[Point]:
        """The points that meet the SLO, the one with the highest key first."""
        return sorted((p for p in self.readings if self.holds(p) in FITS), key=key, reverse=True)

    def best(self) -> Point | None:
        return max((p for p in self.readings if self.holds(p) in FITS), key=self.mean, default=None)

    def nearest(self) -> Point | None:
        """The point that misses the SLO by least, where none meets it; None where no percentile is known."""
        known = [point for point in self.readings if math.isfinite(self.over(point))]
        return min(known, key=self.over, default=None)

    def lowest_tried(self) -> int:
        return min((point.level for point in self.readings), default=0)

    def merit(self, configuration: Configuration) -> float:
        """What configurations are compared by: the most that one may serve within the SLO.

        As long as nothing meets the SLO, the reciprocal of how far it is missed.
        """
        if self.best() is not None:
            return self.potential(configuration)
        of = [point for point in self.readings if point.configuration == configuration]
        return 1 / min((self.over(point) for point in of), default=math.inf)

    def potential(self, configuration: Configuration) -> float:
        """Images per second that a configuration served within the SLO, or at most could have.

        The latter follows from the lowest load with which it missed the SLO.
        """
        of = [point for point in self.readings if point.configuration == configuration]
        held = [self.mean(point) for point in of if self.holds(point) in FITS]
        if held:
            return max(held)
        lowest = min(of, key=lambda point: point.level, default=None)
        return 0.0 if lowest is None or lowest.level == 0 else self._ceiling(lowest)

    def lower(self, missed: Point, slack: float) -> int | None:
        """The level to try below one that misses the SLO; None when no lower one can be the best.

        By Little's law users = throughput x mean latency. Where a high percentile is within the bound, the
        mean is too, so no more users than throughput x bound can meet the SLO. `slack`: by which factor less
        load may serve more.
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
        """Images per second that less load than a missed one can serve at most."""
        below = self.space.offered(Point(missed.configuration, missed.level - 1))
        return below if self.space.is_open_loop else self.mean(missed)

    def may_reach_best(self, held: Point) -> bool:
        """Whether more load could make this configuration the best; throughput rises no faster than load."""
        best, levels = self.best(), self.space.levels
        return best is None or self.mean(held) * levels[-1] / levels[held.level] >= self.mean(best)

    def reference(self) -> Point | None:
        """The first point that was measured twice: at the start of the tuning, whatever came out later."""
        counted: set[Point] = set()
        for step in self.steps:
            if step.point in counted and step.stage == "start":
                return step.point
            counted.add(step.point)
        return None

    def change(self) -> float | None:
        """The change of the reference's throughput by the end, as a share, if a t test finds one.

        Its repeats in the stage "watch" against those before. The spread is pooled over the repeats of all
        points. First readings are left out, because points are repeated for what those were.
        """
        reference = self.reference()
        own = [step for step in self.steps if step.point == reference][1:]
        late = _logarithms([step.reading for step in own if step.stage == "watch"])
        early = _logarithms([step.reading for step in own if step.stage != "watch"])
        others = [
            _logarithms(readings[1:]) for point, readings in self.readings.items() if point != reference
        ]
        groups = [group for group in (early, late, *others) if len(group) > 1]
        degrees = sum(len(group) - 1 for group in groups)
        if not early or not late or not degrees:
            return None
        spread = math.sqrt(sum(float(np.var(group)) * len(group) for group in groups) / degrees)
        moved = float(np.mean(late) - np.mean(early))
        error = spread * math.sqrt(1 / len(early) + 1 / len(late))
        sure = abs(moved) > student_t_quantile(1 - _LEVEL_OF_CHANGE / 2, degrees) * error
        return math.expm1(moved) if sure and abs(moved) >= _LEAST_CHANGE else None

    def ratio(self, over: Point, under: Point) -> tuple[float, float]:
        """90 % confidence bounds of the throughput of `over` / `under`.

        The deviation of repeats is pooled over all points, since each has only a few.
        """
        deviation, degrees = self._deviation()
        spread = math.sqrt(1 / self.count(over) + 1 / self.count(under))
        half = student_t_quantile((1 + _CONFIDENCE) / 2, degrees) * deviation * spread
        middle = math.log(max(self.mean(over), 1e-9) / max(self.mean(under), 1e-9))
        return math.exp(middle - half), math.exp(middle + half)

    def _deviation(self) -> tuple[float, int]:
        """The standard deviation of ln(throughput) between repeats, and its degrees of freedom."""
        squares, degrees = _PRIOR_DEGREES * _PRIOR_DEVIATION**2, _PRIOR_DEGREES
        for values in map(_logarithms, self.readings.values()):
            if len(values) > 1:
                squares += float(np.var(values, ddof=1)) * (len(values) - 1)
                degrees += len(values) - 1
        return math.sqrt(squares / degrees), degrees


def _logarithms(readings: Sequence[Reading]) -> list[float]:
    return [math.log(reading.img_per_s) for reading in readings if reading.img_per_s > 0]
