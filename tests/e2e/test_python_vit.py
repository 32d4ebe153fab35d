"""The ViT: its parts without Triton, and the values a real Triton serves."""

from __future__ import annotations

import importlib
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed
from bench.server import model_config, reference_process
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.repository import with_weights
from bench.server.weights import resolve
from tests.support.nvidia_client import ask

FOLDER = Path(__file__).parents[2] / "model_repository" / "python_vit"
TINY = "random:tiny:seed=0"
TOLERANCE = 1e-4  # absolute, fp32

sys.path.insert(0, str(FOLDER / "1"))
torch: Any = None
preprocess: Any = None
pictures: Any = None
vit: Any = None
batch: Any = None
network: Any = None
variant: Any = None

Pixels = NDArray[np.float32]


def images(n: int, height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _parts() -> None:
    """torch is imported by the first of these tests: each process that collects them would wait for it."""
    parts = {"torch": pytest.importorskip("torch"), "variant": importlib.import_module("settings")}
    parts |= {
        name: importlib.import_module(name) for name in ("preprocess", "pictures", "vit", "batch", "network")
    }
    globals().update(parts)


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    torch.set_num_threads(1)


def file_of(width: int, height: int) -> Any:
    """A PNG of one bit a pixel, small whatever it claims to hold."""
    content = io.BytesIO()
    Image.new("1", (width, height)).save(content, "PNG")
    return torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)


class TestLimits:
    """Of one request, whatever its images claim: a sentence, before memory is taken."""

    def test_the_images_of_a_request_count_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = file_of(5000, 7000)
        monkeypatch.setattr(pictures, "_pixels", lambda _: pytest.fail("one was decoded"))
        with pytest.raises(ValueError, match="70000000 pixels in one request are too many; at most 67108864"):
            pictures.Decoder(2).decode([whole, whole])

    def test_no_side_is_longer_than_its_weights_may_be_many(self) -> None:
        with pytest.raises(ValueError, match="no side may have more than 65536"):
            pictures.picture(file_of(70_000, 1))

    def test_what_is_within_the_limit_is_decoded(self) -> None:
        assert [each.shape for each in pictures.Decoder(2).decode([file_of(30, 20)] * 2)] == [
            (1, 20, 30, 3)
        ] * 2

    def test_weights_of_many_sizes_take_bounded_memory(self) -> None:
        weights = preprocess._Recent(preprocess._weighted, 1 << 19)
        for size in range(2000, 2200, 10):
            assert weights(size, 224, torch.device("cpu")) is weights(size, 224, torch.device("cpu"))
            assert weights.bytes <= 1 << 19
        assert 1 < len(weights._known) < 20
        assert weights.bytes == sum(map(preprocess._bytes, weights._known.values()))


class TestPreprocess:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99))
    def test_resizing_gives_pillow_s_bytes(self, height: int, width: int, seed: int) -> None:
        image = images(1, height, width, seed)[0].astype(np.uint8)
        expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR))
        found = preprocess.resize(torch.from_numpy(image[None]).float())[0].numpy()
        assert np.array_equal(found, expected)

    @pytest.mark.parametrize("value", [0, 1, 254, 255])
    def test_a_plain_image_stays_plain(self, value: int) -> None:
        found = preprocess.prepare(torch.full((1, 37, 501, 3), float(value)))
        assert found.shape == (1, 224, 224, 3)
        assert np.allclose(found.numpy(), value / 127.5 - 1, atol=1e-6)

    def test_values_outside_0_to_255_are_clamped_before_resizing(self) -> None:
        found = preprocess.prepare(torch.tensor([-9.0, 300.0]).view(1, 2, 1, 1).expand(1, 2, 5, 3))
        assert (found.min().item(), found.max().item()) == (-1, 1)

    def test_bytes_are_resized_as_floats_are(self) -> None:
        sent = torch.from_numpy(images(2, 90, 300))
        assert torch.equal(preprocess.squared(sent.byte()), preprocess.squared(sent))
        assert torch.equal(preprocess.prepare(sent.byte()), preprocess.prepare(sent))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_not_resized_away(self, value: float) -> None:
        sent = torch.from_numpy(images(2, 300, 300))
        sent[1, 7, 7, 0] = value
        finite = torch.isfinite(preprocess.squared(sent)).flatten(1).any(1)
        assert finite.tolist() == [True, False]


class TestBatch:
    @pytest.mark.parametrize("kind", ["float32", "uint8"])
    def test_requests_of_several_sizes_lie_side_by_side_in_their_order(self, kind: str) -> None:
        dtype = getattr(torch, kind)
        sizes = [(1, 224, 224), (2, 40, 30), (1, 224, 224), (3, 300, 224)]
        sent = [torch.from_numpy(images(*size, seed)).to(dtype) for seed, size in enumerate(sizes)]
        found = batch.Batch(8, dtype, torch.device("cpu")).fill(sent)
        expected = torch.cat([preprocess.squared(each).to(dtype) for each in sent])
        assert torch.equal(found, expected)

    def test_a_gpu_s_staging_memory_gives_the_same_batch_and_grows(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its way, on a CPU: memory cannot be pinned here, and the device is this one."""
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *shape, dtype, **_: empty(*shape, dtype=dtype))
        staged = batch.Batch(8, torch.uint8, torch.device("cpu"))
        staged._on_gpu, staged._staging = True, empty(1, dtype=torch.uint8)
        sizes = [(2, 224, 224), (1, 90, 300), (1, 900, 700), (1, 224, 224), (3, 224, 224)]
        sent = [torch.from_numpy(images(*size, seed=i)).byte() for i, size in enumerate(sizes)]
        alone = batch.Batch(8, torch.uint8, torch.device("cpu"))
        for requests in (sent, sent[::-1], sent[:1]):
            assert torch.equal(staged.fill(requests), torch.cat([alone.fill([each]) for each in requests]))
            # Copies may still be under way, so that no part may lie where another was.
            bytes_sent = torch.cat([each.flatten() for each in requests])
            assert torch.equal(staged._staging[: len(bytes_sent)], bytes_sent)

    def test_one_request_of_the_right_size_is_not_copied(self) -> None:
        sent = torch.from_numpy(images(3, 224, 224))
        assert batch.Batch(8, torch.float32, torch.device("cpu")).fill([sent]).data_ptr() == sent.data_ptr()

    def test_only_the_request_with_a_bad_answer_is_told(self) -> None:
        states = torch.zeros(6, 4, 2)
        states[3, 0, 1] = torch.nan
        assert batch.unusable([states], [1, 2, 2, 1]) == [False, False, True, False]

    @pytest.mark.parametrize(("most", "expected"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
    def test_buckets_are_powers_of_two_up_to_the_maximum(self, most: int, expected: list[int]) -> None:
        assert network.buckets(most) == expected


class TestWeights:
    def test_the_same_seed_gives_the_same_values_and_another_does_not(self) -> None:
        _, one = vit.random_weights(TINY)
        _, same = vit.random_weights(TINY)
        _, other = vit.random_weights("random:tiny:seed=1")
        name = "encoder.layer.3.intermediate.dense.weight"
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
        assert one[name].std().item() == pytest.approx(0.02, rel=0.02)

    @pytest.mark.parametrize(("size", "millions"), [("base", 86.39), ("tiny", 5.56)])
    def test_sizes_have_the_known_number_of_parameters(self, size: str, millions: float) -> None:
        shapes = vit.shapes(vit.SIZES[size]).values()
        assert sum(np.prod(shape) for shape in shapes) / 1e6 == pytest.approx(millions, abs=0.005)

    @pytest.mark.parametrize(
        "weights", ["random:huge:seed=0", "random:tiny", "random:tiny:seed=x", "random:"]
    )
    def test_a_misspelt_random_is_told_what_to_give(self, weights: str) -> None:
        with pytest.raises(RuntimeError, match="give random:SIZE:seed=N, SIZE one of base, tiny"):
            vit.build(weights)

    def test_a_snapshot_is_read_from_either_kind_of_file(self, tmp_path: Path) -> None:
        reference_process.write_snapshot(TINY, tmp_path)
        x = torch.zeros(1, 224, 224, 3)
        with torch.inference_mode():
            expected = vit.build(TINY)(x)
            assert torch.equal(vit.build(str(tmp_path))(x), expected)
            state = {f"vit.{name}": tensor for name, tensor in vit.random_weights(TINY)[1].items()}
            (tmp_path / "model.safetensors").unlink()
            torch.save(state, tmp_path / "pytorch_model.bin")  # and as part of a classifier
            assert torch.equal(vit.build(str(tmp_path))(x), expected)

    @pytest.mark.parametrize(
        ("file", "change", "told"),
        [
            ("config.json", {"model_type": "bert"}, "model_type is bert, served is vit"),
            ("config.json", {"patch_size": 32}, "patch_size is 32, served is 16"),
            ("config.json", {"image_size": 384}, "image_size is 384, served is 224"),
            ("config.json", {"hidden_act": "relu"}, "hidden_act is relu, served is gelu"),
            ("preprocessor_config.json", {"image_mean": [0.4, 0.4, 0.4]}, r"image_mean is \[0.4"),
            ("preprocessor_config.json", {"resample": 3}, "resample is 3, served is 2"),
        ],
    )
    def test_what_would_be_computed_otherwise_is_refused(
        self, tmp_path: Path, file: str, change: dict[str, Any], told: str
    ) -> None:
        reference_process.write_snapshot(TINY, tmp_path)
        path = tmp_path / file
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**settings, **change}))
        with pytest.raises(RuntimeError, match=told):
            vit.build(str(tmp_path))

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path) -> None:
        reference_process.write_snapshot(TINY, tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(RuntimeError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
            vit.build(str(tmp_path))

    def test_weights_of_another_model_are_refused(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        reference_process.write_snapshot(TINY, tmp_path)
        save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(RuntimeError, match="not those of a ViT"):
            vit.build(str(tmp_path))


def load(control: Triton, **parameters: str) -> None:
    """The tiny ViT; `instances` among `parameters` is the instance count."""
    config = with_weights(model_config.read(FOLDER / "config.pbtxt"), resolve("tiny", has_gpu=False))
    instances = int(parameters.pop("instances", "1"))
    asked = ServerConfiguration(model="python_vit", instances=instances, parameters=tuple(parameters.items()))
    control.load("python_vit", model_config.variant(config, asked))


@pytest.fixture(scope="module")
def served(triton: EmbeddedTriton) -> EmbeddedTriton:
    control = Triton(triton.target)
    load(control)
    control.close()
    return triton


@pytest.mark.e2e
class TestServed:
    @pytest.mark.parametrize(
        ("height", "width", "batches"), [(224, 224, (1, 2, 9)), (480, 640, (3,))], ids=["224x224", "480x640"]
    )
    def test_values_are_transformers_for_every_batch_and_size(
        self, served: EmbeddedTriton, height: int, width: int, batches: tuple[int, ...]
    ) -> None:
        sent = images(max(batches), height, width)
        expected = reference_process.last_hidden_state(TINY, sent)
        for n in batches:
            found = ask(served.target, "python_vit", image=sent[:n])
            assert found.shape == (n, 197, 192)
            assert np.abs(found - expected[:n]).max() < TOLERANCE

    @pytest.mark.parametrize(
        ("shape", "told"),
        [
            ((1, 224, 224, 1), "give height x width x 3"),
            ((1, 3, 224, 224), "give height x width x 3"),
            ((1, 224, 0, 3), "an axis is empty"),
        ],
    )
    def test_an_image_of_another_layout_is_refused_with_a_sentence(
        self, served: EmbeddedTriton, shape: tuple[int, ...], told: str
    ) -> None:
        with pytest.raises(InferenceServerException, match=told):
            ask(served.target, "python_vit", image=np.zeros(shape, np.float32))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_value_that_is_not_finite_is_seen(self, served: EmbeddedTriton, value: float) -> None:
        sent = images(3, 50, 60)
        sent[2, 49, 59, 2] = value
        with pytest.raises(InferenceServerException, match="not finite"):
            ask(served.target, "python_vit", image=sent)

    def test_more_than_the_maximum_batch_is_refused_by_triton(self, served: EmbeddedTriton) -> None:
        with pytest.raises(InferenceServerException, match="batch-size must be <= 64"):
            ask(served.target, "python_vit", image=images(65, 8, 8))


@pytest.mark.e2e
def test_requests_of_one_execution_share_a_pass_and_a_bad_one_fails_alone(triton: EmbeddedTriton) -> None:
    control = Triton(triton.target)
    config = with_weights(model_config.read(FOLDER / "config.pbtxt"), resolve("tiny", has_gpu=False))
    # Waits until a full batch of 8 has come, so that one execution gets all of it, whatever the timing.
    config["dynamic_batching"] = {"preferred_batch_size": [8], "max_queue_delay_microseconds": 20_000_000}
    config["max_batch_size"] = 8
    control.load("python_vit", config)
    sent = [images(1, 40, 30, 1), images(2, 224, 224, 2), images(1, 40, 30, 3), images(3, 90, 30, 4)]
    bad = images(1, 40, 30, 5)
    bad[0, 0, 0, 0] = np.nan
    with ThreadPoolExecutor(5) as pool:
        before = control.statistics("python_vit")
        answers = [pool.submit(ask, triton.target, "python_vit", image=x) for x in [*sent, bad]]
        assert "not finite" in str(answers.pop().exception(timeout=60))
        for x, answer in zip(sent, answers, strict=True):
            expected = reference_process.last_hidden_state(TINY, x)
            assert np.abs(answer.result(timeout=60) - expected).max() < TOLERANCE
        counted = control.statistics("python_vit") - before
    control.close()
    assert (counted.inference_count, counted.execution_count) == (8, 1)


@pytest.mark.e2e
def test_what_cannot_be_served_fails_to_load_with_the_parameter_to_set(triton: EmbeddedTriton) -> None:
    control = Triton(triton.target)
    with pytest.raises(ModelLoadFailed, match="set the parameter `weights` to a snapshot folder"):
        load(control, weights="/no/such/folder")
    control.close()


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"weights": "random:base:seed=0"}, r"set dims of last_hidden_state to \[197, 768\]"),
        ({"precision": "int4"}, "precision 'int4' is unknown: fp32, tf32, bf16, fp16"),
        ({"precision": "tf32"}, "precision tf32 needs a GPU"),
        ({"wire": "uint8"}, "wire uint8 takes TYPE_UINT8"),
        ({"output": "both"}, "output both needs the outputs"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_with_what_to_set(
    parameters: dict[str, str], told: str
) -> None:
    """Without a server: only the sizes of the weights are asked for, so none are made."""
    config = with_weights(model_config.read(FOLDER / "config.pbtxt"), resolve("tiny", has_gpu=False))
    config["parameters"] |= {name: {"string_value": value} for name, value in parameters.items()}
    size = parameters.get("weights", TINY).split(":")[1]
    with pytest.raises(RuntimeError, match=told), torch.device("meta"):
        variant.Settings.of(config, "cpu").check(vit.Vit(vit.SIZES[size], has_pooler=True))


@pytest.mark.e2e
def test_instances_share_the_cores_and_give_the_same_values(triton: EmbeddedTriton) -> None:
    control = Triton(triton.target)
    load(control, instances="2")
    control.close()
    sent = images(2, 64, 64)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(triton.target, "python_vit", image=sent), range(8)))
    expected = reference_process.last_hidden_state(TINY, sent)
    assert all(np.abs(each - expected).max() < TOLERANCE for each in found)
