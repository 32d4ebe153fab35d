"""A service on a cluster as a target: one that is there (--mlservice), or made for the run (--deploy)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.cluster.api import Cluster
from bench.cluster.deploy.manifests import KIND, DeploymentSpec, Platform
from bench.cluster.deploy.rollout import Deployed, deploy_all, found, undeploy
from bench.cluster.service import ClusterServing, Say, Site
from bench.core.cell import Protocol, Via
from bench.core.errors import BenchError, DeployFailed
from bench.core.teardown import Teardown
from bench.server.session import Session

# An API call that an interrupt cut off may still be carried out after it.
_IN_FLIGHT_S = 0.5


@dataclass(frozen=True, slots=True)
class KubernetesProvider:
    """Finds services by their names, or makes them as `specs` say; two where gRPC has its own."""

    platform: Platform
    names: tuple[str, ...]
    specs: tuple[DeploymentSpec, ...]
    protocols: tuple[Protocol, ...]
    most_replicas: int
    namespace: str | None
    context: str | None
    keep: bool
    timeout_s: float
    vias: tuple[Via | None, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    repository: None = None

    @property
    def cost(self) -> str:
        """What --deploy will hold, said before anything is applied; "" of a service that is there."""
        if not self.specs:
            return ""
        pods = self.most_replicas * len(self.specs)
        gpus = sum(self.most_replicas * spec.gpu for spec in self.specs)
        holds = f"needs up to {pods} pod{'s' * (pods != 1)} with {gpus} GPU{'s' * (gpus != 1)} in all"
        if len(self.specs) == 1:
            return holds
        return (
            f"{holds}: a platform's port is HTTP or gRPC, so each has a service with pods of its own. One "
            "--protocol, or --via pod, needs half of it"
        )

    @contextmanager
    def open(self, model: str, say: Say, log: Path) -> Iterator[Session]:  # noqa: ARG002
        """Raises ClusterError or DeployFailed; what --deploy made is gone when the block ends."""
        cluster = Cluster.connect(self.namespace, self.context)
        opened = self._made(cluster, model, say) if self.specs else self._there(cluster, model, say)
        with opened as session:
            yield session

    @contextmanager
    def _there(self, cluster: Cluster, model: str, say: Say) -> Iterator[Session]:
        services, names = _found(self, cluster), " and ".join(self.names)
        what = f"{KIND[self.platform]} {names} in namespace {cluster.namespace}"
        with (
            _serving(self, cluster, services, model, say) as (site, serving),
            Teardown(serving.restore, f"Taking {names} back to what it was first."),
        ):
            yield Session(serving.triton, serving, f"{what}, {site.describe()}")

    @contextmanager
    def _made(self, cluster: Cluster, model: str, say: Say) -> Iterator[Session]:
        with deployed_for(self, cluster, say) as services:
            what = f"{self.platform} made for the run from {self.specs[0].image}"
            with _serving(self, cluster, services, model, say) as (site, serving):
                yield Session(serving.triton, serving, f"{what}, {site.describe()}")
                if self.keep:
                    serving.restore()


@contextmanager
def deployed_for(place: KubernetesProvider, cluster: Cluster, say: Say) -> Iterator[tuple[Deployed, ...]]:
    """What `place` wants made, served in the block and gone after it, unless it is to be kept."""
    specs = tuple(replace(spec, namespace=cluster.namespace) for spec in place.specs)
    label, names = specs[0].run_label, " and ".join(spec.name for spec in specs)
    again = f"`bench undeploy --run-label {label}`"
    state = {"ready": False}

    def undo() -> None:
        if place.keep and state["ready"]:
            say(f"kept {names}; {again} removes it")
            return
        if not state["ready"]:
            time.sleep(_IN_FLIGHT_S)  # nobody can be asked whether it was
        try:
            undeploy(cluster, say, run_label=label)
        except BenchError as error:
            say(f"{error} {again} removes what is left.")
            raise

    with Teardown(undo, f"Removing {names} first; that takes a moment."):
        say(f"deploying {names} as {place.platform} in namespace {cluster.namespace}; {again} removes it")
        say(place.cost)
        services = _made(specs, cluster, say, place.timeout_s)
        state["ready"] = True
        yield services


def _made(
    specs: tuple[DeploymentSpec, ...], cluster: Cluster, say: Say, timeout_s: float
) -> tuple[Deployed, ...]:
    try:
        return deploy_all(cluster, specs, say, timeout_s)
    except DeployFailed as error:
        if len(specs) == 1:
            raise
        raise DeployFailed(f"{error} With --protocol http, one of the two services is enough.") from error


def _found(place: KubernetesProvider, cluster: Cluster) -> tuple[Deployed, ...]:
    """Raises DeployFailed where one is not there, or two take the same protocol."""
    services = tuple(found(cluster, place.platform, name) for name in place.names)
    if len({service.traffic for service in services}) < len(services):
        raise DeployFailed(
            f"--mlservice {','.join(place.names)}: the addresses of both take {services[0].traffic}; give "
            "one of them, or one for HTTP and one for gRPC (its runtime's port named h2c)."
        )
    return services


@contextmanager
def _serving(
    place: KubernetesProvider, cluster: Cluster, services: tuple[Deployed, ...], model: str, say: Say
) -> Iterator[tuple[Site, ClusterServing]]:
    with Site(cluster, services, place.vias, place.protocols, place.headers) as site:
        yield site, ClusterServing(site, model, say, place.timeout_s)
