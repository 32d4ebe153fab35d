"""What a tuning run found, in words, as JSON, and as a section of the report."""

from __future__ import annotations

from typing import Any

from bench.analysis.stats import Interval
from bench.core.units import plural, queue_delay, significant
from bench.experiments.tune.history import INSTANCES, QUEUE_DELAY, Configuration, Point, Space, Step, Tuned

FILE = "tune.json"
TO_DEPLOY = {
    "config.pbtxt": "config_pbtxt",
    "configmap.yaml": "config_map",
    "mlservice-patch.yaml": "mlservice_patch",
}  # files beside it, and where it has their text


def said(space: Space, configuration: Configuration) -> str:
    """precision bf16, 2 instances, max batch 8, queue delay 1 ms, batch 1."""
    return ", ".join(
        _said(name, value) for name, value in space.named(configuration).items() if value is not None
    )


def _said(name: str, value: object) -> str:
    if name == INSTANCES:
        return plural(int(str(value)), "instance")
    if name == QUEUE_DELAY:
        return queue_delay(int(str(value)))
    return f"{name} {value}"


def at(space: Space, point: Point) -> str:
    level = f"{space.levels[point.level]:g}"
    load = f"{level}/s" if space.is_open_loop else f"{level} user{'' if level == '1' else 's'}"
    return f"{said(space, point.configuration)} at {load}"


def sentences(space: Space, found: Tuned, slo: str) -> list[str]:
    """The answer, how sure it is, what it cost, and what was not tried."""
    if found.best is None:
        return [f"No measured configuration holds {slo}.", *_effort(space, found)]
    sure = "proved by its samples" if found.proved else "likely; too few samples to prove it"
    lines = [f"For {slo} run {at(space, found.best)}: {_images(found.throughput)} img/s, {sure}."]
    if found.runner_up is not None:
        runner_up = f"Runner-up: {at(space, found.runner_up)}: {_images(found.runner_up_throughput)} img/s"
        lines.append(f"{runner_up}; {_apart(found.apart)}.")
    return [*lines, *_effort(space, found)]


def _images(interval: Interval | None) -> str:
    if interval is None:
        return "0"
    if interval.low is None or interval.high is None:
        return significant(interval.value)
    return f"{significant(interval.value)} ({significant(interval.low)}-{significant(interval.high)})"


def _apart(apart: Interval | None) -> str:
    if apart is None or apart.low is None or apart.high is None:
        return "too few repeats to tell them apart"
    times = f"{apart.value:.3f} times as much ({apart.low:.3f}-{apart.high:.3f}, interleaved)"
    if apart.low <= 1 <= apart.high:
        return f"not to be told apart: the first serves {times}"
    return f"the first serves {times}"


def _effort(space: Space, found: Tuned) -> list[str]:
    configurations = space.cells // len(space.levels)
    tried, count = configurations - len(found.untried), found.cost
    longer = sum(step.cost > 1 for step in found.steps)
    long = f" (counting {longer} long as several)" if longer else ""
    lines = [
        f"{plural(count, 'measurement')}{long} of {tried} configurations; the grid has {found.cells} cells: "
        f"{significant(100 * count / found.cells)} % of measuring each once."
    ]
    if found.untried:
        lines.append(
            f"Not tried: {len(found.untried)} of {configurations} configurations (listed in {FILE})."
        )
    if found.out_of_budget:
        lines.append("It ended before the search was through: --budget allows more.")
    if found.edges:
        lines.append(f"At the end of what was offered: {', '.join(found.edges)}. More of it may serve more.")
    return lines


def table(space: Space, found: Tuned, slo: str, **more: Any) -> dict[str, Any]:
    """As JSON; `more` is added as it is."""
    return {
        "slo": slo,
        "answer": sentences(space, found, slo),
        "best": _point(space, found.best, found.throughput),
        "proved": found.proved,
        "runner_up": _point(space, found.runner_up, found.runner_up_throughput),
        "best_over_runner_up": _bounds(found.apart),
        "measurements": found.cost,
        "grid_cells": found.cells,
        "out_of_budget": found.out_of_budget,
        "edges": list(found.edges),
        "axes": [{"name": name, "values": list(values)} for name, values in space.axes],
        "levels": list(space.levels),
        "steps": [_step(space, step) for step in found.steps],
        "untried": [space.named(configuration) for configuration in found.untried],
        **more,
    }


def _point(space: Space, point: Point | None, images: Interval | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {
        "what": at(space, point),
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
        "what": at(space, step.point),
        "times_as_long": step.cost,
        "img_per_s": reading.img_per_s,
        "holds": str(reading.holds),
        "why": reading.why,
    }
