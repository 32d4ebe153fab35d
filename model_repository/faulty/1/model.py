"""Wrong on purpose: proves that the suite sees each kind of wrong answer."""

import json
import os
import signal

import numpy as np
import triton_python_backend_utils as pb_utils

# As torch 2 words them.
_NO_MEMORY = (
    "CUDA out of memory. Tried to allocate 392.00 MiB. GPU 0 has a total capacity of 139.81 GiB of which "
    "211.44 MiB is free. Process 4711 has 17.40 GiB memory in use."
)
_LOST = (
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported at some "
    "other API call, so the stacktrace below might be incorrect."
)
_ERRORS = {"error": "this request fails on purpose", "gpu_memory": _NO_MEMORY, "gpu_lost": _LOST}
_ROOM = 4  # instances that a full GPU has memory for


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self._mode = parameters["mode"]["string_value"]
        fraction = float(parameters["fraction"]["string_value"])
        self._every = round(1 / fraction) if fraction else 0
        self._requests = 0
        known = (*_ERRORS, "empty", "wrong_shape", "wrong_values", "nan", "gpu_full", "crash", "exit")
        if self._mode not in known:
            raise pb_utils.TritonModelException(f"mode {self._mode!r} is unknown")
        number = int(args["model_instance_name"].rpartition("_")[2])
        if self._mode == "gpu_full" and number >= _ROOM:
            raise pb_utils.TritonModelException(_NO_MEMORY)
        self._is_lost = False

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self._requests += 1
        x = pb_utils.get_input_tensor_by_name(request, "x")
        is_good = not self._every or self._requests % self._every or self._mode == "gpu_full"
        if is_good and not self._is_lost:
            return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", x)])
        self._is_lost = self._mode == "gpu_lost"  # and stays so until the model is loaded again
        if self._mode == "crash":  # of the server, whose child this is
            os.kill(os.getppid(), signal.SIGSEGV)
        if self._mode in ("crash", "exit"):
            os._exit(1)
        if self._mode in _ERRORS:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(_ERRORS[self._mode]))
        if self._mode == "empty":  # DLPack refuses a tensor of no items
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.zeros((0, 16), np.float32))])
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", self._wrong(x.shape()))])

    def _wrong(self, shape):
        if self._mode == "wrong_shape":
            return np.zeros((shape[0], shape[1] // 2), np.float32)
        return np.full(shape, np.nan if self._mode == "nan" else -1, np.float32)
