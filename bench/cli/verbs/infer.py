"""One request, printed: the tensors that come back, their shapes, and the time it took."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from bench.cli.progress import ConsoleProgress
from bench.cli.targets import check_model, server_of
from bench.cli.values import Values
from bench.core import datatypes
from bench.core.cell import Protocol, ServerConfiguration
from bench.core.errors import EXIT_OK, TargetError, Unreachable
from bench.core.parsing import image_size
from bench.core.target import Target
from bench.core.trial import Served
from bench.protocols import images, payload
from bench.protocols.answer_parser import as_array, parse
from bench.protocols.answers import Expected, wrong_frame

Pixels = NDArray[np.float32]


def run(values: Values) -> int:
    """`bench infer`: one request, its tensors and the time."""
    image = values.mistakes.read("--image", values["picture"], picture, picture("224x224"))
    provider, model = server_of(values), values["model"]
    check_model(provider.repository, values)
    values.mistakes.check()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(ConsoleProgress())
        session = stack.enter_context(provider.open(model, progress.say, scratch / "tritonserver.log"))
        served = session.serving.configure(ServerConfiguration(model=model))
        progress.__exit__()
        protocol, timeout_s = values["one_protocol"], values["timeout"]
        return infer_once(session.target, served, protocol, image, timeout_s, as_json=values["as_json"])


def picture(text: str) -> Pixels:
    """A picture file, or HxW of a seeded image -> float32 [height, width, 3], 0 to 255."""
    try:
        path = Path(text).expanduser()
        is_there = path.exists()
    except (OSError, RuntimeError):  # a name too long for a file; a user that there is none of
        is_there = False
    if not is_there:
        try:
            height, width = image_size(text)
        except ValueError:
            raise ValueError("no such picture; give a file, or HEIGHTxWIDTH of a seeded image") from None
        seeded: Pixels = images.images(0, 1, height, width)[0]
        return seeded
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            pixels: Pixels = np.asarray(opened.convert("RGB"), dtype=np.float32)
            return pixels
    except (UnidentifiedImageError, OSError):
        raise ValueError("is no picture that Pillow can read; give a JPEG or PNG, or HEIGHTxWIDTH") from None


def infer_once(
    target: Target, served: Served, protocol: Protocol, image: Pixels, timeout_s: float, *, as_json: bool
) -> int:
    """Raises Unreachable without a connection, TargetError with the server's message."""
    tensors = _tensors(served, image)
    outputs = [str(output["name"]) for output in served.metadata["outputs"]]
    model = str(served.metadata["name"])
    send = _over_http if protocol is Protocol.HTTP else _over_grpc
    began = time.monotonic_ns()
    body, head_length = send(target, model, tensors, outputs, timeout_s)
    took_ns = time.monotonic_ns() - began
    view = memoryview(body)
    answers = parse(protocol, view, head_length)
    arrays = {a.name: as_array(a, view[a.start : a.end]) for a in answers if a.end > a.start}
    data = {a.name: view[a.start : a.end] for a in answers}
    wrong = wrong_frame(Expected.of_model(served.metadata, served.max_batch, 1), answers, data)
    if wrong:
        raise TargetError(
            f"The answer is wrong: {wrong}. Look at the model, and at numpy's version beside it."
        )
    _print(arrays, took_ns, as_json=as_json)
    return EXIT_OK


def _tensors(served: Served, image: Pixels) -> tuple[payload.Tensor, ...]:
    made = payload.for_model(
        served.metadata, served.max_batch, 1, seed=0, image_height=image.shape[0], image_width=image.shape[1]
    )
    lead = (1,) if served.max_batch else ()
    return tuple(_with_picture(tensor, image, lead) for tensor in made)


def _with_picture(tensor: payload.Tensor, image: Pixels, lead: tuple[int, ...]) -> payload.Tensor:
    if tensor.name != "image" or tensor.datatype not in ("FP32", "UINT8", "BYTES"):
        return tensor
    if tensor.datatype == "BYTES":
        file = payload.length_prefixed([images.jpeg(image)])
        return payload.Tensor(tensor.name, tensor.datatype, tensor.shape, file)
    if len(tensor.shape) == len(lead) + 1:
        return payload.padded(tensor.name, [images.jpeg(image)], bool(lead))
    data = image.astype(datatypes.DTYPES[tensor.datatype]).tobytes()
    return payload.Tensor(tensor.name, tensor.datatype, (*lead, *image.shape), data)


def _over_http(
    target: Target, model: str, tensors: tuple[payload.Tensor, ...], outputs: list[str], timeout_s: float
) -> tuple[bytes, int]:
    request = payload.http_request(tensors, outputs, host="triton", model=model)
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    headers = {name: value for name, value in lines if name.lower() not in ("host", "content-length")}
    try:
        answer = requests.post(
            f"{target.http_url}/v2/models/{model}/infer",
            data=body,
            headers={**headers, **dict(target.headers)},
            timeout=timeout_s,
        )
    except requests.RequestException as error:
        raise Unreachable(f"{target.http_url} did not answer ({type(error).__name__}): is it up?") from error
    if not answer.ok:
        raise TargetError(f"{model}: {answer.text.strip() or answer.reason}. Look at the server's log.")
    return answer.content, int(answer.headers.get("Inference-Header-Content-Length", 0))


def _over_grpc(
    target: Target, model: str, tensors: tuple[payload.Tensor, ...], outputs: list[str], timeout_s: float
) -> tuple[bytes, int]:
    import grpc

    message = payload.grpc_message(tensors, outputs, model=model)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if target.grpc_address is None:
        raise Unreachable("No gRPC address is known: give --grpc-url host:port.")
    secure = target.http_url.startswith("https")
    make: Any = (
        (lambda: grpc.secure_channel(target.grpc_address, grpc.ssl_channel_credentials(), options))
        if secure
        else (lambda: grpc.insecure_channel(target.grpc_address, options))
    )
    with make() as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        metadata = [(name.lower(), value) for name, value in target.headers]
        try:
            body: bytes = call(message, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise Unreachable(
                    f"{target.grpc_address} does not answer gRPC: is --grpc-url right?"
                ) from error
            raise TargetError(f"{model}: {error.details()}. Look at the server's log.") from error
    return body, 0


def _print(arrays: dict[str, NDArray[Any]], took_ns: int, *, as_json: bool) -> None:
    if as_json:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        print(json.dumps({"outputs": shapes, "time_ms": took_ns / 1e6}))
        return
    for name, array in arrays.items():
        print(*([name] if len(arrays) > 1 else []), array, array.shape, sep="\n")
    print(f"{took_ns / 1e6:.3g} ms")
