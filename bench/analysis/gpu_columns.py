"""GPU series of a cell as columns: means inside the window, energy by the counter where there is one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from bench.core.trial import Trial


def columns(trials: Sequence[Trial], images_per_s: float | None) -> dict[str, float | None]:
    """Of several GPUs the mean or the sum, as the name says. A sensor that gave nothing: None, never 0."""
    power = _of_gpus(trials, "power_w", _mean)
    drawn = _of_gpus(trials, "energy_j", _slope) or power
    watts = sum(drawn) if drawn else None
    return {
        "gpu_utilisation_percent": _averaged(_of_gpus(trials, "utilisation_percent", _mean)),
        "gpu_memory_used_bytes": _summed(_of_gpus(trials, "memory_used_bytes", _mean)),
        "gpu_power_w": _summed(power) if power else watts,
        "gpu_sm_clock_mhz": _averaged(_of_gpus(trials, "sm_clock_mhz", _mean)),
        "gpu_temperature_c": _averaged(_of_gpus(trials, "temperature_c", _mean)),
        "gpu_energy_j_per_img": watts / images_per_s if watts and images_per_s else None,
        "gpu_img_per_s_per_w": images_per_s / watts if watts and images_per_s else None,
    }


Rows = Sequence[tuple[int, float]]


def _of_gpus(trials: Sequence[Trial], reading: str, fold: Callable[[Rows], float | None]) -> list[float]:
    """One number a GPU: the mean over repeats of what `fold` makes of its readings in the window."""
    names = {
        name
        for trial in trials
        for name in trial.machine
        if name.startswith("gpu") and name.partition("_")[2] == reading
    }
    found = []
    for name in sorted(names):
        values = [fold(_inside(trial, name)) for trial in trials]
        known = [value for value in values if value is not None]
        found += [float(np.mean(known))] if known else []
    return found


def _inside(trial: Trial, name: str) -> Rows:
    window = trial.window
    return [row for row in trial.machine.get(name, ()) if window.start_ns <= row[0] < window.end_ns]


def _mean(rows: Rows) -> float | None:
    return float(np.mean([value for _, value in rows])) if rows else None


def _slope(rows: Rows) -> float | None:
    """Of a growing counter, a second: between its first and its last step, lest one that moves seldom lie."""
    steps = [rows[0], *(b for a, b in itertools.pairwise(rows) if b[1] != a[1])] if rows else []
    if len(steps) < 3 or steps[-1][1] < steps[1][1]:
        return None
    (from_ns, low), (to_ns, high) = steps[1], steps[-1]
    return (high - low) / ((to_ns - from_ns) / 1e9)


def _averaged(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _summed(values: Sequence[float]) -> float | None:
    return sum(values) if values else None
