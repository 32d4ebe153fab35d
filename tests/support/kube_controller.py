"""What a cluster would do, on the tests' API server: pods for each service, and a status that walks to Ready.

The predictor of each pod is a real server on this machine, when the test gives one; its pod's address is
127.0.0.1 and its ports stand in an annotation. A gateway stands for the platform's way to the pods.
Failures are played by writing what a real cluster writes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.cluster.api import Cluster
from bench.cluster.deploy.rollout import Deployed, deploy_all
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec, Platform
from bench.cluster.pods import PORTS
from bench.core.cell import Protocol as Traffic
from bench.core.errors import ClusterError
from tests.support.deploy_failure_cases import QUOTA, pod_status, service_status
from tests.support.host_names import Names
from tests.support.kube_api import path_of, write_status
from tests.support.real_predictor import Gateway


def deploy(
    cluster: Cluster, spec: DeploymentSpec, say: Callable[[str], None] = lambda _: None, timeout_s: float = 30
) -> Deployed:
    """One service, applied and waited for."""
    (deployed,) = deploy_all(cluster, (spec,), say, timeout_s)
    return deployed


class Server(Protocol):
    """A predictor; `ports` are HTTP, gRPC, metrics."""

    @property
    def addresses(self) -> tuple[int, int, int]: ...

    def stop(self) -> None: ...


@dataclass
class Play:
    """How the cluster behaves. `failure`: image, gpu, pvc, quota, crash or deadline."""

    failure: str = ""
    ready_after_s: float = 0.0  # a pod, after it was made
    stale_ready_s: float = 0.0  # the status still speaks of the old revision
    old_pods_stay_s: float = 0.0  # after the new ones are ready
    node: str = ""  # pods run there; "": on none


@dataclass
class _PodState:
    name: str
    revision: int
    made: float
    server: Server | None
    ready: bool = False


@dataclass
class _Service:
    keys: list[str] = field(default_factory=list)
    pods: list[_PodState] = field(default_factory=list)
    changed: float = 0.0
    all_ready: float | None = None
    made: int = 0
    told: bool = False
    status: Any = None


class Controller:
    """A context manager: watches a namespace until the block ends, then stops its servers."""

    def __init__(
        self, cluster: Cluster, serve: Callable[[], Server] | None = None, play: Play | None = None
    ) -> None:
        self.cluster, self.serve, self.play = cluster, serve, play or Play()
        self.names: Names | None = None  # where services can be reached by the names a cluster gives them
        self.services, self.errors = dict[tuple[str, str], _Service](), list[BaseException]()
        self.gateways: dict[tuple[str, str], Gateway] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Controller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        for service in self.services.values():
            for pod in service.pods:
                if pod.server:
                    pod.server.stop()
        for gateway in self.gateways.values():
            gateway.close()

    def _run(self) -> None:
        while not self._ending.wait(0.1):
            try:
                self._step()
            except ClusterError:
                pass  # an object went between reading and writing it: the next step sees it gone
            except BaseException as error:  # shown by the test, which would only see silence
                self.errors.append(error)
                raise

    def _step(self) -> None:
        there = {(kind, i["metadata"]["name"]): i for kind in _kinds() for i in self.cluster.items(kind)}
        for key in [key for key in self.services if key not in there]:
            for pod in list(self.services[key].pods):
                self._end(self.services[key], pod)
            del self.services[key]
        for key, item in there.items():
            self._reconcile(key, item, self.services.setdefault(key, _Service()))

    def _reconcile(self, key: tuple[str, str], item: Mapping[str, Any], service: _Service) -> None:
        now, want = time.monotonic(), _replicas(item)
        if not service.keys or service.keys[-1] != _key(item):
            service.keys.append(_key(item))
            service.changed, service.all_ready, service.told = now, None, False
        revision = len(service.keys)
        mine = [pod for pod in service.pods if pod.revision == revision]
        if self.play.failure in ("quota", "deadline"):
            self._write_status(item, service, self._failed_status(item, service))
            return
        for _ in range(want - len(mine)):
            self._make(item, service, revision)
        for pod in mine[want:]:
            self._end(service, pod)
        mine = [pod for pod in service.pods if pod.revision == revision]
        for pod in mine:
            self._advance(service, pod)
        if all(pod.ready for pod in mine) and len(mine) == want:
            service.all_ready = service.all_ready or now
        if service.all_ready and now - service.all_ready >= self.play.old_pods_stay_s:
            for pod in [pod for pod in service.pods if pod.revision != revision]:
                self._end(service, pod)
        if now - service.changed >= self.play.stale_ready_s or revision == 1:
            ready = service.all_ready is not None
            self._write_status(item, service, self._status(key, item, service, mine, ready=ready))

    def _make(self, item: Mapping[str, Any], service: _Service, revision: int) -> None:
        name, kind = item["metadata"]["name"], item["kind"]
        service.made += 1
        stem = {"MLService": "-predict-v1", "InferenceService": "-predictor"}.get(kind, "")
        pod_name = f"{name}{stem}-{revision:05d}-deployment-{service.made:05d}"
        server = self.serve() if self.serve and not self.play.failure else None
        template = template_of(item)
        labels = {
            **_platform(kind).pod_labels(item),
            **template["labels"],
            "serving.knative.dev/revision": f"{name}{stem}-{revision:05d}",
        }
        annotations = dict(template["annotations"])
        if server:
            ports = zip(("http", "grpc", "metrics"), server.addresses, strict=True)
            annotations[PORTS] = ",".join(f"{kind}={port}" for kind, port in ports)
        spec: dict[str, Any] = {"containers": [{"name": "user-container", "image": "example/triton:1"}]}
        if self.play.node:
            spec["nodeName"] = self.play.node
        meta = {"name": pod_name, "labels": labels, "annotations": annotations}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        self.cluster.call("POST", self._path("pods"), body=body)
        service.pods.append(_PodState(pod_name, revision, time.monotonic(), server))

    def _advance(self, service: _Service, pod: _PodState) -> None:
        if pod.ready or (self.play.failure and service.told):
            return
        if self.play.failure:
            service.told = True
            self._pod_status(pod, pod_status(self.play.failure))
        elif time.monotonic() - pod.made >= self.play.ready_after_s:
            self._pod_status(pod, {
                "phase": "Running",
                "podIP": "127.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}],
            })  # fmt: skip
            pod.ready = True

    def _failed_status(self, item: Mapping[str, Any], service: _Service) -> dict[str, Any]:
        if self.play.failure == "quota" and not service.told:
            service.told = True
            name = f"{item['metadata']['name']}-predict-v1-00001-deployment-7b"
            self.event("ReplicaSet", name, "FailedCreate", QUOTA)
        return service_status(self.play.failure)

    def event(self, kind: str, name: str, reason: str, message: str, severity: str = "Warning") -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        namespace = self.cluster.namespace
        body = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-", "namespace": namespace},
            "involvedObject": {"kind": kind, "name": name, "namespace": namespace},
            "type": severity, "reason": reason, "message": message,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }  # fmt: skip
        self.cluster.call("POST", self._path("events"), body=body)

    def _status(
        self,
        key: tuple[str, str],
        item: Mapping[str, Any],
        service: _Service,
        mine: list[_PodState],
        *,
        ready: bool,
    ) -> dict[str, Any]:
        serving = [pod for pod in service.pods if pod.ready]
        count = sum(pod.ready for pod in mine)
        url = self._url(key, item, serving)
        if item["kind"] not in ("MLService", "InferenceService"):
            generation = item["metadata"]["generation"]
            return {
                "observedGeneration": generation, "replicas": len(service.pods), "updatedReplicas": len(mine),
                "readyReplicas": count, "availableReplicas": count,
            }  # fmt: skip
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        if not ready:
            condition["reason"] = "PredictorNotReady"
        release = {
            "name": "v1", "ready": ready, "trafficPercent": 100, "readyReplicas": count,
            "totalReplicas": len(mine),
        }  # fmt: skip
        status = {"address": {"url": url}, "conditions": [condition]}
        return {**status, "releases": [release]} if item["kind"] == "MLService" else status

    def _url(self, key: tuple[str, str], item: Mapping[str, Any], serving: list[_PodState]) -> str:
        """The service's address, as its platform shows it, and a gateway there once a server is ready."""
        name, namespace = key[1], self.cluster.namespace
        stem = f"{name}-predictor" if key[0] == "InferenceService" else name
        servers = [pod.server for pod in serving if pod.server]
        if not servers:
            return f"{name}.{namespace}.example.com"
        if key not in self.gateways:
            self.gateways[key] = self._gateway(f"{stem}.{namespace}.svc", item)
        gateway = self.gateways[key]
        gateway.backends = [server.addresses for server in servers]
        if self.names is not None and key[0] == "InferenceService":
            return f"http://{stem}.{namespace}.svc:{gateway.port}"
        return f"http://127.0.0.1:{gateway.port}"

    def _gateway(self, host: str, item: Mapping[str, Any]) -> Gateway:
        """An MLService shows its runtime's one port; the others show all, as their Services do."""
        if item["kind"] == "MLService":
            return Gateway(shown=[_platform("MLService").traffic(item, self.cluster.read) is Traffic.GRPC])
        if self.names is None:
            return Gateway()
        # KServe's first port is 80 there, which only root may listen on.
        first = 8080 if item["kind"] == "InferenceService" else 8000
        return Gateway(host=self.names.give(host), at=(first, 8001, 8002))

    def _write_status(self, item: Mapping[str, Any], service: _Service, status: dict[str, Any]) -> None:
        if service.status != status:
            name = item["metadata"]["name"]
            write_status(self.cluster, f"{path_of(self.cluster, item)}/{name}", status)
            service.status = json.loads(json.dumps(status))

    def _pod_status(self, pod: _PodState, status: dict[str, Any]) -> None:
        write_status(self.cluster, f"{self._path('pods')}/{pod.name}", status)

    def _end(self, service: _Service, pod: _PodState) -> None:
        service.pods.remove(pod)
        try:
            self.cluster.call("DELETE", f"{self._path('pods')}/{pod.name}", {"gracePeriodSeconds": "0"})
        finally:
            if pod.server:
                pod.server.stop()

    def _path(self, plural: str) -> str:
        return f"/api/v1/namespaces/{self.cluster.namespace}/{plural}"


def _kinds() -> list[str]:
    return [platform.kind for platform in PLATFORMS.values()]


def _platform(kind: str) -> Platform:
    return next(platform for platform in PLATFORMS.values() if platform.kind == kind)


def template_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of the pods an object makes; its labels are {} where it makes none."""
    spec = item["spec"]
    if item["kind"] == "MLService":
        release = next(one for one in spec["releases"] if one["name"] == spec["default"])
        metadata = release["predictor"].get("template", {}).get("metadata", {})
    elif item["kind"] == "InferenceService":
        metadata = spec["predictor"]
    else:
        metadata = spec.get("template", {}).get("metadata", {})
    return {"labels": metadata.get("labels", {}), "annotations": metadata.get("annotations", {})}


def _replicas(item: Mapping[str, Any]) -> int:
    spec = item["spec"]
    if item["kind"] == "MLService":
        return int(spec["releases"][0]["predictor"].get("minReplicas", 1))
    return int(
        spec["predictor"].get("minReplicas", 1) if item["kind"] == "InferenceService" else spec["replicas"]
    )


def _key(item: Mapping[str, Any]) -> str:
    """What makes new pods: Knative counts replicas to it."""
    spec = dict(item["spec"])
    if "replicas" in spec:
        spec = {"template": spec["template"]}
    elif item["kind"] == "InferenceService":
        spec = {**spec["predictor"], "minReplicas": 0, "maxReplicas": 0}
    return json.dumps(spec, sort_keys=True)
