"""The control side against a real Triton: asked, loaded, put into another configuration."""

from __future__ import annotations

import pytest

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed, TargetError
from bench.server import model_config
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.serving import Serving
from tests.support.calibration import REPOSITORY, parameters


@pytest.mark.e2e
def test_a_real_triton(triton: EmbeddedTriton) -> None:
    control = Triton(triton.target)
    assert control.live()
    assert control.server()["name"] == "triton"
    assert {"delay", "null_vit", "python_vit"} <= set(control.models())
    control.load("null_small")
    assert control.model_ready("null_small")
    assert control.metadata("null_small")["inputs"][0]["datatype"] == "FP32"
    assert (control.statistics("null_small") - control.statistics("null_small")).success_count == 0
    assert "nv_inference_request_success" in control.metrics()
    with pytest.raises(ModelLoadFailed, match="no_such_model"):
        control.load("no_such_model")
    with pytest.raises(TargetError, match="no_such_model"):
        control.metadata("no_such_model")
    control.unload("null_small")
    control.close()


@pytest.mark.e2e
def test_a_load_afresh_starts_the_instances_anew_and_counts_from_zero(triton: EmbeddedTriton) -> None:
    """A plain load of a model that changes little keeps its instances: a start's luck would stay."""
    control = Triton(triton.target)
    config = model_config.read(REPOSITORY / "delay" / "config.pbtxt")
    one, asked = Serving(control, "delay", config, is_ours=True), ServerConfiguration(model="delay")
    for _ in range(2):  # what other tests loaded before is unloaded for good
        one.configure(asked, afresh=True)

    def told(what: str) -> int:
        return triton.log.read_text().count(f"successfully {what} 'delay'")

    before = told("loaded"), told("unloaded")
    one.configure(asked, afresh=True)
    assert (told("loaded") - before[0], told("unloaded") - before[1]) == (1, 1)
    assert control.statistics("delay").stats.get("inference_count", 0) == 0
    assert control.allows_loading()
    control.close()


@pytest.mark.e2e
def test_instances_and_parameters_change_live(triton: EmbeddedTriton) -> None:
    control = Triton(triton.target)
    config = model_config.read(REPOSITORY / "delay" / "config.pbtxt")
    one = Serving(control, "delay", config, is_ours=True)
    server = ServerConfiguration(
        model="delay", instances=2, max_batch=8, max_queue_delay_us=100, parameters=parameters(delay_ms=1)
    )
    served = model_config.served(one.configure(server).config)
    assert (served.instances, served.max_batch, served.queue_delay_us) == (2, 8, 100)
    assert served.parameters["delay_ms"] == "1"
    with pytest.raises(ModelLoadFailed, match="delay"):
        one.configure(ServerConfiguration(model="delay", parameters=parameters(delay_ms="soon")))
    control.close()
