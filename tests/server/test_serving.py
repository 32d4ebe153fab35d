"""A model is put into the configuration asked for, read back, and refused where the server did otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed
from bench.core.target import Target
from bench.server import model_config
from bench.server.control import Triton
from bench.server.serving import Serving, mismatches

BASE: dict[str, Any] = {
    "name": "m",
    "max_batch_size": 64,
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    "parameters": {"mode": {"string_value": "fast"}},
}


@dataclass
class FakeTriton:
    """Serves what it is told to, unless it is stubborn."""

    stubborn: bool = False
    loads: list[Mapping[str, Any] | None] = field(default_factory=list)
    served: Mapping[str, Any] | None = None
    unloads: int = 0

    target = Target("http://h:1")

    def model_ready(self, _model: str) -> bool:
        return self.served is not None

    def wait_until_ready(self, _model: str, _timeout_s: float) -> None:
        assert self.served is not None

    def load(self, _model: str, config: Mapping[str, Any] | None = None) -> None:
        self.loads.append(config)
        self.served = BASE if config is None or self.stubborn else json.loads(json.dumps(config))

    def unload(self, _model: str) -> None:
        self.unloads, self.served = self.unloads + 1, None

    def wait_until_gone(self, _model: str, _timeout_s: float) -> None:
        assert self.served is None

    def metadata(self, model: str) -> dict[str, Any]:
        return {"name": model}

    def config(self, _model: str) -> Mapping[str, Any]:
        assert self.served is not None
        return self.served


def serving(triton: FakeTriton, **ours: Any) -> Serving:
    return Serving(cast(Triton, triton), "m", **ours)


def asked(**changes: Any) -> ServerConfiguration:
    return ServerConfiguration(model="m", **changes)


def test_somebody_elses_model_is_left_as_it_is_when_nothing_is_asked() -> None:
    triton = FakeTriton(served=BASE)
    one = serving(triton)
    assert one.configure(asked()).max_batch == 64
    one.restore()
    assert triton.loads == []


def test_a_model_not_loaded_yet_is_loaded_as_its_file_says() -> None:
    triton = FakeTriton()
    assert serving(triton).configure(asked()).config == BASE
    assert triton.loads == [None]


def test_a_variant_starts_from_the_servers_own_configuration_and_is_undone_at_the_end() -> None:
    triton = FakeTriton(served=BASE)
    one = serving(triton)
    one.configure(asked(instances=2))
    served = one.configure(asked(max_batch=8))  # not on top of the two instances
    assert model_config.served(served.config).instances == 1
    assert served.max_batch == 8
    one.restore()
    assert triton.served == BASE


def test_our_own_server_gets_the_whole_configuration_and_needs_no_undoing() -> None:
    triton = FakeTriton()
    one = serving(triton, base=BASE, is_ours=True)
    one.configure(asked())
    one.restore()
    assert triton.loads == [BASE]


def test_a_server_that_ignores_what_was_asked_is_found_out() -> None:
    triton = FakeTriton(stubborn=True)
    with pytest.raises(ModelLoadFailed, match=r"instances: asked 2, served 1.*--model-control-mode=explicit"):
        serving(triton).configure(asked(instances=2))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({}, None),
        ({"instances": 1, "max_batch": 64, "parameters": (("mode", "fast"),)}, None),
        ({"instances": 2}, "instances: asked 2, served 1"),
        ({"max_batch": 8}, "max batch: asked 8, served 64"),
        ({"parameters": (("mode", "slow"),)}, "mode: asked slow, served fast"),
        ({"parameters": (("new", "1"),)}, "new: asked 1, served None"),
        ({"max_queue_delay_us": 100}, "queue delay"),
        ({"max_queue_delay_us": -1}, None),
    ],
)
def test_every_axis_is_read_back(changes: dict[str, Any], difference: str | None) -> None:
    found = mismatches(asked(**changes), BASE)
    assert len(found) == (difference is not None)
    assert difference is None or difference in found[0]


def test_a_load_afresh_unloads_before_and_somebody_elses_comes_back_as_it_was() -> None:
    triton = FakeTriton(served=BASE)
    one = serving(triton)
    one.configure(asked(), afresh=True)
    assert (triton.unloads, len(triton.loads)) == (1, 1)
    assert triton.served == BASE
    one.restore()
    assert triton.served == BASE
