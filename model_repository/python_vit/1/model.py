"""The ViT on Triton's Python backend: all requests of one execution in one forward pass.

Tensors come and go by DLPack: it copies less, and `pb_utils.Tensor(name, array)` of Triton 2.51 answers
with zero bytes under numpy >= 2.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
# Before torch loads OpenMP. Its threads spin at every barrier; where the load shares the cores, one that
# has lost its core makes the other spin for it: 0.22 s instead of 0.05 s an image, measured on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import triton_python_backend_utils as pb_utils
from preprocess import prepare
from vit import build

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: entry["string_value"] for name, entry in config["parameters"].items()}
        self._device = _device(args)
        _share_cores(config, self._device)
        self._dtype = _precision(parameters.get("precision", "fp32"), self._device)
        vit = _refuse(build, parameters["weights"])
        self._vit = vit.to(self._device, self._dtype)
        self._most = max(1, int(config["max_batch_size"]))
        self._check_output(config)
        self._forward(torch.zeros(1, 224, 224, 3))  # first calls are slow; nobody should measure them

    def execute(self, requests):
        inputs = [self._input(request) for request in requests]
        good = [i for i, images in enumerate(inputs) if isinstance(images, torch.Tensor)]
        answers = [
            pb_utils.InferenceResponse([], pb_utils.TritonError(wrong)) if isinstance(wrong, str) else None
            for wrong in inputs
        ]
        if good:
            states = self._forward_all([inputs[i] for i in good])
            for i, state in zip(good, states, strict=True):
                tensor = pb_utils.Tensor.from_dlpack("last_hidden_state", state)
                answers[i] = pb_utils.InferenceResponse([tensor])
        return answers

    def finalize(self):
        self._vit = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _input(self, request):
        """The request's images, or what is wrong with them: a bad image fails its own request only."""
        tensor = pb_utils.get_input_tensor_by_name(request, "image")
        images = torch.from_dlpack(tensor.to_dlpack())
        if images.ndim != 4 or images.shape[3] != 3:
            return f"image: give height x width x 3 (RGB, channels last); got {list(images.shape[1:])}"
        if 0 in images.shape:
            return f"image: an axis is empty; got {list(images.shape[1:])}"
        if not torch.isfinite(images.sum()):  # one pass; any nan or inf survives the sum
            return "image: a value is not finite; give 0 to 255"
        return images

    def _forward_all(self, inputs):
        """One pass for all; requests of several image sizes meet after resizing."""
        with torch.inference_mode():
            prepared = [prepare(images.to(self._device, non_blocking=True)) for images in inputs]
            batch = prepared[0] if len(prepared) == 1 else torch.cat(prepared)
            states = torch.cat([self._vit(part.to(self._dtype)) for part in batch.split(self._most)])
            states = states.float().cpu()
        return [part.contiguous() for part in states.split([len(images) for images in inputs])]

    def _forward(self, images):
        return self._forward_all([images])

    def _check_output(self, config):
        hidden = int(config["output"][0]["dims"][-1])
        if hidden not in (-1, self._vit.hidden):
            raise pb_utils.TritonModelException(
                f"the weights have a hidden size of {self._vit.hidden}, the configuration says {hidden}: "
                f"set dims of last_hidden_state to [197, {self._vit.hidden}]"
            )


def _device(args):
    if args["model_instance_kind"] == "GPU":
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")


def _share_cores(config, device):
    """On a CPU, instances that each use every core only wait for one another."""
    instances = sum(int(group.get("count", 1)) for group in config["instance_group"])
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, cores // instances) if device.type == "cpu" else 1)


def _precision(name, device):
    if name not in PRECISIONS:
        raise pb_utils.TritonModelException(f"precision {name!r} is unknown: {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type != "cuda":
        raise pb_utils.TritonModelException("precision tf32 needs a GPU")
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    return PRECISIONS[name]


def _refuse(function, *arguments):
    try:
        return function(*arguments)
    except RuntimeError as error:
        raise pb_utils.TritonModelException(str(error)) from error
