"""Encoded pictures to pixels, on the CPU, several at a time.

A file an item, padded with zeros to the request's longest: decoders stop at a file's end. Not a BYTES
tensor, since under numpy >= 2 the stub of Triton 2.51 dies of one before the model sees it.
"""

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from preprocess import too_large


class Decoder:
    """Pillow decodes outside the interpreter's lock, so threads share the cores of an instance."""

    def __init__(self, threads):
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def decode(self, files):
        """uint8 [n, length] -> uint8 [1, H, W, 3] each. Raises ValueError with a sentence.

        What the files claim to hold is added up before any of them is decoded.
        """
        opened = [_opened(file) for file in files]
        if reason := too_large((each.height, each.width) for each in opened):
            raise ValueError(reason)
        many = self._pool is not None and len(files) > 1
        return list(self._pool.map(_pixels, opened) if many else map(_pixels, opened))

    def close(self):
        if self._pool is not None:
            self._pool.shutdown()


def threads_of(instances):
    return max(1, min(8, len(os.sched_getaffinity(0)) // instances))


def picture(file):
    """One file's pixels. Raises ValueError with a sentence."""
    return Decoder(1).decode([file])[0]


def _opened(file):
    """Its header is read, and no more."""
    with _refused():
        return Image.open(io.BytesIO(file.numpy()), formats=("JPEG", "PNG"))


def _pixels(opened):
    with _refused(), opened:
        return torch.from_numpy(np.array(opened.convert("RGB")))[None]


@contextlib.contextmanager
def _refused():
    try:
        yield
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("image: no JPEG or PNG that can be decoded; give a whole file an item") from error
