"""Put the result of a tuning into words and into JSON."""

from __future__ import annotations

from typing import Any

from bench.analysis.stats import Interval
from bench.core.run_folder import TUNE_FILE
from bench.core.units import plural, queue_delay, significant
from bench.experiments.tune.history import INSTANCES, QUEUE_DELAY, Configuration, Point, Space, Step, Tuned


def describe(space: Space, configuration: Configuration) -> str:
    """precision bf16, 2 instances, max batch 8, queue delay 1 ms, batch 1."""
    values = space.named(configuration).items()
    return ", ".join(_value(name, value) for name, value in values if value is not None)


def _value(name: str, value: object) -> str:
    if name == INSTANCES:
        return plural(int(str(value)), "instance")
    if name == QUEUE_DELAY:
        return queue_delay(int(str(value)))
    return f"{name} {value}"


def describe_point(space: Space, point: Point) -> str:
    """A configuration and its load: 2 instances, max batch 8, batch 1 at 4 users."""
    level = f"{space.levels[point.level]:g}"
    load = f"{level} requests/s" if space.is_open_loop else f"{level} user{'' if level == '1' else 's'}"
    return f"{describe(space, point.configuration)} at {load}"


def sentences(space: Space, result: Tuned, slo: str) -> list[str]:
    """The answer, how sure it is, how much was measured, and what was not tried."""
    if result.best is None:
        return [f"No measured configuration meets {slo}.", *_effort(space, result)]
    best, images = describe_point(space, result.best), _images(result.confirmed or result.throughput)
    certainty = (
        "Its samples prove that it meets the SLO."
        if result.proved
        else "It probably meets the SLO, but has too few samples to prove it."
    )
    lines = [f"For {slo} use {best}: {images} img/s. {certainty}"]
    if result.confirmed is not None:
        lines.append(f"Measured in {plural(result.confirmed.n, 'repeat')} after it was chosen.")
    elif not space.is_open_loop:
        lines.append("Its throughput includes the repeats it was chosen by, so it is rather too high.")
    if result.runner_up is not None:
        runner_up = describe_point(space, result.runner_up)
        images = _images(result.runner_up_throughput)
        lines.append(f"Runner-up: {runner_up}: {images} img/s. {_difference(result.apart)}")
    return [*lines, *_effort(space, result)]


def _images(interval: Interval | None) -> str:
    if interval is None:
        return "0"
    if interval.low is None or interval.high is None:
        return significant(interval.value)
    return f"{significant(interval.value)} ({significant(interval.low)}-{significant(interval.high)})"


def _difference(apart: Interval | None) -> str:
    if apart is None or apart.low is None or apart.high is None:
        return "There are too few repeats to compare the two."
    ratio = f"best / runner-up {apart.value:.2f}x ({apart.low:.2f}-{apart.high:.2f})"
    return f"The difference is {'not ' if apart.low <= 1 <= apart.high else ''}significant: {ratio}."


def _effort(space: Space, result: Tuned) -> list[str]:
    configurations = space.cells // len(space.levels)
    tried, longer = configurations - len(result.untried), sum(step.cost > 1 for step in result.steps)
    long = f" ({longer} long ones count as several)" if longer else ""
    lines = [
        f"This took {plural(result.cost, 'measurement')}{long} of {plural(tried, 'configuration')}; "
        f"the whole grid once would have taken {result.cells}."
    ]
    if result.change is not None:
        lines.append(
            f"WARNING: the machine changed: at the end of the tuning the first configuration serves "
            f"{result.change:+.0%}. Do not trust smaller differences, and tune again on a quiet machine."
        )
    if result.untried:
        lines.append(
            f"Not tried: {len(result.untried)} of {configurations} configurations (listed in {TUNE_FILE})."
        )
    if result.out_of_budget:
        lines.append("The budget was used up before the search was finished: raise --budget.")
    if result.at_limit:
        axes = ", ".join(result.at_limit)
        lines.append(f"The best value is the largest that was allowed for: {axes}. Try larger ones.")
    return lines


def table(space: Space, result: Tuned, slo: str, **more: Any) -> dict[str, Any]:
    """The result as one JSON object; `more` is added to it as it is."""
    return {
        "slo": slo,
        "answer": sentences(space, result, slo),
        "best": _point(space, result.best, result.throughput),
        "proved": result.proved,
        "runner_up": _point(space, result.runner_up, result.runner_up_throughput),
        "best_over_runner_up": _bounds(result.apart),
        "measurements": result.cost,
        "grid_cells": result.cells,
        "change": result.change,
        "out_of_budget": result.out_of_budget,
        "confirmed": _bounds(result.confirmed),
        "edges": list(result.at_limit),
        "axes": [{"name": name, "values": list(values)} for name, values in space.axes],
        "levels": list(space.levels),
        "steps": [_step(space, step) for step in result.steps],
        "untried": [space.named(configuration) for configuration in result.untried],
        **more,
    }


def _point(space: Space, point: Point | None, images: Interval | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "what": describe_point(space, point),
        "configuration": space.named(point.configuration),
        "load": space.levels[point.level],
        "img_per_s": _bounds(images),
    }


def _bounds(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}


def _step(space: Space, step: Step) -> dict[str, Any]:
    reading = step.reading
    return {
        "stage": step.stage,
        "what": describe_point(space, step.point),
        "times_as_long": step.cost,
        "img_per_s": reading.img_per_s,
        "holds": str(reading.holds),
        "why": reading.why,
    }
