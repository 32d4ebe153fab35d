"""Encoded pictures to pixels, on the CPU, several at a time.

A file an item, padded with zeros to the request's longest: decoders stop at a file's end. Not a BYTES
tensor, since under numpy >= 2 the stub of Triton 2.51 dies of one before the model sees it.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

MOST_PIXELS = 1 << 26  # 8192 x 8192: a small file may claim any size


class Decoder:
    """Pillow decodes outside the interpreter's lock, so threads share the cores of an instance."""

    def __init__(self, threads):
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def decode(self, files):
        """uint8 [n, length] -> uint8 [1, H, W, 3] each. Raises ValueError with a sentence."""
        many = self._pool is not None and len(files) > 1
        return list(self._pool.map(picture, files) if many else map(picture, files))

    def close(self):
        if self._pool is not None:
            self._pool.shutdown()


def threads_of(instances):
    return max(1, min(8, len(os.sched_getaffinity(0)) // instances))


def picture(file):
    try:
        with Image.open(io.BytesIO(file.numpy()), formats=("JPEG", "PNG")) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"image: {opened.width} x {opened.height} pixels are too many")
            pixels = np.array(opened.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("image: no JPEG or PNG that can be decoded; give a whole file an item") from error
    return torch.from_numpy(pixels)[None]
