"""Images as ViTImageProcessor prepares them, batched, on the device they are on.

Resizing gives the very bytes Pillow 13 gives (bilinear with antialiasing on uint8): its fixed-point sums,
rounded to whole numbers between the two passes, in its order. Source: Pillow, libImaging/Resample.c.
"""

import collections

import torch

SIDE = 224
_BITS = 32 - 8 - 2  # of Pillow's fixed-point coefficients
# The images of one request may have so many pixels together (8192 x 8192), since a small file may claim any
# size; and no side of one may be longer than this, since each pixel of a side has its weights.
MOST_PIXELS, LONGEST_SIDE = 1 << 26, 1 << 16
# Weights of so many bytes are kept for the next images of the same size.
_KEPT_BYTES = 32 << 20


def too_large(sizes):
    """Why images of these (height, width) are too large for one request; "" where they are not."""
    pixels = 0
    for height, width in sizes:
        if max(height, width) > LONGEST_SIDE:
            return f"image: {width} x {height} pixels; no side may have more than {LONGEST_SIDE}"
        pixels += height * width
    if pixels > MOST_PIXELS:
        return f"image: {pixels} pixels in one request are too many; at most {MOST_PIXELS}: send fewer images"
    return ""


def prepare(images):
    """[n, H, W, 3] of 0..255 -> [n, 224, 224, 3] float32 of -1..1."""
    return normalised(squared(images))


def normalised(images):
    """(x / 255 - mean) / deviation, both 0.5."""
    return images.float().mul_(1 / 127.5).sub_(1) if images.dtype == torch.uint8 else images * (1 / 127.5) - 1


def squared(images):
    """[n, H, W, 3] of 0..255 -> [n, 224, 224, 3], float32 or uint8. An image that is not finite stays so."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    if images.dtype == torch.uint8:
        return resize(images)
    poison = images.sum((1, 2, 3), keepdim=True).mul_(0)  # nan where any value is nan or inf
    return resize(images.round().clamp_(0, 255)).add_(poison)


def resize(images):
    """[n, H, W, 3] of whole numbers 0..255, of any type -> float32 [n, 224, 224, 3]."""
    images = images.int()
    if _is_vertical_first(*images.shape[1:3]):
        return _across(_pass(images)).float()
    return _pass(_across(images)).float()


def _is_vertical_first(height, width):
    """Pillow 13's rule: the height shrinks by more than twice what the width does (python-pillow #9549).

    Older ones always begin across; single values then differ by one.
    """
    return height - SIDE > 2 * max(width - SIDE, 0)


def _across(images):
    """Resize the width; transposed, so that whole rows are copied."""
    return _pass(images.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()


def _pass(images):
    """Resize axis 1. int32 holds every sum: pixels below 2^8, weights that add up to 2^22."""
    taps = _coefficients(images.shape[1], SIDE, images.device)
    if taps is None:
        return images
    sums = 1 << (_BITS - 1)
    for source, weight in taps:
        sums = images.index_select(1, source).mul_(weight.view(-1, 1, 1)).add_(sums)
    return sums.bitwise_right_shift_(_BITS)


class _Recent:
    """What a function returned for the arguments it was last called with, as far as its tensors fit."""

    def __init__(self, function, most_bytes):
        self._function, self._most_bytes = function, most_bytes
        self._known = collections.OrderedDict()
        self.bytes = 0

    def __call__(self, *arguments):
        if arguments not in self._known:
            self._known[arguments] = found = self._function(*arguments)
            self.bytes += _bytes(found)
            while self.bytes > self._most_bytes and len(self._known) > 1:
                self.bytes -= _bytes(self._known.popitem(last=False)[1])
        self._known.move_to_end(arguments)
        return self._known[arguments]


def _bytes(taps):
    return sum(part.nbytes for tap in taps or () for part in tap)


def _weighted(source, target, device):
    """Per tap: which source index each target index takes, and Pillow's integer weight for it."""
    if source == target:
        return None
    scale = source / target
    support = max(scale, 1.0)
    inverse = 1 / support  # multiplied, as Pillow does: dividing rounds otherwise
    rows, weights = [], []
    for i in range(target):
        center = (i + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), source)
        raw = [max(0.0, 1 - abs((x - center + 0.5) * inverse)) for x in range(first, last)]
        total = sum(raw)
        rows.append(range(first, last))
        weights.append([int(0.5 + value / total * (1 << _BITS)) for value in raw])
    # Where a target has fewer taps, the rest take its last one with weight 0.
    most = max(map(len, rows))
    padded_rows = [[*row, *[row[-1]] * (most - len(row))] for row in rows]
    padded_weights = [[*row, *[0] * (most - len(row))] for row in weights]
    sources = torch.tensor(padded_rows, device=device).T.contiguous()
    parts = torch.tensor(padded_weights, dtype=torch.int32, device=device).T.contiguous()
    return tuple(zip(sources, parts, strict=True))


_coefficients = _Recent(_weighted, _KEPT_BYTES)
