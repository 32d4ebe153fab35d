"""One request, printed: the tensors that come back, their shapes, and the time it took."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cli.progress import ConsoleProgress
from bench.cli.targets import check_model, server_of
from bench.cli.values import Values
from bench.core import datatypes
from bench.core.cell import Protocol, ServerConfiguration
from bench.core.errors import EXIT_OK, TargetError, Unreachable
from bench.core.parsing import image_size
from bench.core.samples import Outcome
from bench.core.scratch import folder as temporary_folder
from bench.core.target import Target
from bench.core.trial import Served
from bench.protocols import images, payload
from bench.protocols.answers import Expected, as_array, most_bytes, wrong_frame
from bench.protocols.registry import DRIVERS

Pixels = NDArray[np.float32]


def run(values: Values) -> int:
    """`bench infer`: one request, its tensors and the time."""
    image = values.mistakes.read("--image", values["picture"], picture, picture("224x224"))
    provider, model = server_of(values), values["model"]
    check_model(provider.repository, values)
    values.mistakes.check()
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder())
        progress = stack.enter_context(ConsoleProgress())
        session = stack.enter_context(provider.open(model, progress.say, scratch / "tritonserver.log"))
        served = session.serving.configure(ServerConfiguration(model=model))
        progress.__exit__()
        protocol, timeout_s, most = values["one_protocol"], values["timeout"], values["max_answer"]
        return infer_once(session.target, served, protocol, image, timeout_s, most, as_json=values["as_json"])


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
    target: Target,
    served: Served,
    protocol: Protocol,
    image: Pixels,
    timeout_s: float,
    max_answer_bytes: int | None = None,
    *,
    as_json: bool,
) -> int:
    """Raises Unreachable without a connection, TargetError with the server's message."""
    driver = DRIVERS[protocol]
    if not driver.address(target):
        raise Unreachable(f"The server has no address for --protocol {protocol}: {driver.address_hint}.")
    outputs = tuple(str(output["name"]) for output in served.metadata["outputs"])
    call = payload.Call(str(served.metadata["name"]), _tensors(served, image), outputs)
    expected = Expected.of_model(served.metadata, served.max_batch, 1)
    connection = driver.connection(target, timeout_s, most_bytes(expected, max_answer_bytes))
    reply = connection.exchange(driver.build(call, target))
    connection.close()
    if reply.outcome == Outcome.SERVER_ERROR:
        raise TargetError(f"{call.model}: {reply.error}. Look at the server's log.")
    if reply.outcome != Outcome.OK:
        raise Unreachable(
            f"{driver.address(target)} did not answer ({reply.error}): "
            f"is the server up, and is this its address for --protocol {protocol}?"
        )
    view = reply.body
    answers = driver.parse(view, reply.head_length)
    arrays = {a.name: as_array(a, view[a.start : a.end]) for a in answers if a.end > a.start}
    data = {a.name: view[a.start : a.end] for a in answers}
    wrong = wrong_frame(expected, answers, data)
    if wrong:
        raise TargetError(
            f"The answer is wrong: {wrong}. Look at the model, and at numpy's version beside it."
        )
    _print(arrays, reply.done_ns - reply.sent_ns, as_json=as_json)
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


def _print(arrays: dict[str, NDArray[Any]], took_ns: int, *, as_json: bool) -> None:
    if as_json:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        print(json.dumps({"outputs": shapes, "time_ms": took_ns / 1e6}))
        return
    for name, array in arrays.items():
        print(*([name] if len(arrays) > 1 else []), array, array.shape, sep="\n")
    print(f"{took_ns / 1e6:.3g} ms")
