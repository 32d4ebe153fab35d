"""Trials of the real engine on the calibration models of a real server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.summary import mean_of
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.trial import Plan, Served, Trial
from bench.loadgen.locust.engine import LocustEngine
from bench.sensors.host import Sampler, host_sensors
from bench.server import model_config
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.reference_answers import refer
from bench.server.serving import Serving

_CROWDED_PERCENT = 10.0  # of the time; server and load alone cost 2 to 5 on two cores
REPOSITORY = Path(__file__).parents[2] / "model_repository"


def parameters(**values: object) -> tuple[tuple[str, str], ...]:
    """Model parameters as a server configuration takes them."""
    return tuple((name, str(value)) for name, value in values.items())


def closed(concurrency: int, protocol: Protocol = Protocol.HTTP, batch: int = 1) -> Load:
    return Load(protocol=protocol, batch=batch, concurrency=concurrency)


def serve(triton: EmbeddedTriton, server: ServerConfiguration) -> Served:
    """The model loaded so, with its reference. Loading what is loaded already changes nothing."""
    control = Triton(triton.target)
    config = model_config.read(REPOSITORY / server.model / "config.pbtxt")
    try:
        served = Serving(control, server.model, config, is_ours=True).configure(server)
    finally:
        control.close()
    return refer(served, 224, 224, Path(tempfile.gettempdir()) / f"bench-test-references-{os.getpid()}")


def measure(
    engine: LocustEngine,
    triton: EmbeddedTriton,
    server: ServerConfiguration,
    load: Load,
    *,
    duration_s: float = 1.0,
    warmup_s: float = 0.2,
    seed: int = 1,
    **plan: Any,
) -> Trial:
    """One trial of `load` on `server`."""
    cell = Cell(server=server, load=load)
    asked = Plan(cell=cell, repeat=0, seed=seed, warmup_s=warmup_s, duration_s=duration_s, **plan)
    return engine.measure(asked, triton.target, serve(triton, server))


def rate_per_s(trial: Trial) -> float:
    """Right answers a second, from the samples."""
    return len(trial.samples.done_in(trial.window).good()) / trial.window.seconds


def undisturbed(measure_once: Callable[[], Trial], is_exact: Callable[[Trial], bool]) -> Trial:
    """The first of up to three trials that is exact, else the last.

    Skips the test where none is and tasks had to wait for a CPU: a sleeping server is then late by
    itself, and nothing can be said about who measured it.
    """
    for _ in range(3):
        with Sampler(host_sensors()) as sampler:
            trial = measure_once()
        if is_exact(trial):
            return trial
    waited = mean_of(replace(trial, machine=sampler.series()), "cpu_pressure_some_percent") or 0.0
    if waited > _CROWDED_PERCENT:
        pytest.skip(f"tasks waited for a CPU {waited:.0f} % of the time: nothing exact can be measured")
    return trial
