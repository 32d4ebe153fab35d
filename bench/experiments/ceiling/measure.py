"""The ceiling of a served ViT: the same network, weights, precision and batch, without Triton.

Measured in a process of its own (`network_process`) on this machine, with nothing else running. A run
keeps it as ceiling.json, and efficiency is what is served over it.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.analysis.ceiling import Bare, Ceiling
from bench.analysis.roofline import Measured, Shape
from bench.core import vit_variants
from bench.core.child import dies_with_us
from bench.core.errors import ToolError
from bench.core.paths import MODEL_REPOSITORY
from bench.core.spec import SweepSpec
from bench.sensors import nvml
from bench.sensors.host import usable_cores
from bench.server.repository import Repository

SECONDS, SAMPLES = 1.0, 5
AXES = ("precision", "compile", "output")  # What the bare model can vary.
MODEL = MODEL_REPOSITORY / "python_vit" / "1"


class Process:
    """One network, ready to be timed as often as wanted. Use as a context manager."""

    def __init__(
        self, weights: str, precision: str = "fp32", *, compile_mode: str = "none",
        output: str = "last_hidden_state", threads: int = 0, model: Path = MODEL,
    ) -> None:  # fmt: skip
        """`threads` 0: every core this process may use.

        Raises ToolError when the network cannot be built or run here.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.experiments.ceiling.network_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            preexec_fn=dies_with_us(),
        )  # fmt: skip
        asked = {
            "model": str(model), "weights": weights, "precision": precision, "compile": compile_mode,
            "output": output, "threads": threads or usable_cores(), "gpu": nvml.count() > 0,
        }  # fmt: skip
        try:
            self.about = self._ask(asked)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """It holds nothing that has to be saved."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def images_per_s(self, batch: int, seconds: float = SECONDS, samples: int = 1) -> tuple[float, ...]:
        """Raises ToolError, as when the device's memory does not hold the batch."""
        return tuple(self._ask({"batch": batch, "seconds": seconds, "samples": samples})["images_per_s"])

    def rates(self) -> Measured:
        return Measured(**self._ask({"rates": True}))

    def _ask(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = (
            json.loads(line) if line else {"error": f"it ended with {self._process.wait()}"}
        )
        if "error" in answer:
            raise ToolError(
                f"The bare model cannot be measured here ({str(answer['error']).rstrip('.')}): "
                "it needs torch, and the weights, on this machine."
            )
        return answer


def bare(
    weights: str,
    precision: str,
    batch: int,
    seconds: float = SECONDS,
    threads: int = 0,
    *,
    samples: int = SAMPLES,
) -> tuple[float, ...]:
    """Images a second, a sample each. Raises ToolError."""
    with Process(weights, precision, threads=threads) as process:
        return process.images_per_s(batch, seconds, samples)


def measure(
    weights: str,
    axes: Mapping[str, Sequence[str]],
    batches: Sequence[int],
    *,
    seconds: float = SECONDS,
    samples: int = SAMPLES,
    threads: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Ceiling:
    """`axes`: values of precision, compile and output. One process a variant. Raises ToolError."""
    found: list[Bare] = []
    about: dict[str, Any] = {}
    rates: dict[str, Measured] = {}
    for precision, mode, output in itertools.product(*(axes[name] for name in AXES)):
        with Process(weights, precision, compile_mode=mode, output=output, threads=threads) as process:
            about = process.about
            rates[precision] = process.rates().best(rates.get(precision))
            for batch in batches:
                say(f"bare model: {precision}, compile {mode}, {output}, batch {batch}")
                reached = process.images_per_s(batch, seconds, samples)
                found.append(
                    Bare(
                        weights=weights, precision=precision, compile=mode, output=output, batch=batch,
                        images_per_s=reached,
                    )
                )  # fmt: skip
            rates[precision] = process.rates().best(rates[precision])
    return Ceiling(
        device=about["device"], threads=about["threads"], torch=about["torch"], shape=Shape(**about["shape"]),
        rates=rates, bare=tuple(found),
    )  # fmt: skip


def before_sweep(spec: SweepSpec, repository: Repository, say: Callable[[str], None]) -> Ceiling:
    """The bare model in the variants and batches of a sweep, measured while no server runs."""
    asked, served = dict(spec.parameters), vit_variants.chosen(repository.config(spec.model))
    weights = repository.weights(spec.model)
    assert weights is not None  # A model with variants has weights, and another is refused before.
    axes = {name: asked.get(name, (served[name],)) for name in AXES}
    return measure(weights.parameter, axes, spec.batches, say=say)
