"""One embedded Triton with the calibration models, and trials on it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.target import Target
from bench.core.trial import Plan, Served
from bench.server import model_config
from bench.server.control import Triton
from bench.server.embedded import start
from bench.server.reference_answers import refer
from bench.server.repository import SHIPPED
from bench.server.serving import Serving

IMAGE = 224
LABELS = {Protocol.HTTP: "HTTP", Protocol.GRPC: "gRPC"}


@dataclass(frozen=True, slots=True)
class Rig:
    """`served`: by model, each with its reference answers, so that values are checked as in a sweep."""

    target: Target
    triton: Triton
    scratch: Path
    served: dict[str, Served]

    def serve(self, server: ServerConfiguration) -> Served:
        """The model loaded so; from its file, whatever was loaded before."""
        base = model_config.read(SHIPPED / server.model / "config.pbtxt")
        served = Serving(self.triton, server.model, base, is_ours=True).configure(server)
        return refer(served, IMAGE, IMAGE, self.scratch)

    def triton_version(self) -> str:
        return str(self.triton.server().get("version", "unknown"))


@contextmanager
def rig(models: Sequence[str]) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        scratch = Path(folder)
        with start(SHIPPED, log=scratch / "server.log", models=models) as server:
            triton = Triton(server.target)
            try:
                served = {model: _served(triton, model, scratch) for model in models}
                yield Rig(server.target, triton, scratch, served)
            finally:
                triton.close()


def _served(triton: Triton, model: str, scratch: Path) -> Served:
    plain = Serving(triton, model).configure(ServerConfiguration(model=model))
    return refer(plain, IMAGE, IMAGE, scratch)


def plan(model: str, load: Load, *, seconds: float, warmup_s: float, seed: int = 1) -> Plan:
    """One process, whatever it takes: what one process can do is the question."""
    cell = Cell(server=ServerConfiguration(model=model), load=load)
    build = partial(Plan, cell=cell, repeat=0, seed=seed, workers=1)
    return build(warmup_s=warmup_s, duration_s=seconds)
