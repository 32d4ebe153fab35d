"""The ViT on Triton's Python backend: all requests of one execution in one forward pass.

Tensors come and go by DLPack: it copies less, and `pb_utils.Tensor(name, array)` of Triton 2.51 answers
with zero bytes under numpy >= 2.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import host  # noqa: F401  # before torch

# isort: split
import torch
import triton_python_backend_utils as pb_utils
from batch import Answers, Batch, unusable
from network import Captured, Network, warm_up
from preprocess import too_large
from settings import Settings
from torch.utils.dlpack import to_dlpack
from vit import build

_GPU_THREADS = 4  # enough to gather requests into pinned memory


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        device = _device(args)
        settings = _refuse(Settings.of, config, device.type)
        self._device = device
        _share_cores(settings.instances, device)
        self._decoder = _decoder(settings)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with self._running():
            _refuse(self._build, settings)

    def execute(self, requests):
        read = [self._read(request) for request in requests]
        good = [i for i, images in enumerate(read) if isinstance(images, list)]
        answers = [None if isinstance(images, list) else _failed(images) for images in read]
        if good:
            sizes = [sum(map(len, read[i])) for i in good]
            outputs = self._run([images for i in good for images in read[i]])
            bad = unusable(outputs, sizes)
            parts = zip(*(output.split(sizes) for output in outputs), strict=True)
            for i, is_bad, tensors in zip(good, bad, parts, strict=True):
                answers[i] = _failed(_NOT_FINITE) if is_bad else self._answer(tensors)
        return answers

    def finalize(self):
        self._network = self._batch = self._fetched = None
        if self._decoder is not None:
            self._decoder.close()
        if self._stream is not None:
            torch.cuda.empty_cache()

    def _build(self, settings):
        vit = build(settings.weights)
        settings.check(vit)
        network = Network(vit, settings.precision, settings.compile, settings.output, self._device)
        self._batch = Batch(settings.most, settings.dtype, self._device)
        self._fetched = Answers(settings.most, [network.shape(name) for name in network.names], self._device)
        self._names, self._network = network.names, network
        if self._stream is None:
            warm_up(network, torch.zeros_like(self._batch.pixels[:2]))
        elif settings.compile == "none":
            warm_up(network, self._batch.pixels)
        else:
            self._network = Captured(network, self._batch.pixels, self._stream)

    def _running(self):
        """On this instance's stream, so that instances overlap their copies and passes."""
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        if self._stream is not None:
            stack.enter_context(torch.cuda.stream(self._stream))
        return stack

    def _run(self, images):
        with self._running():
            return self._fetched.fetch(self._network(self._batch.fill(images)))

    def _read(self, request):
        """The request's images, or what is wrong with them: a bad image fails its own request only."""
        images = torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image").to_dlpack())
        if self._decoder is not None:
            try:
                return self._decoder.decode(images)
            except ValueError as error:
                return str(error)
        if images.ndim != 4 or images.shape[3] != 3:
            return f"image: give height x width x 3 (RGB, channels last); got {list(images.shape[1:])}"
        if 0 in images.shape:
            return f"image: an axis is empty; got {list(images.shape[1:])}"
        reason = too_large([images.shape[1:3]] * len(images))
        return reason or [images]

    def _answer(self, tensors):
        named = zip(self._names, tensors, strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor.from_dlpack(name, to_dlpack(tensor.contiguous())) for name, tensor in named]
        )


_NOT_FINITE = "image: a value is not finite; give 0 to 255"


def _failed(reason):
    return pb_utils.InferenceResponse([], pb_utils.TritonError(reason))


def _device(args):
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")


def _share_cores(instances, device):
    """On a CPU, instances that each use every core only wait for one another."""
    share = max(1, len(os.sched_getaffinity(0)) // instances)
    torch.set_num_threads(share if device.type == "cpu" else min(share, _GPU_THREADS))


def _decoder(settings):
    if settings.wire != "jpeg":
        return None
    from pictures import Decoder, threads_of  # Pillow, which nothing else here needs

    return Decoder(threads_of(settings.instances))


def _refuse(function, *arguments):
    try:
        return function(*arguments)
    except RuntimeError as error:  # torch.OutOfMemoryError too
        raise pb_utils.TritonModelException(str(error)) from error
