"""A deployment from its first object to its last: applied, waited for, verified, and undone once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.cluster.api import Cluster
from bench.cluster.deploy.rollout import Deployed, Say, deploy_all, undeploy
from bench.cluster.deploy.verify import verify
from bench.cluster.platforms.base import DeploymentSpec
from bench.core.errors import BenchError, DeployFailed
from bench.core.paths import MODEL_REPOSITORY
from bench.core.teardown import Teardown

_IN_FLIGHT_S = 0.5  # The API server may still carry out a call that an interrupt has cut off here.


@contextmanager
def deployed(
    cluster: Cluster,
    specs: Sequence[DeploymentSpec],
    say: Say,
    timeout_s: float,
    *,
    repository: Path = MODEL_REPOSITORY,
    keep_serving: bool = False,
    keep_failed: bool = False,
) -> Iterator[tuple[Deployed, ...]]:
    """Services that serve and have passed `verify`, for as long as the block lasts.

    They are removed when it ends, however it ends, unless they are to be kept: once they serve, or also when
    they never did. Raises DeployFailed with the cause, or ClusterError.
    """
    names = " and ".join(spec.name for spec in specs)
    which = names if len(specs) == 1 else f"--run-label {specs[0].run_label}"
    again = f"`bench undeploy {which}` removes"
    is_serving = False

    def undo() -> None:
        if keep_serving if is_serving else keep_failed:
            say(f"kept {names}; {again} it")
            return
        if not is_serving:
            time.sleep(_IN_FLIGHT_S)  # what was being applied arrives, and can be removed
        try:
            undeploy(cluster, say, names=[spec.name for spec in specs])
        except BenchError as error:
            say(f"{error} {again} what is left.")
            raise

    with Teardown(undo, f"Removing {names} first; that takes a moment."):
        say(f"deploying {names} as {specs[0].platform.name} in namespace {cluster.namespace}; {again} it")
        services = _served(cluster, specs, say, timeout_s)
        for spec, service in zip(specs, services, strict=True):
            verify(cluster, service.pods, spec.settings.model, repository)
        is_serving = True
        yield services


def _served(
    cluster: Cluster, specs: Sequence[DeploymentSpec], say: Say, timeout_s: float
) -> tuple[Deployed, ...]:
    try:
        return deploy_all(cluster, specs, say, timeout_s)
    except DeployFailed as error:
        if len(specs) == 1:
            raise
        raise DeployFailed(f"{error} With --protocol http, one of the two services is enough.") from error
