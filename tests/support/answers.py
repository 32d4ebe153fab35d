"""Answers as Triton sends them, over each protocol."""

from __future__ import annotations

import json

from tritonclient.grpc import service_pb2

from bench.core.cell import Protocol

Tensor = tuple[str, str, tuple[int, ...], bytes]  # name, datatype, shape, bytes


def answer_of(protocol: Protocol, *outputs: Tensor) -> tuple[memoryview, int]:
    """An answer as Triton sends it: body and head length."""
    if protocol is Protocol.GRPC:
        message = service_pb2.ModelInferResponse(model_name="m", model_version="1")
        for name, datatype, shape, data in outputs:
            message.outputs.add(name=name, datatype=datatype, shape=shape)
            message.raw_output_contents.append(data)
        return memoryview(message.SerializeToString()), 0
    described = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in outputs
    ]
    head = json.dumps({"model_name": "m", "outputs": described}).encode()
    return memoryview(head + b"".join(data for *_, data in outputs)), len(head)
