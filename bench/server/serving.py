"""A model on a Triton, put into the configuration a cell asks for, and read back before it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.core import vit_variants
from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed
from bench.core.trial import Served
from bench.server import model_config
from bench.server.control import LOAD_TIMEOUT_S, Triton


class Serving:
    """One model of one server.

    `base` is the configuration that variants start from, since an override replaces the whole of it;
    None: the server's own, read back after a plain load.
    """

    def __init__(
        self, triton: Triton, model: str, base: Mapping[str, Any] | None = None, *, is_ours: bool = False
    ) -> None:
        self.triton, self.model = triton, model
        self._base = base
        self._is_ours = is_ours
        self._changed = False

    def base(self) -> Mapping[str, Any]:
        """Loads the model as its file says, where it is not loaded yet.

        Raises ModelLoadFailed with the server's reason.
        """
        if self._base is None:
            if not self.triton.model_ready(self.model):
                self.triton.load(self.model)
                self.triton.wait_until_ready(self.model, LOAD_TIMEOUT_S)
            self._base = self.triton.config(self.model)
        return self._base

    def configure(self, server: ServerConfiguration, *, afresh: bool = False) -> Served:
        """Load the model so, verify that the server really serves it so, and return what it serves.

        `afresh`: unload it before, since Triton keeps the instances of a model that changes little or not
        at all. Raises ModelLoadFailed when it does not load, or loads differently.
        """
        if afresh:
            self.base()  # as it was before
            self._unload()
        if self._is_ours or afresh or server != ServerConfiguration(model=self.model):
            self.triton.load(self.model, model_config.variant(dict(self.base()), server))
            self._changed = True
        else:
            self.base()
        self.triton.wait_until_ready(self.model, LOAD_TIMEOUT_S)
        served = Served(
            self.triton.metadata(self.model), self.triton.config(self.model), target=self.triton.target
        )
        differences = mismatches(server, served.config)
        if differences:
            raise ModelLoadFailed(
                f"Model {self.model!r} loaded, but not as asked: {'; '.join(differences)}. "
                "The server may ignore configurations given to the load API: start it with "
                "--model-control-mode=explicit."
            )
        return served

    def _unload(self) -> None:
        """Raises ModelLoadFailed where the server does not let go of it, or only loads by itself."""
        if not self.triton.model_ready(self.model):
            return
        self.triton.unload(self.model)
        self.triton.wait_until_gone(self.model, LOAD_TIMEOUT_S)

    def restore(self) -> None:
        """Somebody else's server goes back to what it served before.

        A plain load would not do: Triton 2.51 keeps the last override until the model is unloaded.
        """
        if self._changed and not self._is_ours:
            self.triton.load(self.model, self.base())
            self._changed = False


def mismatches(asked: ServerConfiguration, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Where what is served differs from what was asked; one phrase each."""
    served = model_config.served(dict(config))
    found = [
        f"{name}: asked {want}, served {have}"
        for name, want, have in (
            ("instances", asked.instances, served.instances),
            ("max batch", asked.max_batch, served.max_batch),
            ("queue delay in us (-1: off)", asked.max_queue_delay_us, _delay_us(served)),
            ("preferred batches", asked.preferred_batches or None, served.preferred_batches),
            *((name, value, served.parameters.get(name)) for name, value in asked.parameters),
        )
        if want is not None and want != have
    ]
    return (*found, *vit_variants.mismatches(config))


def _delay_us(served: model_config.ServedConfig) -> int:
    """As `ServerConfiguration` counts it."""
    return -1 if served.queue_delay_us is None else served.queue_delay_us
