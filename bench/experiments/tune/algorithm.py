"""Find the configuration that serves most within an SLO, with far fewer measurements than the whole grid.

Pure: `tune` is given a function that measures one point once, and never sees a server or a clock. It changes
one axis at a time, starting from the middle (coordinate search). For each configuration it measures only the
load that matters: where the SLO is missed, more load misses it too, and less load serves less. Because axes
interact, it then tries several changes at once. Configurations too close to tell apart are measured again. At
the end the best two are repeated alternately, until confidence intervals separate them or show that they are
equal. What is stated of the winner is of repeats that it was not chosen by, since the luckiest is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from bench.analysis.slo import Holds
from bench.analysis.stats import Interval, arithmetic, paired_ratio
from bench.experiments.tune.history import (
    CONFIRM,
    FITS,
    Configuration,
    Log,
    Measure,
    Point,
    Space,
    Tuned,
    is_spent,
    least_budget,
)

# The budget, unless another is given, as a share of the cells of the grid.
SHARE = 0.25
# The best two configurations get at least and at most so many repeats; no point gets more.
REPEATS, MOST_REPEATS = 3, 5
# A server is saturated when the next higher number of users raises its throughput by less than this factor.
RISE = 1.02
# Less load may serve more than a missed load did by up to this factor, because of contention and noise.
SLACK = 1.10
# A long trial takes so many times as long as a usual one, and counts as so many.
LONG = 4
# Of the points that missed the SLO, those whose percentile is at most NEAR times the bound may meet it after
# all. At most RIVALS of them get another trial.
NEAR, RIVALS = 1.25, 3
# So many axes may be changed at once.
SEVERAL = (2, 3)
# Several changes are tried at once when they promise at least this share of the best throughput. The promise
# is the product of what each change did alone.
LEAST_PROMISE = 0.5
# The promise of a value with which nothing loads, for each further configuration that does not load with it.
BROKEN_AGAIN = 0.8
# The reference of a closed-loop tuning is measured so often again at its end: has the machine changed?
WATCH = 2
# In an open loop a configuration has room to spare when its percentile is at most this share of the bound.
CALM = 0.9
# Configurations whose throughput differs by no more than this share are equal; then fewer instances win.
TIE = 0.02


def default_budget(space: Space) -> int:
    """Measurements: a quarter of the grid's cells, and enough to look along each axis of a small grid."""
    return max(least_budget(space), math.floor(SHARE * space.cells))


def tune(space: Space, measure: Measure, *, bound_s: float, budget: int | None = None) -> Tuned:
    """Find the best point of `space`. `budget`: of measurements.

    `measure`: runs one trial of a point, so many times as long as usual; it may raise Stop. `bound_s`: the
    bound of the SLO's highest percentile.
    """
    log = Log(space, measure, bound_s, default_budget(space) if budget is None else budget)
    watch = 0 if space.is_open_loop else min(WATCH, log.budget // 12)
    reserve = 2 * REPEATS + (3 * LONG if space.is_open_loop else watch)
    with is_spent(log, min(reserve, log.budget // 3), unfinished=True):
        _start(log)
        _walk(log)
    with is_spent(log, watch):
        if space.is_open_loop:
            _last(log, likeliest)
        _prove(log)
        _confirm(log)
        while space.is_open_loop and _is_unsettled(log):
            _last(log, winner)
            _confirm(log)
        _refresh(log)
    with is_spent(log, 0):
        reference = log.reference()
        if reference is not None:
            log.stage = "watch"
            for _ in range(watch):
                log.measure_again(reference)
    return _result(log)


def _is_unsettled(log: Log) -> bool:
    chosen = winner(log)
    return chosen is not None and not log.was_long(chosen)


def _last(log: Log, choose: Callable[[Log], Point | None]) -> None:
    """Give the chosen point a long trial: a server just over its capacity misses the SLO only after a while.

    When it misses, the search goes on for others at the same rate. When it meets the SLO, those that came
    nearest to the next higher rate get a long trial too, since a single short one may have been bad luck.
    """
    while True:
        log.stage = "last"
        chosen = choose(log)
        if chosen is None:
            return
        if not log.was_long(chosen):
            if not _lasts(log, chosen):
                _walk(log)
        elif not any(_lasts(log, rival) for rival in _nearest(log, chosen)):
            return


def _lasts(log: Log, point: Point) -> bool:
    log.measure_again(point, LONG)
    return log.holds(point) in FITS


def _nearest(log: Log, best: Point) -> list[Point]:
    """Points at the next rate above the best that missed the SLO by little, the nearest first."""
    offered = log.space.offered
    missed = [p for p in log.points if log.holds(p) is Holds.NO and offered(p) > offered(best)]
    least = min(map(offered, missed), default=0.0)
    near = [p for p in missed if offered(p) == least and log.over(p) <= NEAR]
    return [p for p in sorted(near, key=log.over)[:RIVALS] if not log.was_long(p)]


def _start(log: Log) -> None:
    """Measure the middle of every axis at its best load, and once more to see how much repeats differ."""
    log.stage = "start"
    middle = tuple(values[len(values) // 2] for _, values in log.space.axes)
    _load(log, middle, len(log.space.levels) // 2)
    best = log.best()
    if best is not None:
        _again(log, best)
    else:  # nothing held from the middle down: the quickest corner
        _load(log, tuple(values[0] for _, values in log.space.axes), 0)


def _again(log: Log, point: Point) -> None:
    """Repeat a point that met the SLO; when it no longer does, measure the next lower load too."""
    log.measure_again(point)
    if log.holds(point) is Holds.NO and point.level > 0:
        log.fits(Point(point.configuration, point.level - 1))


def _walk(log: Log) -> None:
    """Go along the axes until none serves more, then try several changes; repeat while that serves more."""
    while True:
        log.stage = "axes"
        while sum(_line(log, axis) for axis in range(len(log.space.axes))):
            pass
        log.stage = "together"
        if not _across(log):
            return


def _line(log: Log, axis: int) -> bool:
    """Try every other value of one axis, starting from the best so far. Whether there is a new best."""
    before = _leader(log)
    here = before.configuration if before else log.points[-1].configuration
    # The nearest first: their loads are the likeliest to be the same.
    values = log.space.axes[axis][1]
    at = values.index(here[axis])
    for value in sorted(values, key=lambda v: abs(values.index(v) - at)):
        _try(log, (*here[:axis], value, *here[axis + 1 :]))
    return _race(log, before)


def _across(log: Log) -> bool:
    """Try several changes at once, the most promising first. Whether there is a new best."""
    before = _leader(log)
    if before is None:
        return False
    for _, configuration in _together(log, before):
        _try(log, configuration)
        if _leader(log) != before and _race(log, before):
            return True
    return False


def _leader(log: Log) -> Point | None:
    """The best so far; where nothing meets the SLO yet, what misses it by least."""
    return log.best() or log.nearest()


def _together(log: Log, best: Point) -> list[tuple[float, Configuration]]:
    """Configurations two or three changes away that were not tried, with their promise, the highest first."""
    here = best.configuration
    top = log.mean(best) if log.best() else log.merit(here)
    promising = []
    for other in log.space.configurations():
        changed = [axis for axis, value in enumerate(other) if value != here[axis]]
        is_rate = log.space.is_open_loop and log.best() is not None
        known = log.is_decided(other, best) if is_rate else log.is_tried(other)
        if len(changed) not in SEVERAL or known:
            continue
        alone = [(*here[:axis], other[axis], *here[axis + 1 :]) for axis in changed]
        promise = math.prod(_promise(log, one, axis, top) for one, axis in zip(alone, changed, strict=True))
        if promise >= LEAST_PROMISE:
            promising.append((promise, other))
    return sorted(promising, key=lambda pair: pair[0], reverse=True)


def _promise(log: Log, alone: Configuration, axis: int, top: float) -> float:
    """What one change did alone, as a factor of the best throughput.

    A change with which nothing loads alone may load beside others: too much memory for fp32 may be enough
    for bf16. It keeps its promise, until further configurations with that value fail, too.
    """
    if not log.is_broken(alone):
        return log.merit(alone) / top
    value = alone[axis]
    same = [other for other in log.tried() if other[axis] == value]
    served = [log.merit(other) / top for other in same if not log.is_broken(other)]
    return max(served) if served else BROKEN_AGAIN ** (len(same) - 1)


def _race(log: Log, before: Point | None) -> bool:
    """Whether another configuration than before is best; where it is unclear, both are measured once more.

    Where nothing meets the SLO yet, one that misses it by less is better.
    """
    leader = log.best()
    if leader is None or before is None or log.holds(before) not in FITS:
        leader = leader or log.nearest()
        return leader is not None and (before is None or leader.configuration != before.configuration)
    if leader.configuration == before.configuration:
        return False
    low, high = log.ratio(before, leader)
    if low <= 1 <= high:
        for point in (leader, before):
            if log.count(point) < MOST_REPEATS:
                _again(log, point)
    leader = log.best()
    return leader is not None and leader.configuration != before.configuration


def _try(log: Log, configuration: Configuration) -> None:
    best = log.best()
    if best is not None and log.space.is_open_loop:
        _rate(log, configuration, best)  # what is known already is not measured again
    elif not log.is_tried(configuration):
        _load(log, configuration, log.lowest_tried() if best is None else best.level)


def _load(log: Log, configuration: Configuration, level: int) -> None:
    """Find the load that serves most within the SLO, starting at `level`; stop once it cannot be the best."""
    while not log.fits(Point(configuration, level)):
        target = log.lower(Point(configuration, level), SLACK)
        if target is None:
            return
        level = target
    while level + 1 < len(log.space.levels) and log.may_reach_best(Point(configuration, level)):
        below, level = Point(configuration, level), level + 1
        above = Point(configuration, level)
        if log.is_known(above) or not log.fits(above):
            return
        if log.mean(above) < RISE * log.mean(below):
            return


def _rate(log: Log, configuration: Configuration, best: Point) -> None:
    """Measure the rates that could make a configuration the best.

    In an open loop a server serves the rate that is asked for. So only rates above that of the best matter,
    and the same rate where the configuration has fewer instances.
    """
    space = log.space
    fewer = space.instances(configuration) < space.instances(best.configuration)
    enough = space.offered(best) * (1 - TIE if fewer else 1 + TIE)
    levels = [n for n in range(len(space.levels)) if space.offered(Point(configuration, n)) >= enough]
    for level in levels:
        if not log.fits(Point(configuration, level)):
            return


def _prove(log: Log) -> None:
    """Repeat the likely best until its samples prove that it meets the SLO, or it has had its repeats.

    A proved point is recommended before a likely one. After its repeats the next lower load is measured.
    """
    log.stage = "prove"
    while (point := _unproved(log)) is not None:
        _again(log, point)
        if log.count(point) >= REPEATS and log.holds(point) is Holds.LIKELY and point.level > 0:
            log.fits(Point(point.configuration, point.level - 1))


def _unproved(log: Log) -> Point | None:
    """The best point that is likely to meet the SLO, serves more than any proved one, and lacks repeats."""
    ranked = log.ranked(lambda point: log.mean(point))
    proved = max((log.mean(p) for p in ranked if log.holds(p) is Holds.YES), default=0.0)
    likely = [p for p in ranked if log.holds(p) is Holds.LIKELY and log.mean(p) > (1 + TIE) * proved]
    return next((p for p in likely if log.count(p) < REPEATS), None)


def _confirm(log: Log) -> None:
    """Repeat the winner and the runner-up alternately."""
    log.stage = CONFIRM
    while True:
        finalists = finalists_of(log)
        if not finalists:
            return
        fewest = min(log.count(point) for point in finalists)
        if fewest >= MOST_REPEATS or (fewest >= REPEATS and is_parted(log, finalists)):
            return
        for point in finalists:
            if log.count(point) == fewest or REPEATS <= log.count(point) < MOST_REPEATS:
                _again(log, point)


def _refresh(log: Log) -> None:
    """Repeat the winner until it has its repeats since it was chosen; an open loop serves what is asked."""
    log.stage = CONFIRM
    while not log.space.is_open_loop:
        chosen = winner(log)
        if chosen is None or len(log.fresh(chosen)) >= REPEATS:
            return
        _again(log, chosen)


def is_parted(log: Log, finalists: list[Point]) -> bool:
    """Whether the confidence interval of their ratio separates two points, or shows that they are equal."""
    if len(finalists) < 2:
        return True
    low, high = log.ratio(*finalists)
    return not low <= 1 <= high or (low > 1 - TIE and high < 1 + TIE)


def finalists_of(log: Log) -> list[Point]:
    """The best points of the best two configurations, ranked as the report's recommendation ranks them.

    Proved points go before likely ones; of equal ones, fewer instances win. Each configuration counts by the
    point with which it serves most, so that nothing is chosen that serves less than a proved point by more
    than TIE.
    """
    ranked = log.ranked(lambda point: (log.holds(point) is Holds.YES, log.mean(point)))
    proved = [point for point in ranked if log.holds(point) is Holds.YES] or ranked
    firsts: dict[Configuration, Point] = {}
    for point in proved:
        firsts.setdefault(point.configuration, point)
    best = _of_equals(log, list(firsts.values()))
    others = (p for p in firsts.values() if best is not None and p.configuration != best.configuration)
    return [] if best is None else [best, *others][:2]


def winner(log: Log) -> Point | None:
    """The point that would be recommended now."""
    return next(iter(finalists_of(log)), None)


def likeliest(log: Log) -> Point | None:
    """The best of all points that meet the SLO, whether their samples prove it or only make it likely."""
    return _of_equals(log, log.ranked(log.mean))


def _of_equals(log: Log, ranked: list[Point]) -> Point | None:
    """Of the points that serve as much as the first, the one with the fewest instances.

    In an open loop all of them serve the same, so only those with room to spare count as equal. Without any,
    the one with the lowest percentile is taken.
    """
    near = [p for p in ranked if log.mean(p) >= (1 - TIE) * log.mean(ranked[0])]
    if log.space.is_open_loop and not any(log.over(p) <= CALM for p in near):
        return min(near, key=log.over, default=None)
    calm = [p for p in near if log.over(p) <= CALM] if log.space.is_open_loop else near
    return min(calm, key=lambda p: (log.space.instances(p.configuration), ranked.index(p)), default=None)


def _result(log: Log) -> Tuned:
    best, runner_up = (*finalists_of(log), None, None)[:2]
    return Tuned(
        best=best,
        runner_up=runner_up,
        throughput=_interval(log, best),
        confirmed=_confirmed(log, best),
        runner_up_throughput=_interval(log, runner_up),
        apart=_apart(log, best, runner_up),
        proved=best is not None and log.holds(best) is Holds.YES,
        change=log.change(),
        steps=tuple(log.steps),
        cost=log.spent,
        cells=log.space.cells,
        untried=tuple(c for c in log.space.configurations() if not log.is_tried(c)),
        at_limit=_at_limit(log.space, best),
        out_of_budget=log.ran_out,
    )


def _interval(log: Log, point: Point | None) -> Interval | None:
    return None if point is None else arithmetic(log.throughputs(point))


def _confirmed(log: Log, point: Point | None) -> Interval | None:
    fresh = log.fresh(point) if point is not None else []
    return arithmetic(fresh) if len(fresh) >= REPEATS else None


def _apart(log: Log, best: Point | None, runner_up: Point | None) -> Interval | None:
    """Throughput of the best / the runner-up, over the repeats of both that were interleaved."""
    if best is None or runner_up is None:
        return None
    one, other = log.fresh(best), log.fresh(runner_up)
    pairs = min(len(one), len(other))
    if pairs >= REPEATS:
        return paired_ratio(other[:pairs], one[:pairs])
    pairs = min(log.count(best), log.count(runner_up))
    return paired_ratio(log.throughputs(runner_up)[-pairs:], log.throughputs(best)[-pairs:])


def _at_limit(space: Space, best: Point | None) -> tuple[str, ...]:
    """Axes of numbers of which the best has the largest value: a larger one may serve more."""
    if best is None:
        return ()
    pairs: Iterable[tuple[tuple[str, tuple[object, ...]], object]] = zip(
        space.axes, best.configuration, strict=True
    )
    axes = [name for (name, values), value in pairs if len(values) > 1 and value == values[-1]
             and isinstance(value, int)]  # fmt: skip
    load = ["load"] if len(space.levels) > 1 and best.level == len(space.levels) - 1 else []
    return (*axes, *load)
