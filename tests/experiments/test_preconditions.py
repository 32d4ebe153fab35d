"""What a server is not asked: to load models where it only serves those of its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from bench.core.errors import TargetError, WrongUse
from bench.core.spec import Reload, SweepSpec
from bench.core.target import Target
from bench.experiments.preconditions import check_open
from bench.server.control import Triton
from bench.server.session import Session


class Answering(Triton):
    """Says this to every request to load a model."""

    def __init__(self, says: str) -> None:
        super().__init__(Target("http://h:1"))
        self._says = says

    def _request(self, *_: Any, **__: Any) -> Any:
        raise TargetError(self._says)

    def models(self) -> tuple[str, ...]:
        return ("m",)


REFUSES = "explicit model load / unload is not allowed if polling is enabled"
HAS_NONE = "failed to load 'no-such-model-of-bench', failed to poll from model repository"


@pytest.mark.parametrize(("says", "allows"), [(REFUSES, False), (HAS_NONE, True)])
def test_a_server_tells_whether_it_loads_models_on_request(says: str, allows: bool) -> None:
    assert Answering(says).allows_loading() is allows


@dataclass
class Elsewhere:
    """A session with somebody else's server."""

    triton: Triton
    repository: None = None


def test_a_server_that_loads_nothing_is_not_asked_to_reload() -> None:
    spec = SweepSpec(model="m", batches=(1,), concurrencies=(1,), reload=Reload.REPEAT)
    session = cast(Session, Elsewhere(Answering(REFUSES)))
    with pytest.raises(WrongUse) as error:
        check_open(session, spec)
    (said,) = error.value.mistakes
    assert said.startswith("--reload repeat: that server loads no models on request")
    assert "--reload never" in said
