"""A session with the target: what an experiment needs of a server while it is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.core.target import Target
from bench.server.control import Triton
from bench.server.repository import Repository
from bench.server.serving import Serving

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Session:
    """`repository`: of a server of ours, the models on this disk that it serves; None: somebody else's."""

    triton: Triton
    serving: Serving
    description: str  # for the report: what was measured, and where the client ran
    weights: str = ""  # one sentence, or ""
    repository: Repository | None = None

    @property
    def target(self) -> Target:
        """Where it is now: an embedded server that was started again has other ports."""
        return self.triton.target
