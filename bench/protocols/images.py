"""Seeded pictures, as pixels and as JPEG files: item i is the same whatever the batch."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

# Blocks of one colour have sides of so many pixels. Noise alone would make JPEG files far larger than a
# camera's.
_BLOCK = 32


def images(seed: int, count: int, height: int, width: int) -> NDArray[np.float32]:
    """float32 [count, height, width, 3] of whole numbers 0..255, no two images equal (below 2^24).

    Image i is the same whatever `count` is, so one reference serves every batch size.
    """
    return np.stack([_image(seed, number, height, width) for number in range(count)])


def _image(seed: int, number: int, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng([seed, number])
    rows, columns = -(-height // _BLOCK), -(-width // _BLOCK)
    blocks = rng.integers(16, 240, (rows, columns, 3), dtype=np.uint8)
    pixels = blocks.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[:height, :width]
    pixels = pixels + rng.integers(0, 16, pixels.shape, dtype=np.uint8)
    # Distinct by construction: the first pixel spells the image's number.
    pixels[0, 0] = (number >> 16 & 255, number >> 8 & 255, number & 255)
    return pixels.astype(np.float32)


def jpegs(seed: int, count: int, height: int, width: int) -> list[bytes]:
    """The seeded images as files, about what a camera's file of that size weighs."""
    return [jpeg(pixels) for pixels in images(seed, count, height, width)]


def jpeg(pixels: NDArray[np.float32]) -> bytes:
    """[height, width, 3] of whole numbers 0..255."""
    from PIL import Image  # only for models that decode images themselves

    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def decoded_images(seed: int, count: int, height: int, width: int) -> NDArray[np.float32]:
    """What is in those files: `images` less what JPEG loses."""
    from PIL import Image

    opened = [Image.open(io.BytesIO(file)) for file in jpegs(seed, count, height, width)]
    return np.stack([np.asarray(each.convert("RGB"), dtype=np.float32) for each in opened])
