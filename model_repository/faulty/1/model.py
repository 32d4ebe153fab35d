"""Wrong on purpose: proves that the suite sees each kind of wrong answer."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self._mode = parameters["mode"]["string_value"]
        fraction = float(parameters["fraction"]["string_value"])
        self._every = round(1 / fraction) if fraction else 0
        self._requests = 0
        if self._mode not in ("empty", "wrong_shape", "wrong_values", "nan", "error"):
            raise pb_utils.TritonModelException(f"mode {self._mode!r} is unknown")

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self._requests += 1
        x = pb_utils.get_input_tensor_by_name(request, "x")
        if not self._every or self._requests % self._every:
            return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", x)])
        if self._mode == "error":
            return pb_utils.InferenceResponse([], pb_utils.TritonError("this request fails on purpose"))
        if self._mode == "empty":  # DLPack refuses a tensor of no items
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.zeros((0, 16), np.float32))])
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", self._wrong(x.shape()))])

    def _wrong(self, shape):
        if self._mode == "wrong_shape":
            return np.zeros((shape[0], shape[1] // 2), np.float32)
        return np.full(shape, np.nan if self._mode == "nan" else -1, np.float32)
