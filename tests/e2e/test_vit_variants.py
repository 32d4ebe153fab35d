"""Variants of the ViT: what they make of a configuration, what is refused, and the values a Triton serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tritonclient.http as client
from click.testing import CliRunner
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from bench.cli.main import bench as command
from bench.cli.spec import sweep_spec
from bench.core import vit_variants
from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed, WrongUse
from bench.core.mistakes import Mistakes
from bench.core.spec import SweepSpec
from bench.experiments.preconditions import Host, refuse_variants
from bench.protocols import images, payload
from bench.protocols.value_check import Bounds
from bench.server import model_config, reference_process
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.reference_answers import refer
from bench.server.repository import SHIPPED, with_weights
from bench.server.serving import Serving, mismatches
from bench.server.weights import resolve
from tests.support.calibration import serve
from tests.support.command import values_of

TINY = "random:tiny:seed=0"
HALF = 2e-2  # relative L2, of half precision
Array = NDArray[Any]


def config() -> dict[str, Any]:
    """The shipped model with its small weights."""
    return with_weights(
        model_config.read(SHIPPED / "python_vit" / "config.pbtxt"), resolve("tiny", has_gpu=False)
    )


def server(**parameters: str) -> ServerConfiguration:
    return ServerConfiguration(model="python_vit", parameters=tuple(parameters.items()))


def far(found: Array, expected: Array) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


class TestConfiguration:
    def test_the_shipped_file_says_its_defaults(self) -> None:
        assert vit_variants.chosen(config()) == dict(vit_variants.DEFAULTS)
        assert vit_variants.with_sections(config()) == config()

    @pytest.mark.parametrize(
        ("wire", "datatype", "dims"),
        [
            ("fp32", "TYPE_FP32", [-1, -1, -1]),
            ("uint8", "TYPE_UINT8", [-1, -1, -1]),
            ("jpeg", "TYPE_UINT8", [-1]),
        ],
    )
    def test_the_wire_sets_the_input(self, wire: str, datatype: str, dims: list[int]) -> None:
        (image,) = model_config.variant(config(), server(wire=wire))["input"]
        assert (image["name"], image["data_type"], image["dims"]) == ("image", datatype, dims)

    @pytest.mark.parametrize(
        ("output", "expected"),
        [
            ("last_hidden_state", {"last_hidden_state": [197, 192]}),
            ("pooler_output", {"pooler_output": [192]}),
            ("both", {"last_hidden_state": [197, 192], "pooler_output": [192]}),
        ],
    )
    def test_the_output_sets_the_outputs(self, output: str, expected: dict[str, list[int]]) -> None:
        found = model_config.variant(config(), server(output=output))["output"]
        assert {entry["name"]: entry["dims"] for entry in found} == expected

    def test_every_variant_leads_back_to_the_first(self) -> None:
        there = model_config.variant(config(), server(wire="jpeg", output="pooler_output"))
        back = model_config.variant(there, server(wire="fp32", output="last_hidden_state"))
        assert back == config()

    def test_another_model_s_parameters_of_that_name_are_its_own(self) -> None:
        other = {"input": [{"name": "x", "data_type": "TYPE_FP32"}], "parameters": {}}
        changed = model_config.variant(other, server(wire="uint8", output="both"))
        assert changed["input"] == other["input"]
        assert changed["parameters"]["wire"] == {"string_value": "uint8"}

    def test_a_server_that_keeps_its_input_is_noticed(self) -> None:
        served = {
            **config(),
            "parameters": model_config.variant(config(), server(wire="uint8"))["parameters"],
        }
        assert mismatches(server(wire="uint8"), served) == (
            "input: asked image TYPE_UINT8 [-1, -1, -1], served image TYPE_FP32 [-1, -1, -1]",
        )


class TestPreferredBatches:
    def test_they_are_the_batcher_s_and_read_back(self) -> None:
        asked = ServerConfiguration(model="python_vit", preferred_batches=(8, 32), max_queue_delay_us=500)
        changed = model_config.variant(config(), asked)
        assert changed["dynamic_batching"] == {
            "preferred_batch_size": [8, 32],
            "max_queue_delay_microseconds": 500,
        }
        assert mismatches(asked, changed) == ()
        assert mismatches(asked, {**changed, "dynamic_batching": {"max_queue_delay_microseconds": 500}}) == (
            "preferred batches: asked (8, 32), served ()",
        )
        assert "p8+32" in asked.key

    def test_without_a_batcher_they_are_refused(self) -> None:
        values = values_of("sweep", "--preferred-batch", "8", "--max-queue-delay", "off,1ms")
        sweep_spec(values)
        assert values.mistakes.mistakes == [
            "--preferred-batch 8: needs the dynamic batcher: leave out --max-queue-delay off"
        ]

    @pytest.mark.e2e
    def test_a_triton_takes_them(self, triton: EmbeddedTriton) -> None:
        asked = ServerConfiguration(model="null_small", preferred_batches=(4, 8), max_queue_delay_us=100)
        assert serve(triton, asked).config["dynamic_batching"]["preferred_batch_size"] == [4, 8]


class TestFlags:
    def test_each_flag_is_an_axis(self) -> None:
        words = ["--precision", "fp32,bf16", "--wire", "uint8", "--parameter", "x=1,2"]
        spec = sweep_spec(values_of("sweep", *words))
        assert spec.parameters == (("precision", ("fp32", "bf16")), ("wire", ("uint8",)), ("x", ("1", "2")))
        assert len(spec.configurations()) == 4

    def test_mistakes_are_told_all_at_once(self) -> None:
        words = ["--precision", "int4", "--output", "cls", "--wire", "uint8", "--parameter", "wire=jpeg"]
        values = values_of("sweep", *words)
        sweep_spec(values)
        assert values.mistakes.mistakes == [
            "--precision int4: 'int4' is unknown; allowed: fp32, tf32, bf16, fp16",
            "--output cls: 'cls' is unknown; allowed: last_hidden_state, pooler_output, both",
            "--parameter wire: is given twice: --wire says it too",
        ]


CPU = Host(has_gpu=False, has_compiler=True)
GPU = Host(has_gpu=True, has_compiler=True)
BARE = Host(has_gpu=False, has_compiler=False)


def refused(host: Host | None, name: str, value: str, **more: Any) -> list[str]:
    flags = Mistakes()
    spec = SweepSpec(
        model="python_vit", batches=(1,), concurrencies=(1,), parameters=((name, (value,)),), **more
    )
    refuse_variants(spec, config(), flags, host)
    return flags.mistakes


class TestRules:
    @pytest.mark.parametrize(
        ("host", "name", "value", "told"),
        [
            (CPU, "precision", "tf32", "--precision tf32: rounds on the tensor cores of a GPU"),
            (CPU, "compile", "max-autotune", "--compile max-autotune: tunes GPU kernels"),
            (BARE, "compile", "default", "--compile default: needs a C++ compiler"),
            (CPU, "precision", "int4", "--precision int4: unknown; allowed: fp32, tf32, bf16, fp16"),
        ],
    )
    def test_what_this_machine_cannot_serve_is_refused(
        self, host: Host, name: str, value: str, told: str
    ) -> None:
        (mistake,) = refused(host, name, value)
        assert mistake.startswith(told)

    @pytest.mark.parametrize(
        ("host", "name", "value"),
        [
            (GPU, "precision", "tf32"),
            (GPU, "compile", "max-autotune"),
            (None, "precision", "tf32"),  # elsewhere: that server says it
            (CPU, "precision", "fp16"),
            (CPU, "compile", "default"),
            (CPU, "wire", "jpeg"),
        ],
    )
    def test_the_rest_is_allowed(self, host: Host | None, name: str, value: str) -> None:
        assert refused(host, name, value) == []

    def test_a_model_without_variants_is_named(self) -> None:
        flags = Mistakes()
        spec = SweepSpec(model="null_vit", batches=(1,), parameters=(("wire", ("uint8",)),))
        refuse_variants(spec, {"input": [], "parameters": {}}, flags, CPU)
        assert flags.mistakes == [
            "--model null_vit: has no such variants: give --model python_vit, which has, or no --wire"
        ]

    def test_nothing_starts_where_something_is_refused(self) -> None:
        asked = [
            "sweep",
            "--precision",
            "tf32,bf16",
            "--compile",
            "max-autotune",
            "--batch",
            "0",
            "--dry-run",
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Host, "here", lambda: CPU)
            result = CliRunner().invoke(command, asked)
        assert isinstance(result.exception, WrongUse)
        assert [mistake.split(":")[0] for mistake in result.exception.mistakes] == [
            "--batch 0", "--precision tf32", "--compile max-autotune",
        ]  # fmt: skip


class TestDistance:
    """A check that accepts bf16 must still see a wrong tensor."""

    right = np.random.default_rng(0).normal(size=(197, 192)).astype(np.float32)
    bounds = Bounds(right, 5e-2, 3e-1, HALF)

    def test_rounding_passes(self) -> None:
        noise = np.random.default_rng(1).normal(size=self.right.shape) * 0.012
        assert self.bounds.wrong("y", (self.right + noise).astype(np.float32)) == ""

    def test_many_small_errors_do_not(self) -> None:
        noise = np.random.default_rng(1).normal(size=self.right.shape) * 0.05
        assert "from the reference (L2)" in self.bounds.wrong("y", (self.right + noise).astype(np.float32))

    def test_one_large_error_does_not(self) -> None:
        wrong = self.right.copy()
        wrong[5, 5] += 0.6
        assert "1 of 37824 values differ" in self.bounds.wrong("y", wrong)


class TestPictures:
    def test_a_file_is_the_same_whatever_the_count(self) -> None:
        assert images.jpegs(3, 2, 40, 60) == images.jpegs(3, 5, 40, 60)[:2]

    def test_decoding_loses_a_little(self) -> None:
        lost = np.abs(images.decoded_images(3, 2, 64, 64) - images.images(3, 2, 64, 64))
        assert 0 < lost.mean() < 8


@pytest.fixture(scope="module")
def serving(triton: EmbeddedTriton) -> Iterator[Serving]:
    control = Triton(triton.target)
    yield Serving(control, "python_vit", config(), is_ours=True)
    control.close()


def ask(serving: Serving, image: Array, datatype: str) -> dict[str, Array]:
    tensor = client.InferInput("image", list(image.shape), datatype)
    tensor.set_data_from_numpy(image)
    address = serving.triton.target.http_url.removeprefix("http://")
    with client.InferenceServerClient(address, network_timeout=120.0, connection_timeout=120.0) as connection:
        answer = connection.infer("python_vit", [tensor])
        return {
            output["name"]: answer.as_numpy(output["name"]) for output in answer.get_response()["outputs"]
        }


def files(items: list[bytes]) -> Array:
    made = payload.padded("image", items, True)
    return np.frombuffer(made.data, np.uint8).reshape(made.shape)


@pytest.mark.e2e
class TestServed:
    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_is_near_fp32(self, serving: Serving, precision: str, tmp_path: Path) -> None:
        served = serving.configure(server(precision=precision, output="both"))
        sent = images.images(0, 3, 224, 224)
        expected = reference_process.outputs(TINY, sent)
        found = ask(serving, sent, "FP32")
        names = {"last_hidden_state", "pooler_output"}
        assert {entry["name"] for entry in served.metadata["outputs"]} == found.keys() == names
        for name, array in found.items():
            assert array.dtype == np.float32
            assert far(array, expected[name]) < HALF
        # The check used under load accepts it, and no other image's answer.
        known = refer(served, 224, 224, tmp_path).reference
        assert known is not None
        bounds = Bounds(
            np.load(known.path)["last_hidden_state"][0], known.relative, known.absolute, known.distance
        )
        assert bounds.wrong("y", found["last_hidden_state"][0]) == ""
        assert bounds.wrong("y", found["last_hidden_state"][1]) != ""

    @pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 300)])
    def test_uint8_gives_the_values_of_fp32(self, serving: Serving, height: int, width: int) -> None:
        served = serving.configure(server(wire="uint8"))
        assert served.metadata["inputs"][0]["datatype"] == "UINT8"
        sent = images.images(0, 2, height, width)
        found = ask(serving, sent.astype(np.uint8), "UINT8")["last_hidden_state"]
        assert np.abs(found - reference_process.last_hidden_state(TINY, sent)).max() < 1e-4

    def test_jpeg_is_what_its_pixels_are(self, serving: Serving) -> None:
        served = serving.configure(server(wire="jpeg"))
        assert served.metadata["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1]}
        small = images.jpegs(1, 1, 60, 80)
        found = ask(serving, files([*images.jpegs(0, 2, 224, 224), *small]), "UINT8")["last_hidden_state"]
        decoded = images.decoded_images(0, 2, 224, 224)
        assert far(found[:2], reference_process.last_hidden_state(TINY, decoded)) < 1e-4
        of_small = reference_process.last_hidden_state(TINY, images.decoded_images(1, 1, 60, 80))
        assert far(found[2:], of_small) < 1e-4
        # And its loss is the file's: nearer to its own image than any two images are.
        exact = reference_process.last_hidden_state(TINY, images.images(0, 2, 224, 224))
        assert far(found[:2], exact) < 0.5 < far(exact[0], exact[1])

    @pytest.mark.parametrize("junk", [b"", b"no picture", images.jpegs(0, 1, 64, 64)[0][:300]])
    def test_what_is_no_picture_fails_with_a_sentence(self, serving: Serving, junk: bytes) -> None:
        serving.configure(server(wire="jpeg"))
        with pytest.raises(InferenceServerException, match="no JPEG or PNG that can be decoded"):
            ask(serving, files([*images.jpegs(0, 1, 64, 64), junk]), "UINT8")
        assert ask(serving, files(images.jpegs(0, 1, 64, 64)), "UINT8")  # the next one is served

    def test_only_the_output_asked_for_comes_back(self, serving: Serving) -> None:
        sent = images.images(0, 2, 224, 224)
        served = serving.configure(server(output="pooler_output"))
        found = ask(serving, sent, "FP32")
        assert {entry["name"] for entry in served.metadata["outputs"]} == found.keys() == {"pooler_output"}
        expected = reference_process.outputs(TINY, sent)["pooler_output"]
        assert np.abs(found["pooler_output"] - expected).max() < 1e-4

    def test_compiled_values_are_the_same(self, serving: Serving) -> None:
        if not Host.here().has_compiler:
            pytest.skip("no C++ compiler")
        serving.configure(server(compile="default"))
        sent = images.images(0, 3, 224, 224)
        expected = reference_process.last_hidden_state(TINY, sent)
        for n in (1, 2, 3):
            assert np.abs(ask(serving, sent[:n], "FP32")["last_hidden_state"] - expected[:n]).max() < 1e-3

    def test_weights_without_a_pooler_have_no_pooler_output(self, serving: Serving, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        reference_process.write_snapshot(TINY, tmp_path)
        path = tmp_path / "model.safetensors"
        save_file({k: v for k, v in load_file(path).items() if "pooler" not in k}, path)
        assert reference_process.outputs(str(tmp_path), images.images(0, 1, 224, 224)).keys() == {
            "last_hidden_state"
        }
        with pytest.raises(ModelLoadFailed, match="have no pooler: set the parameter `output`"):
            serving.configure(server(weights=str(tmp_path), output="pooler_output"))


@pytest.mark.e2e
def test_a_sweep_changes_variants_live_and_checks_every_one(tmp_path: Path) -> None:
    asked = [
        *("sweep", "--vit", "tiny", "--precision", "bf16", "--wire", "uint8,jpeg"),
        *("--output", "pooler_output", "--batch", "2", "--concurrency", "1", "--protocol", "http,grpc"),
        *("--duration", "0.5s", "--warmup", "0s", "--quick"),
        *("--check", "100%", "--out", str(tmp_path / "run")),
    ]
    result = CliRunner().invoke(command, asked)
    assert result.exit_code == 0, result.output
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    assert set(cells["wire"]) == {"uint8", "jpeg"}
    assert set(cells["precision"]) == {"bf16"}
    assert set(cells["compile"]) == {"none"}
    assert (cells["verdict"] == "VALID").all()
    assert not cells["findings"].fillna("").str.contains("not-compared").any()
