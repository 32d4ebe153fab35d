"""The ViT as an example serves it that makes no effort: what ours is measured against.

One request after another; transformers' image processor on the CPU; numpy in between. Written for this
benchmark after the behaviour of T9k's `triton-python` example; a request's images go through one pass,
where the example fails for more than one image.
"""

import json
import tempfile
from pathlib import Path

import torch
import triton_python_backend_utils as pb_utils
from transformers.models.vit import ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from bench.server.reference_process import write_snapshot


class TritonPythonModel:
    def initialize(self, args):
        weights = json.loads(args["model_config"])["parameters"]["weights"]["string_value"]
        self._processor = ViTImageProcessorPil()
        with tempfile.TemporaryDirectory() as folder:
            if weights.startswith("random:"):
                write_snapshot(weights, Path(folder))
                weights = folder
            self._model = ViTModel.from_pretrained(weights).eval()

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        # By DLPack to numpy and back: Triton 2.51's own numpy arrays are wrong under numpy >= 2.
        tensor = pb_utils.get_input_tensor_by_name(request, "image")
        images = torch.from_dlpack(tensor.to_dlpack()).numpy()
        inputs = self._processor(
            images=list(images.astype("uint8")), return_tensors="pt", input_data_format="channels_last"
        )
        with torch.no_grad():
            states = self._model(**inputs).last_hidden_state.cpu().numpy()
        answer = pb_utils.Tensor.from_dlpack("last_hidden_state", torch.from_numpy(states))
        return pb_utils.InferenceResponse([answer])
