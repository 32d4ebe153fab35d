"""What the hardware allows at most: arithmetic of a ViT from its shapes, and peak rates of GPUs.

Rates are the maker's for dense products. Where a data sheet prints them with sparsity (its footnote: all of
Ada, Hopper and Blackwell but L40S and L40, which print both), half of that is here: L4's 242 TFLOPS are 121.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bench.analysis.capacity_models import roofline_per_s

ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
# An answer's numbers are fp32, whatever the network computes in: four bytes each.
_OUTPUT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a ViT encoder; what its arithmetic depends on."""

    hidden: int
    intermediate: int
    layers: int
    tokens: int  # patches, and the class token
    patch_inputs: int  # numbers in a patch: 16 * 16 * 3
    parameters: int  # numbers in all weights

    @property
    def flop_per_image(self) -> float:
        """Multiplications and additions of one forward pass; norms, softmax and GELU left out (below 1 %).

        ViT-B/16: 35.1e9.
        """
        patches = 2 * (self.tokens - 1) * self.patch_inputs * self.hidden
        weights = 4 * self.hidden * self.hidden + 2 * self.hidden * self.intermediate
        attention = 4 * self.tokens * self.tokens * self.hidden  # Q K^T, and what it weighs V with
        return float(patches + self.layers * (2 * self.tokens * weights + attention))

    def bytes_per_image(self, *, pooled: bool) -> float:
        """The least that must move: pixels in (fp32), the answer out. Activations may stay in caches."""
        pixels = (self.tokens - 1) * self.patch_inputs * 4
        return float(pixels + _OUTPUT_BYTES * self.hidden * (1 if pooled else self.tokens))


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one device. A precision that is not there cannot be computed in, or has no published rate."""

    name: str
    flop_per_s: Mapping[str, float]
    bytes_per_s: float
    source: str


def _peak(name: str, half: float, tf32: float | None, fp32: float, terabytes: float, source: str) -> Peak:
    """Rates in TFLOP/s. bf16 runs as fast as fp16 wherever there is TF32: both came with Ampere."""
    rates = {"fp16": half * 1e12, "fp32": fp32 * 1e12}
    if tf32 is not None:
        rates |= {"bf16": half * 1e12, "tf32": tf32 * 1e12}
    return Peak(name, rates, terabytes * 1e12, source)


_NVIDIA = "https://www.nvidia.com/en-us/data-center"
_B200 = f"NVIDIA HGX B200 data sheet, one GPU, halved for sparsity: {_NVIDIA}/hgx"
_H200 = f"NVIDIA H200 data sheet, halved for sparsity: {_NVIDIA}/h200"
_H100 = f"NVIDIA H100 data sheet, halved for sparsity: {_NVIDIA}/h100"
_A100 = f"NVIDIA A100 data sheet: {_NVIDIA}/a100"

# A pattern of the name NVML gives, the more special first.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    (r"\bB200", _peak("B200", 2250, 1100, 75, 7.7, _B200)),
    (r"\bH200 NVL", _peak("H200 NVL", 835.5, 417.5, 60, 4.8, _H200)),
    (r"\bH200", _peak("H200", 989.5, 494.5, 67, 4.8, _H200)),
    (r"H100 NVL", _peak("H100 NVL", 835.5, 417.5, 60, 3.9, _H100)),
    (r"H100 PCIe", _peak("H100 PCIe", 756, 378, 51, 2.0, _H100)),
    (r"H100", _peak("H100", 989.5, 494.5, 67, 3.35, _H100)),
    (
        r"A100(?=.*PCI[Ee])(?=.*40GB)",
        _peak("A100 PCIe 40GB", 312, 156, 19.5, 1.555, _A100),
    ),
    (
        r"A100(?=.*PCI[Ee])(?=.*80GB)",
        _peak("A100 PCIe 80GB", 312, 156, 19.5, 1.935, _A100),
    ),
    (r"A100.*40GB", _peak("A100 SXM 40GB", 312, 156, 19.5, 1.555, _A100)),
    (r"A100.*80GB", _peak("A100 SXM 80GB", 312, 156, 19.5, 2.039, _A100)),
    (r"\bA10\b", _peak("A10", 125, 62.5, 31.2, 0.6, f"NVIDIA A10 data sheet: {_NVIDIA}/products/a10-gpu")),
    (
        r"L40S",
        _peak("L40S", 362.05, 183, 91.6, 0.864, f"NVIDIA L40S data sheet, without sparsity: {_NVIDIA}/l40s"),
    ),
    (
        r"\bL40\b",
        _peak("L40", 181.05, 90.5, 90.5, 0.864, f"NVIDIA L40 data sheet, without sparsity: {_NVIDIA}/l40"),
    ),
    (r"\bL4\b", _peak("L4", 121, 60, 30.3, 0.3, f"NVIDIA L4 data sheet, halved for sparsity: {_NVIDIA}/l4")),
    (r"V100.*SXM2", _peak("V100 SXM2", 125, None, 15.7, 0.9, f"NVIDIA V100 data sheet: {_NVIDIA}/v100")),
    (r"\bT4\b", _peak("T4", 65, None, 8.1, 0.3, f"NVIDIA T4 data sheet: {_NVIDIA}/tesla-t4")),
)


def peak_of(device: str) -> Peak | None:
    """Of a device as NVML and torch name it; None for one that is not in the table, as every CPU.

    A MIG instance, a part of a card, has the card's name and not its rates.
    """
    if "MIG" in device:
        return None
    return next((peak for pattern, peak in _PEAKS if re.search(pattern, device)), None)


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates that this device was seen to reach, in one precision: no bound, but no data sheet either."""

    flop_per_s: float
    bytes_per_s: float

    def best(self, other: Measured | None) -> Measured:
        """The higher of each."""
        if other is None:
            return self
        return Measured(max(self.flop_per_s, other.flop_per_s), max(self.bytes_per_s, other.bytes_per_s))


def limit_per_s(
    shape: Shape, precision: str, batch: int, rates: Peak | Measured, *, pooled: bool
) -> float | None:
    """Images a second by the roofline; None where the rate for that precision is not known."""
    flop_per_s = rates.flop_per_s.get(precision) if isinstance(rates, Peak) else rates.flop_per_s
    if not flop_per_s or rates.bytes_per_s <= 0:
        return None
    return roofline_per_s(
        batch=batch,
        flop_per_item=shape.flop_per_image,
        bytes_per_item=shape.bytes_per_image(pooled=pooled),
        weight_bytes=shape.parameters * ITEM_BYTES[precision],
        peak_flop_per_s=flop_per_s,
        peak_bytes_per_s=rates.bytes_per_s,
    )
