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
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import cattrs

from bench.analysis.roofline import Measured, Shape, limit_per_s, peak_of
from bench.analysis.stats import Interval, geometric
from bench.core.errors import RunFolderError, ToolError
from bench.core.paths import MODEL_REPOSITORY
from bench.core.run_folder import write_json
from bench.sensors import nvml
from bench.sensors.host import usable_cores

FILE = "ceiling.json"
SECONDS, SAMPLES = 1.0, 5
MODEL = MODEL_REPOSITORY / "python_vit" / "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """One variant of the network at one batch, and what it reached: a sample an element, images a second."""

    weights: str
    precision: str
    compile: str
    output: str
    batch: int
    images_per_s: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        found = geometric(self.images_per_s)
        assert found is not None  # there is a sample at least, and none is zero
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """All that was measured on one device."""

    device: str
    threads: int
    torch: str
    shape: Shape
    rates: Mapping[str, Measured] = field(default_factory=dict)  # precision -> what a large product reached
    bare: tuple[Bare, ...] = ()

    def of(self, variant: Mapping[str, str], weights: str | None, batch: int) -> Bare | None:
        """What a cell's network reached without a server; None where that was not measured.

        `weights` None: the run has one kind.
        """
        wanted = (variant.get("precision"), variant.get("compile"), variant.get("output"), batch)
        fits = (bare for bare in self.bare if weights in (None, bare.weights))
        return next((bare for bare in fits if _variant(bare)[1:] == wanted), None)

    def roofline_per_s(self, bare: Bare) -> tuple[float, str] | None:
        """Images a second at most, and by whose rates; None where none are known."""
        peak = peak_of(self.device)
        pooled = bare.output == "pooler_output"
        for rates, source in (
            (peak, peak.source if peak else ""),
            (self.rates.get(bare.precision), "measured here"),
        ):
            found = rates and limit_per_s(self.shape, bare.precision, bare.batch, rates, pooled=pooled)
            if found:
                return found, source
        return None


def _variant(bare: Bare) -> tuple[str | int, ...]:
    return bare.weights, bare.precision, bare.compile, bare.output, bare.batch


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
    names = ("precision", "compile", "output")
    found: list[Bare] = []
    about: dict[str, Any] = {}
    rates: dict[str, Measured] = {}
    for precision, mode, output in itertools.product(*(axes[name] for name in names)):
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


def write(ceiling: Ceiling, folder: Path) -> Path:
    """Into a run's folder, atomically, beside what was measured there of other variants."""
    before = read(folder)
    if before is not None and (before.device, before.shape) == (ceiling.device, ceiling.shape):
        again = {_variant(bare) for bare in ceiling.bare}
        kept = tuple(bare for bare in before.bare if _variant(bare) not in again)
        ceiling = replace(ceiling, bare=(*kept, *ceiling.bare), rates={**before.rates, **ceiling.rates})
    path = folder / FILE
    write_json(path, cattrs.unstructure(ceiling))
    return path


def read(folder: Path) -> Ceiling | None:
    """A run's ceiling; None where none was measured. Raises RunFolderError for a file that is none."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return cattrs.structure(json.loads(path.read_text()), Ceiling)
    except (OSError, ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}): remove it, or measure again.") from error
