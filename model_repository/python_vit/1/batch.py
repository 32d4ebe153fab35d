"""From requests to one batch on the device, and from its outputs to answers: each byte copied once a side.

On a GPU through pinned memory, allocated once: one move there, one back. On a CPU a request that is alone
and has the network's size is not copied at all.
"""

import itertools

import torch
from preprocess import SIDE, squared


class Batch:
    """`pixels`: the device's input, [most, 224, 224, 3] of `dtype`."""

    def __init__(self, most, dtype, device):
        self._on_gpu = device.type == "cuda"
        # On a CPU, memory of no use until the first batch of several requests touches it.
        self.pixels = torch.empty(most, SIDE, SIDE, 3, dtype=dtype, device=device)
        self._staging = self.pixels
        if self._on_gpu:
            self.pixels.zero_()
            self._staging = torch.empty(self.pixels.numel(), dtype=dtype, pin_memory=True)

    def fill(self, images):
        """A list of [k, H, W, 3] of several sizes -> their [n, 224, 224, 3] on the device.

        On a GPU the copies are on their way when this returns.
        """
        if not self._on_gpu and len(images) == 1:
            return squared(images[0])
        at = 0
        self._make_room(images)
        for _, same in itertools.groupby(images, key=lambda each: each.shape[1:]):
            at = self._add(list(same), at)
        return self.pixels[:at]

    def _add(self, images, at):
        """Images of one size, into `pixels` from `at`; returns where they end."""
        end = at + sum(map(len, images))
        into = self.pixels[at:end]
        if self._on_gpu:
            together = self._staged(images)
            if together.shape == into.shape:
                into.copy_(together, non_blocking=True)
            else:
                into.copy_(squared(together.to(into.device, non_blocking=True)))
            return end
        for each in images:
            self.pixels[at : at + len(each)].copy_(squared(each))
            at += len(each)
        return end

    def _make_room(self, images):
        self._used = 0
        needed = sum(each.numel() for each in images)
        if self._on_gpu and needed > self._staging.numel():
            self._staging = torch.empty(needed, dtype=self.pixels.dtype, pin_memory=True)

    def _staged(self, images):
        """Side by side in pinned memory; nothing there is still being read: each batch waits for its end."""
        count, size = sum(map(len, images)), images[0].shape[1:]
        length = count * size.numel()
        staged = self._staging[self._used : self._used + length].view(count, *size)
        self._used += length
        torch.cat(images, out=staged)
        return staged


class Answers:
    """The outputs in memory that Triton can read. A GPU's come in one copy each, to pinned memory."""

    def __init__(self, most, shapes, device):
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._pinned = [
            torch.empty(most, *shape, pin_memory=True) for shape in shapes if self._stream is not None
        ]

    def fetch(self, outputs):
        """Valid until the next call."""
        if self._stream is None:
            return outputs
        fetched = [into[: len(output)] for into, output in zip(self._pinned, outputs, strict=True)]
        for into, output in zip(fetched, outputs, strict=True):
            into.copy_(output, non_blocking=True)
        self._stream.synchronize()
        return fetched


def unusable(outputs, sizes):
    """Per request whether any of its answers is not finite: then so was its image.

    Attention brings what is not finite to every token, so the first one tells.
    """
    first = outputs[0] if outputs[0].ndim == 2 else outputs[0][:, 0]
    return [not finite for finite in map(_is_finite, first.split(sizes))]


def _is_finite(values):
    return bool(torch.isfinite(values.sum()))
