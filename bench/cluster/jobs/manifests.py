"""The sweep and its Locust workers as Jobs: manifests from what is asked, and nothing else.

The master's pod runs the whole sweep, next to the server and the workers: the clock, the counters and the
load are then all on the cluster's network, and the user's connection may break without harm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MANAGED, MANAGER = "app.kubernetes.io/managed-by", "bench"
LOAD, COMPONENT = "triton-bench/load", "triton-bench/component"
MASTER_PORT, REPORT_PORT = 5557, 8089
ARGUMENTS_FILE = "/etc/bench/arguments.json"
RUN_FOLDER = "/run/bench/run"
# A sweep whose results nobody fetches ends after this time, and gives its CPUs back.
LONGEST_S = 6 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJobs:
    name: str  # of the master's Job and Service; the workers' has "-worker" behind it
    namespace: str
    image: str  # with bench installed, in the version of the one who asks
    workers: int
    arguments: tuple[str, ...]  # of `bench sweep`
    asks_api: bool = False  # the sweep finds, scales and watches a service, so its pod has a token
    account: str = ""  # whose token; "": the namespace's own

    @property
    def selector(self) -> str:
        """Of the master's pod."""
        return f"{LOAD}={self.name},{COMPONENT}=master"


def manifests(jobs: LoadJobs) -> tuple[dict[str, Any], ...]:
    """In the order to apply; each carries the load's label."""
    return (_arguments(jobs), _service(jobs), _master(jobs), _workers(jobs))


def objects(jobs: LoadJobs) -> tuple[tuple[str, str], ...]:
    """Kind and name of each, in the order to delete."""
    return tuple((item["kind"], item["metadata"]["name"]) for item in reversed(manifests(jobs)))


def _arguments(jobs: LoadJobs) -> dict[str, Any]:
    data = {"arguments.json": json.dumps(jobs.arguments, indent=1)}
    return _object(jobs, "v1", "ConfigMap", jobs.name, "master") | {"data": data}


def _service(jobs: LoadJobs) -> dict[str, Any]:
    spec = {
        "clusterIP": "None",  # workers keep one connection each: nothing to balance
        "publishNotReadyAddresses": True,  # the master is ready only once workers have found it
        "selector": {LOAD: jobs.name, COMPONENT: "master"},
        "ports": [{"name": "locust", "port": MASTER_PORT, "protocol": "TCP"}],
    }
    return _object(jobs, "v1", "Service", jobs.name, "master") | {"spec": spec}


def _master(jobs: LoadJobs) -> dict[str, Any]:
    container = {
        **_container(jobs),
        "command": [
            *("python", "-m", "bench.cluster.jobs.sweep_pod"),
            *("--arguments", ARGUMENTS_FILE, "--folder", RUN_FOLDER, "--port", str(REPORT_PORT)),
            *("--workers", str(jobs.workers), "--locust-master", f"0.0.0.0:{MASTER_PORT}"),
        ],
        "ports": [{"containerPort": port, "protocol": "TCP"} for port in (MASTER_PORT, REPORT_PORT)],
        "readinessProbe": {"httpGet": {"path": "/status", "port": REPORT_PORT}, "periodSeconds": 2},
        "volumeMounts": [
            {"name": "arguments", "mountPath": "/etc/bench", "readOnly": True},
            {"name": "run", "mountPath": "/run/bench"},
        ],
    }
    volumes = [{"name": "arguments", "configMap": {"name": jobs.name}}, {"name": "run", "emptyDir": {}}]
    # A second sweep in place of a failed one would measure something else: backoffLimit 0.
    job = _job(jobs, jobs.name, "master", container, {"backoffLimit": 0}, "Never", volumes)
    if jobs.asks_api:
        pod = job["spec"]["template"]["spec"]
        pod["automountServiceAccountToken"] = True
        pod |= {"serviceAccountName": jobs.account} if jobs.account else {}
    return job


def _workers(jobs: LoadJobs) -> dict[str, Any]:
    container = {**_container(jobs), "command": ["bench", "worker", "--master", f"{jobs.name}:{MASTER_PORT}"]}
    count = {"parallelism": jobs.workers, "completions": jobs.workers, "backoffLimit": 3 * jobs.workers}
    return _job(jobs, f"{jobs.name}-worker", "worker", container, count, "OnFailure", [])


def _job(
    jobs: LoadJobs,
    name: str,
    component: str,
    container: dict[str, Any],
    count: dict[str, Any],
    restart: str,
    volumes: list[dict[str, Any]],
) -> dict[str, Any]:
    pod = {
        "restartPolicy": restart,
        # LOCUST_... variables of a Service named so would be read by Locust as its options.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,  # workers have nothing to ask the API server
        "affinity": _affinity(),
        "containers": [container],
        **({"volumes": volumes} if volumes else {}),
    }
    template = {
        "metadata": {
            "labels": _labels(jobs, component),
            # A proxy beside the load generator would be measured with it.
            "annotations": {"sidecar.istio.io/inject": "false"},
        },
        "spec": pod,
    }
    spec = {
        **count,
        "activeDeadlineSeconds": LONGEST_S,
        "ttlSecondsAfterFinished": 3600,  # should nobody be left to delete it; its logs stay so long
        "template": template,
    }
    return _object(jobs, "batch/v1", "Job", name, component) | {"spec": spec}


def _container(jobs: LoadJobs) -> dict[str, Any]:
    # Requests equal to limits, whole CPUs: no neighbour on the core, where the node's policy is static.
    one = {"cpu": "1", "memory": "2Gi"}
    return {
        "name": "bench",
        "image": jobs.image,
        "resources": {"requests": one, "limits": one},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 1000,
        },
    }


def _affinity() -> dict[str, Any]:
    """Rather not on the server's node, whose cores it needs for itself, nor two workers on one."""

    def apart(weight: int, expression: dict[str, Any]) -> dict[str, Any]:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchExpressions": [expression]}}
        return {"weight": weight, "podAffinityTerm": term}

    preferred = [
        apart(100, {"key": "serving.knative.dev/service", "operator": "Exists"}),
        apart(100, {"key": "triton-bench/deployment", "operator": "Exists"}),
        apart(10, {"key": LOAD, "operator": "Exists"}),
    ]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _object(jobs: LoadJobs, api: str, kind: str, name: str, component: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": jobs.namespace, "labels": _labels(jobs, component)}
    return {"apiVersion": api, "kind": kind, "metadata": meta}


def _labels(jobs: LoadJobs, component: str) -> dict[str, str]:
    return {MANAGED: MANAGER, LOAD: jobs.name, COMPONENT: component}
