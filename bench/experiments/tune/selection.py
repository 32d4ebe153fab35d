"""What a tuning run recommends: the best two of what it knows, how far apart, what is left open. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analysis.slo import Holds
from bench.analysis.stats import Interval, geometric, paired_ratio
from bench.experiments.tune.history import Log, Point, Space, Tuned

CALM = 0.9  # of the bound
TIE = 0.02  # configurations this near to each other are equal: then fewer instances win


def is_parted(log: Log, finalists: list[Point]) -> bool:
    if len(finalists) < 2:
        return True
    low, high = log.ratio(*finalists)
    return not low <= 1 <= high or (low > 1 - TIE and high < 1 + TIE)


def finalists_of(log: Log) -> list[Point]:
    """The best point of the best two configurations, as `decide` ranks them; of equals, fewer instances."""
    ranked = log.ranked(lambda point: (log.holds(point) is Holds.YES, log.mean(point)))
    proved = [point for point in ranked if log.holds(point) is Holds.YES] or ranked
    firsts = list({point.configuration: point for point in reversed(proved)}.values())[::-1]
    best = _of_equals(log, firsts)
    return [] if best is None else [best, *(p for p in firsts if p.configuration != best.configuration)][:2]


def winner(log: Log) -> Point | None:
    return next(iter(finalists_of(log)), None)


def likeliest(log: Log) -> Point | None:
    """The best of all that seem to hold, whether or not their samples prove it."""
    return _of_equals(log, log.ranked(log.mean))


def _of_equals(log: Log, ranked: list[Point]) -> Point | None:
    """Fewer instances win. At one rate all serve the same: there only those with room to spare are equal, and
    without any the one nearest to it is taken."""
    near = [p for p in ranked if log.mean(p) >= (1 - TIE) * log.mean(ranked[0])]
    if log.space.is_open_loop and not any(log.over(p) <= CALM for p in near):
        return min(near, key=log.over, default=None)
    calm = [p for p in near if log.over(p) <= CALM] if log.space.is_open_loop else near
    return min(calm, key=lambda p: (log.space.instances(p.configuration), ranked.index(p)), default=None)


def result(log: Log) -> Tuned:
    best, runner_up = (*finalists_of(log), None, None)[:2]
    return Tuned(
        best=best,
        runner_up=runner_up,
        throughput=_interval(log, best),
        runner_up_throughput=_interval(log, runner_up),
        apart=_apart(log, best, runner_up),
        proved=best is not None and log.holds(best) is Holds.YES,
        steps=tuple(log.steps),
        cost=log.spent,
        cells=log.space.cells,
        untried=tuple(c for c in log.space.configurations() if not log.is_tried(c)),
        edges=_edges(log.space, best),
        out_of_budget=log.ran_out,
    )


def _interval(log: Log, point: Point | None) -> Interval | None:
    return None if point is None else geometric(log.throughputs(point))


def _apart(log: Log, best: Point | None, runner_up: Point | None) -> Interval | None:
    """Winner over runner-up, over the last repeats of both: those that were interleaved."""
    if best is None or runner_up is None:
        return None
    pairs = min(log.count(best), log.count(runner_up))
    return paired_ratio(log.throughputs(runner_up)[-pairs:], log.throughputs(best)[-pairs:])


def _edges(space: Space, best: Point | None) -> tuple[str, ...]:
    """Axes of numbers on whose last value the best lies: beyond it may be more."""
    if best is None:
        return ()
    pairs: Iterable[tuple[tuple[str, tuple[object, ...]], object]] = zip(
        space.axes, best.configuration, strict=True
    )
    found = [name for (name, values), value in pairs if len(values) > 1 and value == values[-1]
             and isinstance(value, int)]  # fmt: skip
    load = ["load"] if len(space.levels) > 1 and best.level == len(space.levels) - 1 else []
    return (*found, *load)
