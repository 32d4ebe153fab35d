"""A service on a cluster as a target: one that is there (--mlservice), or made for the run (--deploy)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.cluster.api import Cluster
from bench.cluster.deploy.lifecycle import deployed
from bench.cluster.deploy.rollout import Deployed, find_service
from bench.cluster.platforms.base import DeploymentSpec, Platform
from bench.cluster.service import ClusterServing, ReachableService, Say
from bench.core.cell import Protocol, Via
from bench.core.errors import DeployFailed
from bench.core.target import INSECURE_WARNING, SYSTEM_TLS, Tls
from bench.core.teardown import Teardown
from bench.server.session import Session


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
    tls: Tls = SYSTEM_TLS
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
        if self.tls.insecure:
            say(INSECURE_WARNING)
        cluster = Cluster.connect(self.namespace, self.context)
        opened = self._made(cluster, model, say) if self.specs else self._there(cluster, model, say)
        with opened as session:
            yield session

    @contextmanager
    def _there(self, cluster: Cluster, model: str, say: Say) -> Iterator[Session]:
        services, names = _found(self, cluster), " and ".join(self.names)
        what = f"{self.platform.kind} {names} in namespace {cluster.namespace}"
        with (
            _serving(self, cluster, services, model, say) as (site, serving),
            Teardown(serving.restore, f"Taking {names} back to what it was first."),
        ):
            yield Session(serving.triton, serving, f"{what}, {site.describe()}")

    @contextmanager
    def _made(self, cluster: Cluster, model: str, say: Say) -> Iterator[Session]:
        with deployed_for(self, cluster, say) as services:
            what = f"{self.platform.name} made for the run from {self.specs[0].image}"
            with _serving(self, cluster, services, model, say) as (site, serving):
                yield Session(serving.triton, serving, f"{what}, {site.describe()}")
                if self.keep:
                    serving.restore()


@contextmanager
def deployed_for(place: KubernetesProvider, cluster: Cluster, say: Say) -> Iterator[tuple[Deployed, ...]]:
    """What `place` wants made, served in the block and gone after it, unless it is to be kept."""
    say(place.cost)
    specs = [replace(spec, namespace=cluster.namespace) for spec in place.specs]
    with deployed(cluster, specs, say, place.timeout_s, keep_serving=place.keep) as services:
        yield services


def _found(place: KubernetesProvider, cluster: Cluster) -> tuple[Deployed, ...]:
    """Raises DeployFailed where one is not there, or two take the same protocol."""
    services = tuple(find_service(cluster, place.platform, name) for name in place.names)
    if len({service.traffic for service in services}) < len(services):
        raise DeployFailed(
            f"--mlservice {','.join(place.names)}: the addresses of both take {services[0].traffic}; give "
            "one of them, or one for HTTP and one for gRPC (its runtime's port named h2c)."
        )
    return services


@contextmanager
def _serving(
    place: KubernetesProvider, cluster: Cluster, services: tuple[Deployed, ...], model: str, say: Say
) -> Iterator[tuple[ReachableService, ClusterServing]]:
    with ReachableService(cluster, services, place.vias, place.protocols, place.headers, place.tls) as site:
        yield site, ClusterServing(site, model, say, place.timeout_s)
