"""What the hardware allows at most: arithmetic of a ViT from its shapes, and peak rates of GPUs.

Rates are the makers' for dense products, without sparsity, which data sheets often print doubled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bench.capacity import roofline_per_s

ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
_OUTPUT_BYTES = 4  # answers are fp32, whatever the network computes in


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


# A pattern of the name NVML gives, the more special first. Sources: NVIDIA's data sheet of each product.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    (r"B200", _peak("B200", 2250, 1125, 75, 7.7, "NVIDIA HGX B200 data sheet, an eighth of it, dense")),
    (r"H200 NVL", _peak("H200 NVL", 835, 417, 60, 4.8, "NVIDIA H200 data sheet, dense")),
    (r"H200", _peak("H200", 989, 494, 67, 4.8, "NVIDIA H200 data sheet, dense")),
    (r"H100 NVL", _peak("H100 NVL", 835, 417, 60, 3.9, "NVIDIA H100 data sheet, dense")),
    (r"H100 PCIe", _peak("H100 PCIe", 756, 378, 51, 2.0, "NVIDIA H100 data sheet, dense")),
    (r"H100", _peak("H100", 989, 494, 67, 3.35, "NVIDIA H100 data sheet, dense")),
    (
        r"A100(?=.*PCI[Ee])(?=.*40GB)",
        _peak("A100 PCIe 40GB", 312, 156, 19.5, 1.555, "NVIDIA A100 data sheet"),
    ),
    (
        r"A100(?=.*PCI[Ee])(?=.*80GB)",
        _peak("A100 PCIe 80GB", 312, 156, 19.5, 1.935, "NVIDIA A100 data sheet"),
    ),
    (r"A100.*40GB", _peak("A100 SXM 40GB", 312, 156, 19.5, 1.555, "NVIDIA A100 data sheet")),
    (r"A100.*80GB", _peak("A100 SXM 80GB", 312, 156, 19.5, 2.039, "NVIDIA A100 data sheet")),
    (r"\bA10\b", _peak("A10", 125, 62.5, 31.2, 0.6, "NVIDIA A10 data sheet")),
    (r"L40S", _peak("L40S", 362, 183, 91.6, 0.864, "NVIDIA L40S data sheet, dense")),
    (r"\bL40\b", _peak("L40", 181, 90.5, 90.5, 0.864, "NVIDIA L40 data sheet, dense")),
    (r"\bL4\b", _peak("L4", 121, 60, 30.3, 0.3, "NVIDIA L4 data sheet, dense")),
    (r"V100.*SXM2", _peak("V100 SXM2", 125, None, 15.7, 0.9, "NVIDIA V100 data sheet")),
    (r"\bT4\b", _peak("T4", 65, None, 8.1, 0.3, "NVIDIA T4 data sheet")),
)


def peak_of(device: str) -> Peak | None:
    """Of a device as NVML and torch name it; None for one that is not in the table, as every CPU."""
    return next((peak for pattern, peak in _PEAKS if re.search(pattern, device)), None)


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates that this device was seen to reach, in one precision: no bound, but no data sheet either."""

    flop_per_s: float
    bytes_per_s: float


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
