"""Tuning on simulated servers, in virtual time: near the grid's best, with few of its measurements."""

from __future__ import annotations

import math

import pytest

from bench.analysis.slo import Holds
from bench.experiments.tune.algorithm import default_budget, tune
from bench.experiments.tune.history import Point, Reading, Space, Stop, Tuned
from tests.support.tuning_spaces import SPACES, Simulated, grid_best

QUALITY, SHARE = 0.97, 0.25


@pytest.mark.parametrize("server", SPACES, ids=lambda server: server.name)
def test_a_server_is_tuned_to_97_percent_in_a_quarter_of_the_grid(server: Simulated) -> None:
    """Of the best of its whole grid, both by long simulations; the choice holds the SLO there."""
    tuned = tune(server.space, server.measure(seed=1), bound_s=server.bound_s)
    assert tuned.best is not None
    (most, _), (true, holds) = server.truth(server.best), server.truth(tuned.best)
    assert holds
    assert true >= QUALITY * most
    assert tuned.cost <= SHARE * server.space.cells


def test_the_recorded_best_is_that_of_the_whole_grid() -> None:
    """Of the smallest grid; `python -m tests.support.tuning_spaces` says it of all."""
    smallest = min(SPACES, key=lambda server: server.space.cells)
    assert grid_best(smallest) == smallest.best


def flat(space: Space, best: Point | None = None) -> Tuned:
    """A server that serves the same everywhere, but twice as much at one point."""
    return tune(
        space, lambda point, _: Reading(200.0 if point == best else 100.0, Holds.YES), bound_s=1.0, budget=60
    )


SPACE = Space((("instances", (1, 2, 4)), ("max batch", (1, 8, 32))), (1.0, 4.0, 16.0))


def test_of_configurations_that_serve_the_same_the_one_with_fewest_instances_wins() -> None:
    found = flat(SPACE)
    assert found.best is not None
    assert found.best.configuration[0] == 1
    assert found.apart is not None
    assert found.apart.low is not None
    assert found.apart.low <= 1 <= (found.apart.high or 0)


def test_winner_and_runner_up_have_their_repeats_in_turn() -> None:
    found = flat(SPACE)
    confirming = [step.point for step in found.steps if step.stage == "confirm"]
    assert {found.best, found.runner_up} <= set(confirming)
    for point in (found.best, found.runner_up):
        assert sum(step.point == point for step in found.steps) >= 3
    assert found.throughput is not None
    assert found.throughput.low is not None


def test_where_nothing_holds_it_says_so_after_a_few_measurements() -> None:
    found = tune(SPACE, lambda *_: Reading(50.0, Holds.NO), bound_s=0.05)
    assert found.best is None
    assert found.throughput is None
    assert 0 < len(found.steps) <= default_budget(SPACE)


def test_where_only_the_least_load_of_one_configuration_holds_it_is_found() -> None:
    only = Point((1, 1), 0)
    found = tune(
        SPACE,
        lambda point, _: Reading(10.0, Holds.YES if point == only else Holds.NO),
        bound_s=10.0,
        budget=27,
    )
    assert found.best == only


def product(point: Point, _: int = 1) -> Reading:
    """More of everything is better."""
    return Reading(math.prod(float(str(value)) for value in point.configuration), Holds.YES)


@pytest.mark.parametrize("budget", [1, 3, 7, 20])
def test_the_budget_is_kept(budget: int) -> None:
    found = tune(SPACE, product, bound_s=1.0, budget=budget)
    assert len(found.steps) <= budget
    assert found.best is not None


def test_whoever_measures_may_stop_it_and_gets_the_best_so_far() -> None:
    readings = iter([Reading(100.0, Holds.YES)] * 5)

    def measure(_: Point, _times: int) -> Reading:
        try:
            return next(readings)
        except StopIteration:
            raise Stop from None

    found = tune(SPACE, measure, bound_s=1.0)
    assert len(found.steps) == 5
    assert found.best is not None
    assert found.out_of_budget


def test_what_is_proved_goes_before_what_only_seems_to_hold() -> None:
    """As the report decides: 32 is never proved, though it serves more."""

    def measure(point: Point, _: int) -> Reading:
        batch = int(str(point.configuration[1]))
        return Reading(100.0 + batch, Holds.LIKELY if batch == 32 else Holds.YES)

    found = tune(SPACE, measure, bound_s=1.0, budget=60)
    assert found.proved
    assert found.best is not None
    assert found.best.configuration[1] == 8


def test_untried_configurations_and_the_ends_of_axes_are_told() -> None:
    found = tune(SPACE, product, bound_s=1.0)
    assert found.best is not None
    assert found.best.configuration == (4, 32)
    assert found.at_limit[:2] == ("instances", "max batch")
    tried = {step.point.configuration for step in found.steps}
    assert tried.isdisjoint(found.untried)
    assert len(tried) + len(found.untried) == 9


def test_a_lower_load_is_not_measured_where_it_cannot_win() -> None:
    """Users beyond the bound by Little's law: 64 in flight at 100/s take 640 ms."""
    space = Space((("instances", (1, 2)),), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
    measured = []

    def measure(point: Point, _: int) -> Reading:
        users, per_s = space.levels[point.level], 100.0 if point.configuration == (2,) else 40.0
        measured.append(point)
        return Reading(per_s, Holds.YES if users / per_s <= 0.05 else Holds.NO)

    found = tune(space, measure, bound_s=0.05)
    assert found.best is not None
    assert found.best.configuration == (2,)
    assert len([p for p in measured if p.configuration == (1,)]) == 1


def test_a_winner_that_misses_when_repeated_gives_way_to_less_load() -> None:
    """Its first trial was luck: it holds once, then never."""
    seen: dict[Point, int] = {}
    lucky = Point((4, 32), 2)

    def measure(point: Point, _: int) -> Reading:
        seen[point] = seen.get(point, 0) + 1
        if point == lucky:
            return Reading(500.0, Holds.YES if seen[point] == 1 else Holds.NO)
        return Reading(100.0 + 10 * point.level, Holds.YES if point.configuration == (4, 32) else Holds.NO)

    found = tune(SPACE, measure, bound_s=10.0, budget=40)
    assert found.best == Point((4, 32), 1)
