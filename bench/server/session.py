"""A target, opened for as long as a verb needs it: a Triton started here, or one that runs already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.cell import ServerConfiguration
from bench.core.errors import Unreachable
from bench.core.mistakes import Mistakes
from bench.core.paths import MODEL_REPOSITORY, shipped
from bench.core.target import Target, header, target_of
from bench.sensors import nvml
from bench.server import model_config
from bench.server.control import Triton
from bench.server.embedded import OwnTriton, find_tritonserver, start
from bench.server.serving import Serving
from bench.server.weights import Weights, resolve

SHIPPED = MODEL_REPOSITORY


@dataclass(frozen=True, slots=True)
class Opened:
    triton: Triton
    serving: Serving
    description: str  # for the report: what was measured, and where the client ran
    weights: str  # one sentence, or ""

    @property
    def target(self) -> Target:
        """Where it is now: an embedded server that was started again has other ports."""
        return self.triton.target


def repository_of(given: Mapping[str, Any]) -> Path:
    return Path(given.get("repository") or shipped(SHIPPED))


def models_of(repository: Path) -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in repository.glob("*/config.pbtxt")))


def remote_target(given: Mapping[str, Any], flags: Mistakes) -> Target | None:
    """From --url and its neighbours; None without --url. Mistakes are left in `flags`."""
    headers = [
        flags.read("--header", "NAME:VALUE", lambda _, text=text: header(text), ("", ""))  # type: ignore[misc]  # the value stays out of messages
        for text in given.get("header") or ()
    ]
    if not given.get("url"):
        for name in ("grpc_url", "metrics_url"):
            if given.get(name):
                flags.wrong(f"--{name.replace('_', '-')}", given[name], "goes with --url")
        return None
    refuse_embedded(given, "--url", flags)
    url: str = given["url"]
    return flags.read(
        "--url",
        url,
        lambda text: target_of(text, given.get("grpc_url"), given.get("metrics_url"), headers),
        Target(url),
    )


def refuse_embedded(given: Mapping[str, Any], other: str, flags: Mistakes) -> None:
    """Flags of a server started here, which `other` would leave without a word."""
    for name, default in (("tritonserver", None), ("repository", None), ("vit", "auto")):
        if given.get(name) not in (None, default):
            flags.wrong(f"--{name}", str(given[name]), f"goes without {other}: that server has its own")


@contextmanager
def opened(
    given: Mapping[str, Any], remote: Target | None, progress: Callable[[str], None], log: Path
) -> Iterator[Opened]:
    """Raises Unreachable or ServerStartFailed; the embedded server is gone when the block ends."""
    context = _remote(given["model"], remote) if remote else _embedded(given, progress, log)
    with context as target:
        yield target


@contextmanager
def _remote(model: str, target: Target) -> Iterator[Opened]:
    triton = Triton(target)
    try:
        if not triton.live():
            triton.server()  # says why, if nothing answers at all
            raise Unreachable(f"{target.http_url} answers, but is not live: wait for it, or read its log.")
        serving = Serving(triton, model)
        yield Opened(triton, serving, f"{target.http_url}, client on another process's host", "")
        serving.restore()
    finally:
        triton.close()


@contextmanager
def _embedded(given: Mapping[str, Any], progress: Callable[[str], None], log: Path) -> Iterator[Opened]:
    repository, model = repository_of(given), given["model"]
    config = model_config.read(repository / model / "config.pbtxt")
    weights = weights_of(config, given["vit"])
    if weights:
        progress(weights.origin)
        config = with_weights(config, weights)
    server = find_tritonserver(given.get("tritonserver"))
    ports = (given.get("http_port", 0), given.get("grpc_port", 0), given.get("metrics_port", 0))
    launch = partial(start, repository, log=log, server=server, ports=ports, progress=progress)
    with closing(OwnTriton(launch, progress)) as triton:
        serving = Serving(triton, model, config, is_ours=True)
        description = f"embedded tritonserver ({server.origin}), client on the same host"
        yield Opened(triton, serving, description, weights.origin if weights else "")


def weights_of(config: Mapping[str, Any], choice: str) -> Weights | None:
    """Only a model with a `weights` parameter has any to choose."""
    if "weights" not in model_config.served(dict(config)).parameters:
        return None
    return resolve(choice, has_gpu=nvml.count() > 0)


def with_weights(config: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """The weights' name in the configuration, where every report finds it, and their hidden size."""
    model = str(config.get("name", ""))
    chosen = ServerConfiguration(model=model, parameters=(("weights", weights.parameter),))
    config = model_config.variant(config, chosen)
    for output in config.get("output", ()):
        if output.get("name") in ("last_hidden_state", "pooler_output"):
            output["dims"] = [*output["dims"][:-1], weights.hidden]
    return config
