"""A service's pods as one fleet: reached directly or by port-forward, scaled, configured, taken back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from bench.address import target_of
from bench.cell import ServerConfiguration, Via
from bench.cluster import Cluster
from bench.errors import DeployFailed, ModelLoadFailed, Unreachable
from bench.fleet import Fleet
from bench.platforms import Platform
from bench.pods import Pod
from bench.port_forward import PortForward, dial_pod, reachable
from bench.rollout import Deployed, scale
from bench.serving import Serving
from bench.trial import Served, Target
from bench.triton import Triton

Say = Callable[[str], None]


@dataclass(slots=True)
class Site:
    """Where a service can be reached from here. A context manager: its port-forwards end with it."""

    cluster: Cluster
    deployed: Deployed
    vias: tuple[Via | None, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    forwarded: bool = False
    _pods: tuple[Pod, ...] = ()
    _fleet: Fleet | None = None
    _ways: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None
        self._ways.close()

    def fleet(self) -> Fleet:
        """The pods that are there now, each asked by itself.

        Raises Unreachable where none is ready, or the platform's address is asked for and silent.
        """
        pods = tuple(pod for pod in self.cluster.pods(self.deployed.selector) if pod.ready)
        if not pods:
            raise Unreachable(f"No pod of {self.deployed.name} is ready: see `kubectl get pods`.")
        if self._fleet is None or pods != self._pods:
            self.__exit__()
            self._ways, self._pods, self.forwarded = ExitStack(), pods, False
            targets = tuple(self._target(pod) for pod in pods)
            self._fleet = Fleet(replace(self._platform(), pods=targets))
        return self._fleet

    def describe(self) -> str:
        """Of the client's place."""
        if self.cluster.in_cluster:
            return "client in the cluster"
        way = "to the pods through port-forward" if self.forwarded else "to the pods directly"
        return f"client outside the cluster, {way}"

    def _target(self, pod: Pod) -> Target:
        ports = (pod.http_port, pod.grpc_port, pod.metrics_port)
        host, local = pod.ip, dict(zip(ports, ports, strict=True))
        if not reachable(pod.ip, pod.http_port):
            dial = dial_pod(self.cluster, pod.name)
            dial(pod.http_port).close()  # a refusal is better told here than as broken connections
            host = "127.0.0.1"
            local = dict(self._ways.enter_context(PortForward(dial, ports)).local)
            self.forwarded = True
        http, grpc, metrics = (f"{_host(host)}:{local[port]}" for port in ports)
        return Target(f"http://{http}", grpc, f"http://{metrics}/metrics", self.headers, name=pod.name)

    def _platform(self) -> Target:
        """The service's own address; without one from here, requests go straight to the pods."""
        url = self.deployed.url
        if _answers(url, self.headers):
            found = target_of(url, None, None, self.headers)
            # Only a plain Service has Triton's ports side by side; the others show one, and it is HTTP.
            plain = self.deployed.platform is Platform.DEPLOYMENT
            return replace(found, grpc_address=found.grpc_address if plain else None, metrics_url=None)
        if Via.PLATFORM in self.vias:
            raise Unreachable(
                f"The service's address {url or '(none)'} does not answer from here: run inside the "
                "cluster, make its name known here, or give --via pod."
            )
        return Target("", headers=self.headers)


class ClusterServing(Serving):
    """One model on every pod of a service; `replicas` of a configuration scales it first."""

    def __init__(self, site: Site, model: str, say: Say, timeout_s: float) -> None:
        self._site, self._say, self._timeout_s = site, say, timeout_s
        self._as_found = len(site.deployed.pods)
        self._scaled = False
        super().__init__(site.fleet(), model)

    def configure(self, server: ServerConfiguration) -> Served:
        """As `Serving`, on every pod. Raises ModelLoadFailed also where it cannot be scaled so."""
        if server.replicas is not None:
            self._scale(server.replicas)
        self.triton = self._site.fleet()  # the platform may have replaced a pod meanwhile
        served = super().configure(replace(server, replicas=None))
        return replace(served, target=self.triton.target)

    def restore(self) -> None:
        """The replicas and the configuration that were there before."""
        if self._scaled:
            self._scale(self._as_found)
        self.triton = self._site.fleet()
        super().restore()

    def _scale(self, replicas: int) -> None:
        if replicas == len(self._site.deployed.pods):
            return
        self._say(f"scaling {self._site.deployed.name} to {replicas}")
        self._scaled = True
        try:
            deployed = scale(self._site.cluster, self._site.deployed, replicas, self._say, self._timeout_s)
        except DeployFailed as error:
            raise ModelLoadFailed(str(error)) from error
        self._site.deployed = deployed


def _answers(url: str, headers: tuple[tuple[str, str], ...]) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not parts.hostname or not reachable(parts.hostname, port):
        return False
    control = Triton(Target(url, headers=headers))
    try:
        return control.live()
    finally:
        control.close()


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
