"""Images as ViTImageProcessor prepares them, batched, on the device they are on.

Resizing gives the very bytes Pillow gives (bilinear with antialiasing on uint8): its fixed-point sums,
horizontal first, rounded to uint8 between the two passes. Source: Pillow, libImaging/Resample.c.
"""

import functools

import torch

SIDE = 224
_BITS = 32 - 8 - 2  # of Pillow's fixed-point coefficients


def prepare(images):
    """[n, H, W, 3] of 0..255 -> [n, 224, 224, 3] float32 of -1..1."""
    images = images.float()
    if images.shape[1:3] != (SIDE, SIDE):
        images = resize(images.round().clamp_(0, 255))
    return images * (1 / 127.5) - 1  # (x / 255 - mean) / deviation, both 0.5


def resize(images):
    """[n, H, W, 3] of whole numbers, as floats -> [n, 224, 224, 3]."""
    across = _pass(images, 2)
    return _pass(across, 1)


def _pass(images, axis):
    taps, weights = _coefficients(images.shape[axis], SIDE, images.device)
    if taps is None:
        return images
    moved = images.movedim(axis, -1)
    # float64 holds the fixed-point sums exactly: 8 bits of pixel, 22 of weight, a few of taps
    sums = (moved[..., taps].double() * weights).sum(-1) + (1 << (_BITS - 1))
    return (sums / (1 << _BITS)).floor_().clamp_(0, 255).float().movedim(-1, axis)


@functools.lru_cache(maxsize=64)
def _coefficients(source, target, device):
    """Which source pixels make each target pixel, and Pillow's integer weights for them: [target, taps]."""
    if source == target:
        return None, None
    scale = source / target
    support = max(scale, 1.0)
    rows, weights = [], []
    for i in range(target):
        center = (i + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), source)
        raw = [max(0.0, 1 - abs((x - center + 0.5) / support)) for x in range(first, last)]
        total = sum(raw)
        rows.append(list(range(first, last)))
        weights.append([int(0.5 + value / total * (1 << _BITS)) for value in raw])
    taps = max(map(len, rows))
    padded_rows = [row + [row[-1]] * (taps - len(row)) for row in rows]
    padded = [row + [0] * (taps - len(row)) for row in weights]
    return (
        torch.tensor(padded_rows, device=device),
        torch.tensor(padded, dtype=torch.float64, device=device),
    )
