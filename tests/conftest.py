"""One real tritonserver for all end-to-end tests, on free ports, with no model loaded; one API server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bench.server.embedded import EmbeddedTriton, start
from tests.support.kube_api import api_server  # noqa: F401  # a fixture

# A shell that runs the tests in the background lets them, and all they start, ignore Ctrl-C, which is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes is the machine's business: no test asserts timings.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
REPOSITORY = Path(__file__).parents[1] / "model_repository"


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    with start(REPOSITORY, log=tmp_path_factory.mktemp("triton") / "server.log") as server:
        yield server
