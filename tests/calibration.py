"""Trials of the real engine on the calibration models of a real server."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import model_config
from bench.cell import Cell, Load, Protocol, ServerConfiguration
from bench.embedded import EmbeddedTriton
from bench.locust_engine import LocustEngine
from bench.oracle import refer
from bench.serving import Serving
from bench.trial import Plan, Served, Trial
from bench.triton import Triton

REPOSITORY = Path(__file__).parents[1] / "model_repository"


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
    return refer(served, 224, 224, Path(tempfile.gettempdir()) / "bench-test-references")


def measure(
    engine: LocustEngine,
    triton: EmbeddedTriton,
    server: ServerConfiguration,
    load: Load,
    *,
    duration_s: float = 1.0,
    warmup_s: float = 0.2,
    **plan: Any,
) -> Trial:
    """One trial of `load` on `server`."""
    cell = Cell(server=server, load=load)
    asked = Plan(cell=cell, repeat=0, seed=1, warmup_s=warmup_s, duration_s=duration_s, **plan)
    return engine.measure(asked, triton.target, serve(triton, server))


def rate_per_s(trial: Trial) -> float:
    """Right answers a second, from the samples."""
    return len(trial.samples.done_in(trial.window).good()) / trial.window.seconds


def undisturbed(measure_once: Callable[[], Trial], at_least_per_s: float, attempts: int = 5) -> Trial:
    """A trial that reached the rate, or the last: whatever else runs here can only slow a sleeping server."""
    for _ in range(attempts):
        trial = measure_once()
        if rate_per_s(trial) >= at_least_per_s:
            break
    return trial
