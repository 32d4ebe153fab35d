"""A service's pods as one fleet: reached directly or by port-forward, scaled, configured, taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bench.cluster.api import Cluster
from bench.cluster.deploy.rollout import Deployed, scale
from bench.cluster.pods import Pod
from bench.cluster.port_forward import bracketed, reach_pod, reachable
from bench.core.cell import Load, Protocol, ServerConfiguration, Via
from bench.core.errors import DeployFailed, ModelLoadFailed, Unreachable
from bench.core.target import GRPC_SERVICE, SERVICE, SYSTEM_TLS, Target, Tls
from bench.core.trial import Served
from bench.protocols.grpc import answers_grpc
from bench.protocols.routes import routes
from bench.server.control import Triton
from bench.server.fleet import Fleet
from bench.server.serving import Serving

Say = Callable[[str], None]
Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ReachableService:
    """Where a service can be reached from here, and a second one that takes gRPC where there is one.

    A context manager: its port-forwards end with it.
    """

    cluster: Cluster
    services: tuple[Deployed, ...]  # one, or one for each protocol
    vias: tuple[Via | None, ...]
    protocols: tuple[Protocol, ...]  # that will be asked for
    headers: Headers = field(default=(), repr=False)
    tls: Tls = SYSTEM_TLS
    _pods: tuple[tuple[Pod, ...], ...] = ()
    _fleet: Fleet | None = None
    _forwards: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> ReachableService:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None
        self._forwards.close()

    def fleet(self) -> Fleet:
        """The pods that are there now, each asked by itself.

        Raises Unreachable where none is ready, or the platform's address is asked for and silent.
        """
        pods = tuple(self._ready(service) for service in self.services)
        if self._fleet is None or pods != self._pods:
            self.__exit__()
            self._forwards, self._pods = ExitStack(), pods
            self._fleet = Fleet(self._target(pods))
        return self._fleet

    def describe(self) -> str:
        """Say where the client runs, and which way each protocol takes."""
        where = "client in the cluster" if self.cluster.in_cluster else "client outside the cluster"
        target = self.fleet().target
        ways = (f"{protocol} through {_named(target, protocol, self.vias)}" for protocol in self.protocols)
        return ", ".join((where, *ways))

    def _ready(self, service: Deployed) -> tuple[Pod, ...]:
        pods = tuple(pod for pod in self.cluster.pods(service.selector) if pod.ready)
        if not pods:
            raise Unreachable(f"No pod of {service.name} is ready: see `kubectl get pods`.")
        return pods

    def _target(self, ready: tuple[tuple[Pod, ...], ...]) -> Target:
        """By the service that takes HTTP; gRPC has its own address beside, or leaves it to the pods."""
        pods = {
            s.name: tuple(reach_pod(self.cluster, pod, self._forwards, self.headers) for pod in some)
            for s, some in zip(self.services, ready, strict=True)
        }
        first = next((s for s in self.services if s.traffic is Protocol.HTTP), self.services[0])
        url = first.url if first.traffic is Protocol.HTTP else ""
        known = self._answering(url, Protocol.HTTP)
        base = Target(url, way=SERVICE) if known else Target("")
        return replace(
            base, headers=self.headers, tls=self.tls, pods=pods[first.name], over_grpc=self._over_grpc(pods)
        )

    def _over_grpc(self, pods: Mapping[str, tuple[Target, ...]]) -> Target | None:
        """A service of its own before a port beside HTTP. None: the platform has no address for gRPC."""
        urls = [(s.url if s.traffic is Protocol.GRPC else s.grpc_url, s) for s in self.services]
        urls.sort(key=lambda pair: pair[1].traffic is not Protocol.GRPC)
        url, service = next(((u, s) for u, s in urls if u), ("", self.services[0]))
        if not self._answering(url, Protocol.GRPC):
            return replace(Target(""), headers=self.headers, pods=pods[service.name]) if url else None
        way = SERVICE if len(self.services) == 1 else GRPC_SERVICE
        return Target(
            url, grpc_place(url), headers=self.headers, pods=pods[service.name], way=way, tls=self.tls
        )

    def _answering(self, url: str, protocol: Protocol) -> bool:
        if protocol not in self.protocols:
            return False
        if _answers(url, protocol, self.headers, self.tls):
            return True
        if url and Via.PLATFORM in self.vias:
            raise Unreachable(
                f"The service's address {url} does not answer {protocol} from here: run inside the "
                "cluster, make its name known here, or give --via pod."
            )
        return False


class ClusterServing(Serving):
    """One model on every pod of all services; `replicas` of a configuration scales each of them first."""

    def __init__(self, service: ReachableService, model: str, say: Say, timeout_s: float) -> None:
        self._service, self._say, self._timeout_s = service, say, timeout_s
        self._as_found = [len(one.pods) for one in service.services]
        self._scaled = False
        super().__init__(service.fleet(), model)

    def configure(self, server: ServerConfiguration, *, afresh: bool = False) -> Served:
        """As `Serving`, on every pod. Raises ModelLoadFailed also where it cannot be scaled so."""
        if server.replicas is not None:
            self._scale([server.replicas] * len(self._service.services))
        self.triton = self._service.fleet()  # the platform may have replaced a pod meanwhile
        served = super().configure(replace(server, replicas=None), afresh=afresh)
        return replace(served, target=self.triton.target)

    def restore(self) -> None:
        """The replicas and the configuration that were there before."""
        if self._scaled:
            self._scale(self._as_found)
        self.triton = self._service.fleet()
        super().restore()

    def _scale(self, replicas: Sequence[int]) -> None:
        for i, (service, wanted) in enumerate(zip(self._service.services, replicas, strict=True)):
            if wanted == len(service.pods):
                continue
            self._say(f"scaling {service.name} to {wanted}")
            self._scaled = True
            try:
                scaled = scale(self._service.cluster, service, wanted, self._say, self._timeout_s)
            except DeployFailed as error:
                raise ModelLoadFailed(str(error)) from error
            services = self._service.services
            self._service.services = (*services[:i], scaled, *services[i + 1 :])


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def grpc_place(url: str) -> str:
    """host:port of a URL."""
    host, port = _place(url)
    return f"{bracketed(host)}:{port}"


def _answers(url: str, protocol: Protocol, headers: Headers, tls: Tls) -> bool:
    if not url or not reachable(*_place(url)):
        return False
    if protocol is Protocol.GRPC:
        return answers_grpc(grpc_place(url), headers, Target(url, tls=tls).access)
    with closing(Triton(Target(url, headers=headers, tls=tls))) as control:
        return control.live()


def _named(target: Target, protocol: Protocol, vias: Sequence[Via | None]) -> str:
    loads = [Load(protocol=protocol, batch=1, concurrency=1, via=via) for via in vias]
    return " and ".join(dict.fromkeys(f"the {routes(target, load)[0].way}" for load in loads))
