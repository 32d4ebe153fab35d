"""Calibration models: servers whose truth is known, on a real Triton."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed
from bench.core.trial import Counters
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.model_config import read, variant
from tests.support.nvidia_client import ask

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2] / "model_repository"
X = np.arange(16, dtype=np.float32).reshape(1, 16)


@pytest.fixture
def control(triton: EmbeddedTriton) -> Iterator[Triton]:
    opened = Triton(triton.target)
    yield opened
    opened.close()


def load(control: Triton, model: str, instances: int = 1, **parameters: float | str) -> None:
    asked = ServerConfiguration(
        model=model, instances=instances,
        parameters=tuple((name, str(value)) for name, value in parameters.items()),
    )  # fmt: skip
    control.load(model, variant(read(REPOSITORY / model / "config.pbtxt"), asked))


def asked_of_delay(control: Triton, requests: int, users: int = 1, batch: int = 1) -> Counters:
    before = control.statistics("delay")
    sent = np.repeat(X, batch, axis=0)
    with ThreadPoolExecutor(users) as pool:
        found = list(pool.map(lambda _: ask(control.target, "delay", x=sent), range(requests)))
    assert all(np.array_equal(each, sent) for each in found)
    for _ in range(100):  # Triton answers first and counts then
        counted = control.statistics("delay") - before
        if counted.success_count >= requests:
            break
        time.sleep(0.02)
    return counted


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_null_vit_has_the_vit_s_shapes_and_tells_items_apart(control: Triton, batch: int) -> None:
    load(control, "null_vit")
    found = ask(control.target, "null_vit", image=np.zeros((batch, 5, 6, 3)))
    assert found.shape == (batch, 197, 768)
    assert np.array_equal(found, np.broadcast_to(np.arange(1, batch + 1).reshape(-1, 1, 1), found.shape))


def test_null_small_answers_with_its_input(control: Triton) -> None:
    load(control, "null_small")
    sent = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    assert np.array_equal(ask(control.target, "null_small", x=sent), sent)


class TestDelay:
    """Durations are compared with the server's own counters; none may be shorter than the truth."""

    def test_an_execution_takes_the_delay(self, control: Triton) -> None:
        load(control, "delay", delay_ms=20)
        counted = asked_of_delay(control, requests=5)
        assert counted.execution_count == 5
        assert 100e6 <= counted.compute_infer_ns < 2e9  # never less; a busy machine adds to it

    def test_a_batch_takes_the_delay_once_and_its_items_part(self, control: Triton) -> None:
        load(control, "delay", delay_ms=20, delay_per_item_ms=2)
        counted = asked_of_delay(control, requests=2, batch=30)
        assert (counted.inference_count, counted.execution_count) == (60, 2)
        assert 160e6 <= counted.compute_infer_ns < 320e6

    def test_every_fourth_execution_is_slow_when_a_quarter_is_asked_for(self, control: Triton) -> None:
        load(control, "delay", delay_ms=5, slow_fraction=0.25, slow_factor=60)
        counted = asked_of_delay(control, requests=8)
        two_slow, three_slow = (6 * 5 + 2 * 300) * 1e6, (5 * 5 + 3 * 300) * 1e6
        assert two_slow <= counted.compute_infer_ns < three_slow

    def test_an_instance_works_on_one_request_at_a_time(self, control: Triton) -> None:
        load(control, "delay", instances=2, delay_ms=50)
        began = time.monotonic()
        counted = asked_of_delay(control, requests=12, users=4)
        took_s = time.monotonic() - began
        assert counted.execution_count == 12
        assert took_s >= 12 * 0.05 / 2  # no faster than instances / delay
        assert counted.queue_ns > 0

    def test_it_stalls_once(self, control: Triton) -> None:
        load(control, "delay", delay_ms=1, stall_after_s=0.01, stall_s=0.3)
        durations_s = []
        for _ in range(30):
            began = time.monotonic()
            ask(control.target, "delay", x=X)
            durations_s.append(time.monotonic() - began)
        assert sum(duration >= 0.3 for duration in durations_s) == 1
        assert durations_s[0] < 0.3


def test_faulty_fails_the_asked_fraction_with_its_own_message(control: Triton) -> None:
    load(control, "faulty", mode="error", fraction=0.5)
    for _ in range(3):
        assert np.array_equal(ask(control.target, "faulty", x=X), X)
        with pytest.raises(InferenceServerException, match="this request fails on purpose"):
            ask(control.target, "faulty", x=X)


def test_faulty_refuses_a_mode_it_does_not_know(control: Triton) -> None:
    with pytest.raises(ModelLoadFailed, match="mode 'odd' is unknown"):
        load(control, "faulty", mode="odd")
