"""A configuration as text is the same configuration, and its patch is one that Kubernetes takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cluster.deploy.model_patch import config_map, config_map_name, config_text, mlservice_patch
from bench.core.cell import ServerConfiguration
from bench.server import model_config
from bench.server.repository import SHIPPED

MODELS = sorted(path.parent.name for path in SHIPPED.glob("*/config.pbtxt"))
CHOSEN = ServerConfiguration(model="x", instances=2, max_batch=8, max_queue_delay_us=1000)


def varied(model: str) -> dict[str, Any]:
    return model_config.variant(model_config.read(SHIPPED / model / "config.pbtxt"), CHOSEN)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_written_is_read_back_equal(model: str, tmp_path: Path) -> None:
    config = varied(model)
    path = tmp_path / "config.pbtxt"
    path.write_text(config_text(config))
    assert model_config.read(path) == config


def test_it_reads_as_somebody_would_write_it() -> None:
    text = config_text(varied("delay"))
    assert 'name: "delay"\n' in text
    assert "max_batch_size: 8\n" in text
    assert "  max_queue_delay_microseconds: 1000\n" in text


def test_fields_of_a_newer_server_are_left_out() -> None:
    assert "future" not in config_text({**varied("delay"), "future_field": 1})


def test_the_config_map_holds_the_text_and_the_patch_mounts_it() -> None:
    text = config_text(varied("python_vit"))
    document = yaml.safe_load(config_map("python_vit", text))
    assert document["kind"] == "ConfigMap"
    assert document["data"]["config.pbtxt"] == text
    volume, mount = yaml.safe_load(mlservice_patch("python_vit", text))
    assert volume["value"]["configMap"]["name"] == document["metadata"]["name"]
    assert mount["value"]["mountPath"] == "/models/python_vit/config.pbtxt"
    assert mount["value"]["subPath"] in document["data"]


def test_another_configuration_has_another_name_and_any_model_a_valid_one() -> None:
    assert config_map_name("a", "x") != config_map_name("a", "y")
    for model in ("Some_Model.v2", "_", "ü" * 300):
        name = config_map_name(model, "x")
        assert len(name) <= 63
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not name.startswith("-")
