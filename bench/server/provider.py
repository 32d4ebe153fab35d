"""Providers of targets: each opens one for as long as a `with` block lasts.

    with provider.open("python_vit", print, log) as session:
        session.serving.configure(...)

`bench.cluster.session` has the provider of a service on a Kubernetes cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol as Interface

from bench.core.errors import Unreachable
from bench.core.target import INSECURE_WARNING, Target
from bench.server.control import Triton
from bench.server.embedded import OwnTriton, find_tritonserver, start
from bench.server.repository import Repository
from bench.server.serving import Serving
from bench.server.session import Say, Session


class Provider(Interface):
    """Somebody who can open a target."""

    @property
    def repository(self) -> Repository | None:
        """The models on this disk, where the target will serve those; None: only the server can tell."""

    @property
    def cost(self) -> str:
        """What opening it takes from others, in a sentence; "" for nothing worth one."""

    def open(self, model: str, say: Say, log: Path) -> AbstractContextManager[Session]:
        """A session whose serving is of `model`. `log`: where a server of ours writes.

        Raises TargetError where it cannot be had. What was made or changed is gone when the block ends.
        """


@dataclass(frozen=True, slots=True)
class EmbeddedProvider:
    """Starts a tritonserver on this machine."""

    repository: Repository = field(default_factory=Repository)
    tritonserver: Path | None = None  # None: the one found here
    ports: tuple[int, int, int] = (0, 0, 0)  # HTTP, gRPC, metrics; 0: any free one
    cost: str = ""

    @contextmanager
    def open(self, model: str, say: Say, log: Path) -> Iterator[Session]:
        """Raises ServerStartFailed; the server is gone when the block ends."""
        config, weights = self.repository.base(model)
        if weights:
            say(weights.origin)
        server = find_tritonserver(self.tritonserver)
        path = self.repository.path
        launch = partial(start, path, log=log, server=server, ports=self.ports, progress=say)
        with closing(OwnTriton(launch, say)) as triton:
            yield Session(
                triton,
                Serving(triton, model, config, is_ours=True),
                f"embedded tritonserver ({server.origin}), client on the same host",
                weights.origin if weights else "",
                self.repository,
            )


@dataclass(frozen=True, slots=True)
class AddressProvider:
    """Connects to a Triton that runs already, and leaves it as it was."""

    target: Target
    repository: None = None
    cost: str = ""

    @contextmanager
    def open(self, model: str, say: Say, log: Path) -> Iterator[Session]:  # noqa: ARG002
        """Raises Unreachable."""
        if self.target.tls.insecure:
            say(INSECURE_WARNING)
        triton = Triton(self.target)
        try:
            if not triton.live():
                triton.server()  # says why, if nothing answers at all
                raise Unreachable(
                    f"{self.target.http_url} answers, but is not live: wait for it, or read its log."
                )
            serving = Serving(triton, model)
            yield Session(triton, serving, f"{self.target.http_url}, client on another process's host")
            serving.restore()
        finally:
            triton.close()
