"""Where right answers come from: computed once per run without Triton, for the first items of the payload."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core import vit_variants
from bench.core.child import dies_with_us
from bench.core.files import write_bytes
from bench.core.trial import Reference, Served
from bench.protocols import images as pictures
from bench.protocols import payload
from bench.server import model_config
from bench.server.embedded import cache_folder

# Items of a batch that have a reference; answers are compared on these. 8 of ViT-base take 3 s of CPU.
ITEMS = 8
PAYLOAD_SEED = 0
_PROCESS = "bench.server.reference_process"
_TIMEOUT_S = 600.0
# How far a right answer may be off: fp32 differs by kernels and batch shapes, half precision by rounding.
# Relative and absolute, a value; and the L2 distance of an item, since rounding spreads over a tensor: bf16
# is 0.009 (tiny) to 0.011 (base) away, another image's answer more than 1.
_TOLERANCES: Mapping[str, tuple[float, float, float | None]] = {
    "bf16": (5e-2, 3e-1, 2e-2),
    "fp16": (2e-2, 5e-2, 2e-2),
    "tf32": (2e-2, 5e-2, 1e-2),
}
_FP32 = (1e-3, 1e-3, None)


def refer(served: Served, height: int, width: int, folder: Path) -> Served:
    """`served` with its reference, where one can be had; the same otherwise, and checks say so."""
    model = str(served.metadata.get("name", ""))
    found = _answers(model, served, height, width)
    if found is None:
        return served
    answers, origin = found
    folder.mkdir(parents=True, exist_ok=True)
    variant = "".join(f"-{value}" for value in vit_variants.chosen(served.config).values())
    path = folder / f"{model}-{height}x{width}{variant}.npz"
    write_bytes(path, _archive(answers))
    parameters = model_config.served(served.config).parameters
    relative, absolute, distance = _TOLERANCES.get(parameters.get("precision", ""), _FP32)
    return replace(served, reference=Reference(str(path), origin, relative, absolute, distance))


def _archive(answers: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **answers)  # type: ignore[arg-type]  # numpy's stub takes every keyword for a flag
    return file.getvalue()


def _answers(
    model: str, served: Served, height: int, width: int
) -> tuple[Mapping[str, NDArray[Any]], str] | None:
    """Output name -> array [items, ...], and where it comes from in a sentence."""
    if model == "python_vit":
        return _vit(served, height, width)
    inputs = payload.for_model(
        served.metadata, served.max_batch, min(ITEMS, max(1, served.max_batch)),
        seed=PAYLOAD_SEED, image_height=height, image_width=width,
    )  # fmt: skip
    if model in ("null_small", "delay", "faulty"):
        x = np.frombuffer(inputs[0].data, np.float32).reshape(inputs[0].shape)
        return {"y": x}, "the model answers with its input"
    if model == "null_vit":
        pattern = np.arange(1, ITEMS + 1, dtype=np.float32).reshape(-1, 1, 1)
        return {
            "last_hidden_state": np.broadcast_to(pattern, (ITEMS, 197, 768))
        }, "every value of item i is i + 1"
    return None


def _vit(served: Served, height: int, width: int) -> tuple[Mapping[str, NDArray[Any]], str] | None:
    weights = model_config.served(served.config).parameters.get("weights", "")
    is_encoded = vit_variants.chosen(served.config).get("wire") == vit_variants.Wire.JPEG
    images = (pictures.decoded_images if is_encoded else pictures.images)(PAYLOAD_SEED, ITEMS, height, width)
    found = _run_reference(weights, images)
    if found is None:
        return None
    names = {str(output["name"]) for output in served.metadata["outputs"]}
    pixels = "fp32 on the decoded JPEGs" if is_encoded else "fp32"
    answers = {name: array for name, array in found.items() if name in names}
    return answers, f"transformers' ViTModel in {pixels}, weights {weights}"


def _run_reference(weights: str, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]] | None:
    """In a process of its own: torch stays out of this one. None where it cannot be computed here."""
    name = hashlib.sha256(weights.encode() + images.tobytes()).hexdigest()[:24]
    folder = cache_folder() / "reference"
    path = folder / f"{name}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source, part = folder / f".{name}.in.npy", folder / f".{name}.part.npz"
        np.save(source, images)
        try:
            command = [sys.executable, "-m", _PROCESS, weights, str(source), str(part)]
            subprocess.run(
                command, check=True, capture_output=True, timeout=_TIMEOUT_S, preexec_fn=dies_with_us()
            )
            part.replace(path)
        except (OSError, subprocess.SubprocessError):
            return None  # no torch here, or weights only the server has: the trial says "not compared"
        finally:
            source.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
    with np.load(path) as archive:
        return {output: archive[output] for output in archive.files}
