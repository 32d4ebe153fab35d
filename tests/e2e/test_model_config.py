"""A real Triton takes the configurations that are written for it, and shows them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.core.cell import ServerConfiguration
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.model_config import read, served, variant

REPOSITORY = Path(__file__).parents[2] / "model_repository"


@pytest.mark.e2e
class TestTritonTakesThem:
    @pytest.mark.parametrize("model", ["null_small", "null_vit", "delay", "faulty"])
    def test_what_is_read_loads_and_comes_back_the_same(self, triton: EmbeddedTriton, model: str) -> None:
        control = Triton(triton.target)
        config = read(REPOSITORY / model / "config.pbtxt")
        control.load(model, config)
        shown = control.config(model)
        assert served(shown) == served(config)
        for kind in ("input", "output"):
            assert [t["dims"] for t in shown[kind]] == [t["dims"] for t in config[kind]]
        control.unload(model)
        control.close()

    def test_a_variant_is_served_as_asked_and_the_file_s_again_when_asked_for(
        self, triton: EmbeddedTriton
    ) -> None:
        control = Triton(triton.target)
        config = read(REPOSITORY / "delay" / "config.pbtxt")
        asked = ServerConfiguration(
            model="delay", instances=3, max_batch=4, max_queue_delay_us=200,
            parameters=(("delay_ms", "1"),),
        )  # fmt: skip
        for base in (config, None):  # None: from what the server shows of the variant before
            control.load("delay", variant(base or control.config("delay"), asked))
            found = served(control.config("delay"))
            assert (found.instances, found.max_batch, found.queue_delay_us) == (3, 4, 200)
            assert found.parameters == {**served(config).parameters, "delay_ms": "1"}
        # Not a plain load: Triton 2.51 keeps the variant then, as the files have not changed.
        control.load("delay", config)
        assert served(control.config("delay")) == served(config)
        control.unload("delay")
        control.close()
