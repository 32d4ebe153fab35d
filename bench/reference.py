"""Right answers of the ViT, computed without Triton, by transformers' own model and image processor.

A program of its own, since the client must not import torch:

    python -m bench.reference WEIGHTS IMAGES.npy OUT.npy
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MODEL_FOLDER = Path(__file__).parents[1] / "model_repository" / "python_vit" / "1"


def last_hidden_state(weights: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, H, W, 3] of whole numbers 0..255 -> [n, 197, hidden], in fp32, one image at a time.

    Raises RuntimeError when the weights are not to be had.
    """
    import torch
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    model = _model(weights)
    known = (Path(weights) / "preprocessor_config.json").exists()
    processor = ViTImageProcessorPil.from_pretrained(weights) if known else ViTImageProcessorPil()
    found = []
    with torch.inference_mode():
        for image in images:
            prepared = processor(
                images=[image.astype(np.uint8)], return_tensors="pt", input_data_format="channels_last"
            )
            found.append(model(**prepared).last_hidden_state[0].numpy())
    return np.stack(found)


def _model(weights: str) -> Any:
    from transformers.models.vit import ViTModel

    if not weights.startswith("random:"):
        return ViTModel.from_pretrained(weights, add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(weights, Path(folder))
        return ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()


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
    np.save(out, last_hidden_state(weights, np.load(images)))


if __name__ == "__main__":
    main()
