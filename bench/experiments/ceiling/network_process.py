"""The served network without a server, in a process of its own: the load's must not hold torch.

Reads one JSON object a line and answers with one. The first says what to build, each further one asks for
samples: `{"batch": 8, "seconds": 1.0, "samples": 5}` -> `{"images_per_s": [...]}`. It ends at the end of its
input, also in the middle of a measurement.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A peak rate is the best of so many tries of so many seconds: a disturbance makes a try slower, never faster.
_RATE_S, _RATE_TRIES = 0.15, 4
# The square matrices whose product is timed have so many rows.
_SIZES = {"cpu": 1536, "cuda": 8192}
_COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
_OLDEST_WARM_UPS = 3


class Network:
    """The model's own modules, as the server runs them; on a GPU with `compile`, its CUDA graphs."""

    def __init__(self, asked: dict[str, Any]) -> None:
        sys.path.insert(0, str(Path(asked["model"])))
        import host  # type: ignore[import-not-found]  # noqa: F401  # before torch, as the served model does
        import network  # type: ignore[import-not-found]  # of the model repository, which is no package
        import torch
        import vit  # type: ignore[import-not-found]  # as above

        self.torch, self.network = torch, network
        self.device = torch.device("cuda" if asked["gpu"] and torch.cuda.is_available() else "cpu")
        if asked["threads"]:
            torch.set_num_threads(asked["threads"])
        self.vit = vit.build(asked["weights"])
        self.dtype = network.PRECISIONS[asked["precision"]]
        self.compile = asked["compile"]
        self.run = network.Network(self.vit, asked["precision"], self.compile, asked["output"], self.device)

    def described(self) -> dict[str, Any]:
        vit = self.vit
        is_gpu = self.device.type == "cuda"
        return {
            "device": self.torch.cuda.get_device_name() if is_gpu else "cpu",
            "threads": self.torch.get_num_threads(),
            "torch": self.torch.__version__,
            "shape": {
                "hidden": vit.hidden,
                "intermediate": vit.layers[0].up.out_features,
                "layers": len(vit.layers),
                "tokens": vit.positions.shape[1],
                "patch_inputs": vit.patch.in_features,
                "parameters": sum(p.numel() for p in vit.parameters()),
            },
        }

    def images_per_s(self, batch: int, seconds: float, samples: int) -> list[float]:
        """Each sample as many whole passes as fit; the pixels are on the device, as they are served."""
        torch = self.torch
        pixels = torch.rand(batch, 224, 224, 3, device=self.device) * 255
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if stream is None:
            return self._timed(lambda: self.run(pixels), batch, seconds, samples)
        with torch.cuda.stream(stream):
            run = self.run
            if self.compile != "none":
                run = self.network.Captured(self.run, pixels, stream)
            return self._timed(lambda: run(pixels), batch, seconds, samples)

    def _timed(self, step: Callable[[], Any], batch: int, seconds: float, samples: int) -> list[float]:
        for _ in range(_OLDEST_WARM_UPS):
            step()
        return [batch * steps_per_s(self.torch, self.device, step, seconds) for _ in range(samples)]

    def rates(self) -> dict[str, float]:
        """Of a large product and of a large copy, in the network's precision: the best of what was seen."""
        torch, kind = self.torch, self.device.type
        size = _SIZES[kind]
        a, b = (torch.rand(size, size, device=self.device).to(self.dtype) for _ in range(2))
        source = torch.zeros(_COPIED_BYTES[kind], dtype=torch.uint8, device=self.device)
        into = torch.empty_like(source)
        multiplied = copied = 0.0
        for _ in range(_RATE_TRIES):
            step = steps_per_s(torch, self.device, lambda: torch.mm(a, b), _RATE_S)
            move = steps_per_s(torch, self.device, lambda: into.copy_(source), _RATE_S)
            multiplied, copied = max(multiplied, step), max(copied, move)
        return {"flop_per_s": 2 * size**3 * multiplied, "bytes_per_s": 2 * len(source) * copied}


def steps_per_s(torch: Any, device: Any, step: Callable[[], Any], seconds: float) -> float:
    """Whole steps only. CUDA events on a GPU, so that launching ahead of it costs nothing."""
    step()
    if device.type == "cuda":
        return _cuda_steps_per_s(torch, step, seconds)
    began = now = time.monotonic_ns()
    steps = 0
    while now < began + seconds * 1e9:
        step()
        steps += 1
        now = time.monotonic_ns()
    return steps / ((now - began) / 1e9)


def _cuda_steps_per_s(torch: Any, step: Callable[[], Any], seconds: float) -> float:
    def ran(steps: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(steps):
            step()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    steps = max(1, round(seconds * 5 / max(ran(5), 1e-6)))
    return steps / ran(steps)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    network = None
    lines = _asked()
    while True:
        line = lines.get()
        asked = json.loads(line)
        try:
            if network is None:
                network = Network(asked)
                found: dict[str, Any] = network.described()
            else:
                found = _answer(network, asked)
        except (RuntimeError, ImportError, OSError) as error:  # torch's own are RuntimeErrors
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def _asked() -> queue.SimpleQueue[str]:
    """The lines of the input. A thread reads them, so that their end also ends a measurement under way."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # whoever asked is gone

    threading.Thread(target=read, daemon=True).start()
    return lines


def _answer(network: Network, asked: dict[str, Any]) -> dict[str, Any]:
    with network.torch.inference_mode():
        if asked.get("rates"):
            return dict(network.rates())
        rates = network.images_per_s(asked["batch"], asked["seconds"], asked["samples"])
        return {"images_per_s": rates}


if __name__ == "__main__":
    main()
