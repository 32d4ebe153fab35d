"""A model repository on this disk, and the weights its models are served with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.cell import ServerConfiguration
from bench.core.paths import MODEL_REPOSITORY, shipped
from bench.sensors import nvml
from bench.server import model_config
from bench.server.weights import Weights, resolve

SHIPPED = MODEL_REPOSITORY


@dataclass(frozen=True, slots=True)
class Repository:
    """A folder of models. `vit`: which weights python_vit gets, as --vit says it.

    Raises ToolError where it is the shipped one, and the installation lacks it.
    """

    path: Path = SHIPPED
    vit: str = "auto"

    def __post_init__(self) -> None:
        if self.is_shipped:
            shipped(self.path)

    @property
    def is_shipped(self) -> bool:
        return self.path == SHIPPED

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(path.parent.name for path in self.path.glob("*/config.pbtxt")))

    def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as its file says; {} for a model that is not there."""
        path = self.path / model / "config.pbtxt"
        return dict(model_config.read(path)) if path.exists() else {}

    def versions(self, model: str) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (self.path / model).iterdir() if path.name.isdigit()))

    def weights(self, model: str) -> Weights | None:
        """None: only a model with a `weights` parameter has any to choose."""
        if "weights" not in model_config.served(self.config(model)).parameters:
            return None
        return resolve(self.vit, has_gpu=nvml.count() > 0)

    def base(self, model: str) -> tuple[Mapping[str, Any], Weights | None]:
        """The configuration that the server's variants start from, and the weights named in it."""
        config, weights = model_config.read(self.path / model / "config.pbtxt"), self.weights(model)
        return (with_weights(config, weights) if weights else config), weights


def with_weights(config: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """The weights' name in the configuration, where every report finds it, and their hidden size."""
    model = str(config.get("name", ""))
    chosen = ServerConfiguration(model=model, parameters=(("weights", weights.parameter),))
    config = model_config.variant(config, chosen)
    for output in config.get("output", ()):
        if output.get("name") in ("last_hidden_state", "pooler_output"):
            output["dims"] = [*output["dims"][:-1], weights.hidden]
    return config
