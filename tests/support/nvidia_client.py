"""One request with NVIDIA's own client: independent of the clients under test."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.http as client
from numpy.typing import NDArray

from bench.core.target import Target


def ask(target: Target, model: str, **inputs: NDArray[Any]) -> NDArray[Any]:
    """The first output. Raises InferenceServerException with the server's message."""
    tensors = []
    for name, array in inputs.items():
        tensor = client.InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array.astype(np.float32))
        tensors.append(tensor)
    with client.InferenceServerClient(
        target.http_url.removeprefix("http://"), network_timeout=60.0, connection_timeout=60.0
    ) as connection:
        answer = connection.infer(model, tensors)
        found: NDArray[Any] = answer.as_numpy(answer.get_response()["outputs"][0]["name"])
    return found
