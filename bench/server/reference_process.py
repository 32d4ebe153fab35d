"""Right answers of the ViT, computed without Triton, by transformers' own model and image processor.

A program of its own, since the client must not import torch:

    python -m bench.server.reference_process WEIGHTS IMAGES.npy OUT.npz
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.paths import MODEL_REPOSITORY
from bench.core.scratch import folder as temporary_folder

_MODEL_FOLDER = MODEL_REPOSITORY / "python_vit" / "1"


def last_hidden_state(weights: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, H, W, 3] of whole numbers 0..255 -> [n, 197, hidden]."""
    return outputs(weights, images)["last_hidden_state"]


def outputs(weights: str, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """As `last_hidden_state`, one image at a time in fp32; and `pooler_output` [n, hidden] where the weights
    have a pooler.

    Raises RuntimeError when the weights are not to be had.
    """
    import torch
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    model = _model(weights)
    known = (Path(weights) / "preprocessor_config.json").exists()
    processor = ViTImageProcessorPil.from_pretrained(weights) if known else ViTImageProcessorPil()
    states, pooled = [], []
    with torch.inference_mode():
        for image in images:
            prepared = processor(
                images=[image.astype(np.uint8)], return_tensors="pt", input_data_format="channels_last"
            )
            answer = model(**prepared)
            states.append(answer.last_hidden_state[0].numpy())
            pooled += [] if answer.pooler_output is None else [answer.pooler_output[0].numpy()]
    found = {"last_hidden_state": np.stack(states)}
    return {**found, "pooler_output": np.stack(pooled)} if pooled else found


def _model(weights: str) -> Any:
    from transformers.models.vit import ViTModel

    if not weights.startswith("random:"):
        return _loaded(ViTModel, weights)
    with temporary_folder() as folder:
        write_snapshot(weights, folder)
        return _loaded(ViTModel, str(folder))


def _loaded(kind: Any, source: str) -> Any:
    """With its pooler where the weights have one: transformers makes up what is missing."""
    model, known = kind.from_pretrained(source, add_pooling_layer=True, output_loading_info=True)
    if any("pooler" in name for name in known["missing_keys"]):
        model = kind.from_pretrained(source, add_pooling_layer=False)
    return model.eval()


def write_snapshot(weights: str, folder: Path) -> None:
    """Random weights as a Hugging Face snapshot, so that transformers reads them its own way."""
    from safetensors.torch import save_file

    sys.path.insert(0, str(_MODEL_FOLDER))
    vit = importlib.import_module("vit")
    sizes, state = vit.random_weights(weights)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **sizes}))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    weights, images, out = sys.argv[1:]
    found = outputs(weights, np.load(images))
    np.savez(out, **found)  # type: ignore[arg-type]  # numpy's stub takes every keyword for a flag


if __name__ == "__main__":
    main()
