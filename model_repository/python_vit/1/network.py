"""The network as a variant runs it: pixels on the device in, fp32 outputs out.

With torch.compile the twelve layers share one compilation, since they are one code with other weights:
a twelfth of the time. On a GPU a CUDA graph a bucket replays the pass without Python in it.
"""

import locale

import torch
from preprocess import normalised

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODES = {"none": None, "default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
OUTPUTS = {
    "last_hidden_state": ("last_hidden_state",),
    "pooler_output": ("pooler_output",),
    "both": ("last_hidden_state", "pooler_output"),
}


class Network:
    """[n, 224, 224, 3] of 0..255, uint8 or float32 -> one float32 tensor an output."""

    def __init__(self, vit, precision, mode, output, device):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self._dtype = PRECISIONS[precision]
        self._vit = vit.to(device, self._dtype)
        self.names = OUTPUTS[output]
        if MODES[mode] is not None:
            _compile(self._vit, MODES[mode], device)

    def __call__(self, pixels):
        states = self._vit(normalised(pixels).to(self._dtype))
        answers = {"last_hidden_state": lambda: states, "pooler_output": lambda: self._vit.pooled(states)}
        return [answers[name]().float() for name in self.names]

    def shape(self, name):
        """Of one item."""
        tokens = self._vit.positions.shape[1]
        return (self._vit.hidden,) if name == "pooler_output" else (tokens, self._vit.hidden)


def _compile(vit, mode, device):
    """GPU: a kernel set a bucket, the shapes known. CPU: one for all batches, which are run as they come."""
    import torch._dynamo.config as dynamo

    # Triton's Python starts in the C locale, where torch cannot read its own templates.
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    for name in ("recompile_limit", "cache_size_limit"):  # as newer and older torch call it
        if hasattr(dynamo, name):
            setattr(dynamo, name, 64)
    for layer in vit.layers:
        layer.compile(mode=mode, dynamic=device.type == "cpu")


def buckets(most):
    """1, 2, 4... and `most`."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return [*powers, most]


class Captured:
    """A network as CUDA graphs, one a bucket. All read the first images of one buffer.

    Padding is whatever the buffer held before: items of a batch do not touch one another.
    """

    def __init__(self, network, pixels, stream):
        self._graphs = {}
        pool = None
        for size in reversed(buckets(len(pixels))):  # the largest first: the others fit its memory
            for _ in range(3):  # compiles, tunes, and lets libraries allocate
                network(pixels[:size])
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                outputs = network(pixels[:size])
            pool = pool or graph.pool()
            self._graphs[size] = graph, outputs

    def __call__(self, pixels):
        size = min(size for size in self._graphs if size >= len(pixels))
        graph, outputs = self._graphs[size]
        graph.replay()
        return [output[: len(pixels)] for output in outputs]


def warm_up(network, pixels):
    """First calls are slow, and nobody should measure them.

    On a GPU every bucket; on a CPU one image, and two where compiling tells one from several.
    """
    sizes = buckets(len(pixels)) if pixels.is_cuda else [1, 2]
    for size in sizes:
        network(pixels[: min(size, len(pixels))])
