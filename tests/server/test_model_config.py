"""Model configurations: read as Triton shows them, varied, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed
from bench.server.model_config import ServedConfig, read, served, variant

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MODELS = sorted(path.parent.name for path in REPOSITORY.glob("*/config.pbtxt"))

RICH = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] reshape { shape: [ 4 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { kind: KIND_CPU count: 2 }
instance_group { kind: KIND_GPU count: 3 gpus: [ 0, 1 ] }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 1000 }
version_policy { specific { versions: [ 1, 3 ] } }
parameters { key: "weights" value { string_value: "random:tiny:seed=0" } }
model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3, 4 ] } } }
"""


def config_of(tmp_path: Path, text: str, name: str = "rich") -> dict[str, Any]:
    path = tmp_path / name / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(text)
    return read(path)


def rich(tmp_path: Path) -> dict[str, Any]:
    return config_of(tmp_path, RICH)


@pytest.mark.parametrize("model", MODELS)
def test_every_shipped_configuration_reads_and_names_its_folder(model: str) -> None:
    config = read(REPOSITORY / model / "config.pbtxt")
    assert config["name"] == model
    assert config["max_batch_size"] == 64
    assert served(config).instances == 1


def test_64_bit_integers_are_numbers_wherever_they_stand(tmp_path: Path) -> None:
    config = rich(tmp_path)
    assert config["input"][0]["dims"] == [-1, 4]
    assert config["input"][0]["reshape"]["shape"] == [4]
    assert config["version_policy"]["specific"]["versions"] == [1, 3]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
    assert config["model_warmup"][0]["inputs"]["x"]["dims"] == [3, 4]
    assert config["parameters"]["weights"]["string_value"] == "random:tiny:seed=0"


def test_what_is_read_is_the_whole_message(tmp_path: Path) -> None:
    config = rich(tmp_path)
    back = json_format.ParseDict(config, model_config_pb2.ModelConfig())
    assert json_format.MessageToDict(back, preserving_proto_field_name=True).keys() == config.keys()
    assert list(back.dynamic_batching.preferred_batch_size) == [4, 8]


def test_a_configuration_without_a_name_has_its_folder_s(tmp_path: Path) -> None:
    assert rich(tmp_path)["name"] == "rich"


def test_what_is_missing_or_no_configuration_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"config\.pbtxt does not exist: check --repository"):
        read(tmp_path / "none" / "config.pbtxt")
    with pytest.raises(ModelLoadFailed, match=r"bad/config\.pbtxt is no model configuration: .*not_a_field"):
        config_of(tmp_path, "not_a_field: 3", "bad")


class TestVariant:
    def test_what_is_left_open_stays(self, tmp_path: Path) -> None:
        config = rich(tmp_path)
        assert variant(config, ServerConfiguration(model="rich")) == config

    def test_the_original_is_never_changed(self, tmp_path: Path) -> None:
        config, again = rich(tmp_path), config_of(tmp_path, RICH, "again")
        everything = ServerConfiguration(
            model="rich", instances=9, max_batch=1, max_queue_delay_us=7, parameters=(("a", "b"),)
        )
        variant(config, everything)["input"][0]["dims"].append(5)
        assert config == {**again, "name": "rich"}

    def test_instances_become_one_group_of_the_first_kind(self, tmp_path: Path) -> None:
        changed = variant(rich(tmp_path), ServerConfiguration(model="rich", instances=4))
        assert changed["instance_group"] == [{"kind": "KIND_CPU", "count": 4}]

    def test_names_that_triton_gave_groups_are_left_out_since_they_must_be_unique(self) -> None:
        config = {"instance_group": [{"name": "m_0", "kind": "KIND_GPU", "count": 1, "gpus": [0, 1]}]}
        changed = variant(config, ServerConfiguration(model="m", instances=2))
        assert changed["instance_group"] == [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}]

    @pytest.mark.parametrize(("delay", "batching"), [(0, 0), (500, 500), (-1, None), (None, 1000)])
    def test_a_queue_delay_is_set_switched_off_or_left(
        self, tmp_path: Path, delay: int | None, batching: int | None
    ) -> None:
        changed = variant(rich(tmp_path), ServerConfiguration(model="rich", max_queue_delay_us=delay))
        assert served(changed).queue_delay_us == batching
        kept = changed.get("dynamic_batching", {}).get("preferred_batch_size")
        assert kept == (None if delay == -1 else [4, 8])

    def test_a_queue_delay_switches_dynamic_batching_on(self) -> None:
        changed = variant({}, ServerConfiguration(model="m", max_queue_delay_us=0))
        assert served(changed).queue_delay_us == 0

    @given(
        st.none() | st.integers(1, 99), st.none() | st.integers(0, 999), st.none() | st.integers(-1, 10**6),
        st.dictionaries(st.text(min_size=1), st.text()),
    )  # fmt: skip
    def test_what_was_asked_is_what_is_read_back(
        self, instances: int | None, batch: int | None, delay: int | None, parameters: dict[str, str]
    ) -> None:
        base = {"name": "m", "max_batch_size": 64, "instance_group": [{"count": 1}]}
        asked = ServerConfiguration(
            model="m", instances=instances, max_batch=batch, max_queue_delay_us=delay,
            parameters=tuple(parameters.items()),
        )  # fmt: skip
        found = served(variant(base, asked))
        assert found == ServedConfig(
            instances=instances or 1,
            max_batch=64 if batch is None else batch,
            queue_delay_us=None if delay == -1 else delay,
            parameters=parameters,
        )


@pytest.mark.parametrize(("model", "differs"), [("python_vit", True), ("delay", False)])
def test_another_count_of_instances_starts_the_vit_anew(model: str, differs: bool) -> None:
    """Triton keeps running instances where only their count changes, with the threads they took."""
    config = read(REPOSITORY / model / "config.pbtxt")
    one, two = (variant(config, ServerConfiguration(model=model, instances=count)) for count in (1, 2))
    assert (one["parameters"] != two["parameters"]) is differs


def test_instances_are_summed_over_groups(tmp_path: Path) -> None:
    assert served(rich(tmp_path)).instances == 5
    assert served({}) == ServedConfig(1, 0, None, {})
