"""The configuration that serves most within an SLO, found with far fewer measurements than the grid.

Pure: `tune` is given a function that measures one point once, and never sees a server or a clock. It goes
along one axis at a time from the middle (coordinate search), and at each configuration only to the load
that matters: where the SLO is missed, more load misses it too, and less serves less. Then it tries
several changes at once that each cost little, since axes interact. Rivals too close to tell apart are
measured again; at the end the winner and the runner-up are repeated in turn until intervals part them, or
say that they are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.analysis.slo import Holds
from bench.analysis.stats import Interval
from bench.experiments.tune.history import (
    FITS,
    Configuration,
    Log,
    Measure,
    Point,
    Reading,
    Space,
    Step,
    Stop,
    Tuned,
    is_spent,
    least_budget,
)
from bench.experiments.tune.selection import TIE, finalists_of, is_parted, likeliest, result, winner

__all__ = [
    "Configuration",
    "Interval",
    "Point",
    "Reading",
    "Space",
    "Step",
    "Stop",
    "Tuned",
    "default_budget",
    "tune",
]

SHARE = 0.25  # of the grid's cells: the budget unless another is given
REPEATS, MOST_REPEATS = 3, 5  # of each of the two finalists; no point has more
RISE = 1.02  # more users that bring less than this find a saturated server
SLACK = 1.10  # by which less load may serve more: contention, and noise
LONG = 4  # times a trial, as which it counts
NEAR, RIVALS = 1.25, 3  # times the bound, so many: these may hold the rate after all
SEVERAL = (2, 3)  # changes at once
LEAST_PROMISE = 0.5  # of several changes, by what each did alone


def default_budget(space: Space) -> int:
    """Measurements: a quarter of the grid's, and enough to look along each axis of a small one."""
    return max(least_budget(space), math.floor(SHARE * space.cells))


def tune(space: Space, measure: Measure, *, bound_s: float, budget: int | None = None) -> Tuned:
    """`measure`: one trial of a point, so many times as long as others; it may raise Stop.

    `bound_s`: of the SLO's highest percentile.
    """
    log = Log(space, measure, bound_s, default_budget(space) if budget is None else budget)
    reserve = 2 * REPEATS + (3 * LONG if space.is_open_loop else 0)
    with is_spent(log, min(reserve, log.budget // 3)):
        _start(log)
        _walk(log)
    with is_spent(log, 0):
        if space.is_open_loop:
            _last(log, likeliest)
        _prove(log)
        _confirm(log)
        while space.is_open_loop and _is_unsettled(log):
            _last(log, winner)
            _confirm(log)
    return result(log)


def _is_unsettled(log: Log) -> bool:
    chosen = winner(log)
    return chosen is not None and not log.was_long(chosen)


def _last(log: Log, choose: Callable[[Log], Point | None]) -> None:
    """A rate holds when it lasts: a server a little over its capacity needs longer than a trial to show it.

    The choice has a long trial; where it misses, there may be others at its rate. Once one lasts, those that
    came nearest to the next rate have another chance: a single short trial may have been bad luck.
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
    """Points that offer the next more than the best and missed by little, the nearest first."""
    offered = log.space.offered
    missed = [p for p in log.points if log.holds(p) is Holds.NO and offered(p) > offered(best)]
    least = min(map(offered, missed), default=0.0)
    near = [p for p in missed if offered(p) == least and log.over(p) <= NEAR]
    return [p for p in sorted(near, key=log.over)[:RIVALS] if not log.was_long(p)]


def _start(log: Log) -> None:
    """The middle of every axis, at its best load; once more, to see how much repeats differ."""
    log.stage = "start"
    middle = tuple(values[len(values) // 2] for _, values in log.space.axes)
    _load(log, middle, len(log.space.levels) // 2)
    best = log.best()
    if best is not None:
        _again(log, best)
    else:  # nothing held from the middle down: the quickest corner
        _load(log, tuple(values[0] for _, values in log.space.axes), 0)


def _again(log: Log, point: Point) -> None:
    """One repeat more of a point that held; when it holds no longer, the next load below it too."""
    log.measure_again(point)
    if log.holds(point) is Holds.NO and point.level > 0:
        log.fits(Point(point.configuration, point.level - 1))


def _walk(log: Log) -> None:
    """Along the axes until none gives more; then across; again while that gives more."""
    while True:
        log.stage = "axes"
        while sum(_line(log, axis) for axis in range(len(log.space.axes))):
            pass
        log.stage = "together"
        if not _across(log):
            return


def _line(log: Log, axis: int) -> bool:
    """Every other value of one axis from the best so far. Whether there is a better one."""
    before = log.best()
    here = before.configuration if before else log.points[-1].configuration
    # The nearest first: their loads are the likeliest to be the same.
    values = log.space.axes[axis][1]
    at = values.index(here[axis])
    for value in sorted(values, key=lambda v: abs(values.index(v) - at)):
        _try(log, (*here[:axis], value, *here[axis + 1 :]))
    return _race(log, before)


def _across(log: Log) -> bool:
    """Several changes at once, the most promising first."""
    before = log.best()
    if before is None:
        return False
    for _, configuration in _together(log, before):
        _try(log, configuration)
        if log.best() != before and _race(log, before):
            return True
    return False


def _together(log: Log, best: Point) -> list[tuple[float, Configuration]]:
    """Configurations two or three changes away and not tried, by the product of what each did alone."""
    top, here = log.mean(best), best.configuration
    found = []
    for other in log.space.configurations():
        changed = [axis for axis, value in enumerate(other) if value != here[axis]]
        known = log.is_decided(other, best) if log.space.is_open_loop else log.is_tried(other)
        if len(changed) not in SEVERAL or known:
            continue
        alone = [(*here[:axis], other[axis], *here[axis + 1 :]) for axis in changed]
        promise = math.prod(log.potential(one) / top for one in alone)
        if promise >= LEAST_PROMISE:
            found.append((promise, other))
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def _race(log: Log, before: Point | None) -> bool:
    """Whether another configuration is best now; where it is a close thing, both are measured once more."""
    leader = log.best()
    if leader is None or before is None or leader.configuration == before.configuration:
        return before is None and leader is not None
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
    """The load that serves most within the SLO, looked for from `level`; given up once it cannot win."""
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
    """In an open loop what is served is what is asked: only rates above the best's matter, or the best's own
    where fewer instances would do."""
    space = log.space
    fewer = space.instances(configuration) < space.instances(best.configuration)
    enough = space.offered(best) * (1 - TIE if fewer else 1 + TIE)
    levels = [n for n in range(len(space.levels)) if space.offered(Point(configuration, n)) >= enough]
    for level in levels:
        if not log.fits(Point(configuration, level)):
            return


def _prove(log: Log) -> None:
    """What is proved goes before what only seems to hold, so the likely best is measured until it is
    proved, or has had its repeats; then the next load below it."""
    log.stage = "prove"
    while (point := _unproved(log)) is not None:
        _again(log, point)
        if log.count(point) >= REPEATS and log.holds(point) is Holds.LIKELY and point.level > 0:
            log.fits(Point(point.configuration, point.level - 1))


def _unproved(log: Log) -> Point | None:
    """The best of those that seem to hold, beyond what is proved, and not repeated enough yet."""
    ranked = log.ranked(lambda point: log.mean(point))
    proved = max((log.mean(p) for p in ranked if log.holds(p) is Holds.YES), default=0.0)
    likely = [p for p in ranked if log.holds(p) is Holds.LIKELY and log.mean(p) > (1 + TIE) * proved]
    return next((p for p in likely if log.count(p) < REPEATS), None)


def _confirm(log: Log) -> None:
    """Winner and runner-up in turn."""
    log.stage = "confirm"
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
