"""The ViT's shapes and nothing else: what is measured is Triton, the wire and the client."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        most = max(1, int(config["max_batch_size"]))
        shape = tuple(int(d) for d in config["output"][0]["dims"])
        items = np.arange(1, most + 1, dtype=np.float32).reshape(-1, *(1 for _ in shape))
        self._pattern = np.ascontiguousarray(np.broadcast_to(items, (most, *shape)))

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        batch = pb_utils.get_input_tensor_by_name(request, "image").shape()[0]
        tensor = pb_utils.Tensor.from_dlpack("last_hidden_state", self._pattern[:batch])
        return pb_utils.InferenceResponse([tensor])
