"""Whatever a server says of itself ends as a value or as one sentence, in time and in bounded memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.core.cell import ServerConfiguration
from bench.core.errors import BenchError
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from bench.server.reader import Reader
from tests.faults.proxy import Proxy, proxy
from tests.faults.table import CONTROL
from tests.support.calibration import serve

pytestmark = pytest.mark.e2e

MODEL = "null_small"
TIMEOUT_S = 0.3
HANGS_S = 20.0  # A busy machine may hold a test up for seconds. What takes longer than this has hung.
MOST_BYTES = 64 << 20
# Question -> the path that the server is asked at.
QUESTIONS: dict[str, tuple[Callable[[Triton], Any], str]] = {
    "server": (Triton.server, "/v2 "),
    "metadata": (lambda triton: triton.metadata(MODEL), f"/v2/models/{MODEL} "),
    "config": (lambda triton: triton.config(MODEL), f"/v2/models/{MODEL}/config "),
    "statistics": (lambda triton: triton.statistics(MODEL) - triton.statistics(MODEL), "/stats "),
    "index": (Triton.models, "/v2/repository/index "),
    "load": (lambda triton: triton.load(MODEL), "/load "),
    "live": (Triton.live, "/v2/health/live "),
    "model ready": (lambda triton: triton.model_ready(MODEL), f"/v2/models/{MODEL}/ready "),
    "metrics": (Triton.metrics, "/metrics "),
}


@pytest.fixture(scope="module")
def between(triton: EmbeddedTriton) -> Iterator[Proxy]:
    serve(triton, ServerConfiguration(model=MODEL, instances=1))
    with proxy(urlsplit(triton.target.http_url).netloc) as one:
        yield one


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("fault", CONTROL)
def test_an_answer_of_the_control_side_is_a_value_or_a_sentence(
    question: str, fault: str, triton: EmbeddedTriton, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_in_time = Reader.ask
    monkeypatch.setattr(Reader, "ask", lambda one, url, _, *more: ask_in_time(one, url, TIMEOUT_S, *more))
    ask, between.path = QUESTIONS[question]
    between.play, played = CONTROL[fault], between.played
    url = f"http://{between.address}"
    one = Triton(replace(triton.target, http_url=url, metrics_url=f"{url}/metrics"))
    tracemalloc.start()
    started = time.monotonic()
    try:
        ask(one)
    except BenchError as error:
        told = str(error)
        assert told.strip()
        assert "\n" not in told
        assert len(told) < 1000
        assert told == told.encode(errors="replace").decode()
    finally:
        took_s = time.monotonic() - started
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        between.play = None
        one.close()
    assert between.played > played
    assert took_s < HANGS_S
    assert most < MOST_BYTES
