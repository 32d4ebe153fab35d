"""Plays kubelet and Job controller for `bench sweep --in-cluster`: pods' commands run as local processes.

What a cluster would give them is put in by hand: the ConfigMap as a file, the Service's name as an address,
ports that are free here.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.jobs.manifests import ARGUMENTS_FILE, COMPONENT, LOAD, MASTER_PORT, REPORT_PORT, RUN_FOLDER
from bench.cluster.port_forward import reachable
from bench.core.errors import ClusterError
from tests.support.kube_api import write_status
from tests.support.waiting import until

BENCH = [sys.executable, "-m", "bench"]


class Kubelet:
    """Starts what Jobs ask for and ends it when they are deleted. `failing`: a container status instead."""

    def __init__(self, cluster: Cluster, folder: Path, failing: Mapping[str, Any] | None = None) -> None:
        self._cluster, self._folder, self._failing = cluster, folder, failing
        self._master, self.report = free_port(), free_port()
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self.jobs: dict[str, Mapping[str, Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @contextmanager
    def reach(self, _: Cluster, pod: str) -> Iterator[str]:
        """In the place of a port-forward, which needs a kubelet of its own."""
        assert pod
        yield f"http://127.0.0.1:{self.report}"

    def alive(self) -> list[subprocess.Popen[bytes]]:
        return [one for many in self.processes.values() for one in many if one.poll() is None]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for process in self.alive():
            process.kill()
            process.wait()

    def _work(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(ClusterError):
                jobs = {item["metadata"]["name"]: item for item in self._cluster.items("Job", LOAD)}
                for name in jobs.keys() - self.processes.keys():
                    self._start(name, jobs[name])
                for name in self.processes.keys() - jobs.keys():
                    for process in self.processes[name]:
                        process.terminate()

    def _start(self, name: str, job: Mapping[str, Any]) -> None:
        self.jobs[name] = job
        template = job["spec"]["template"]
        count = job["spec"].get("parallelism", 1)
        self.processes[name] = []
        if self._failing is None:
            command = self._command(template["metadata"]["labels"][LOAD], template["spec"]["containers"][0])
            self.processes[name] = [self._run(command) for _ in range(count)]
        if template["metadata"]["labels"][COMPONENT] == "master":
            self._wait_for_report()
        for i in range(count):
            self._pod(f"{name}-{i}", template)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "pods.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _command(self, load: str, container: Mapping[str, Any]) -> list[str]:
        arguments = self._folder / "arguments.json"
        config = self._cluster.read("ConfigMap", load)
        assert config is not None
        arguments.write_text(config["data"]["arguments.json"])
        here = {
            "python": [sys.executable],
            "bench": BENCH,
            ARGUMENTS_FILE: [str(arguments)],
            RUN_FOLDER: [str(self._folder / "pod" / "run")],
            str(REPORT_PORT): [str(self.report)],
            f"0.0.0.0:{MASTER_PORT}": [f"127.0.0.1:{self._master}"],
            f"{load}:{MASTER_PORT}": [f"127.0.0.1:{self._master}"],
        }
        return [new for word in container["command"] for new in here.get(word, [word])]

    def _wait_for_report(self) -> None:
        """The readiness probe."""
        until(lambda: self._failing is not None or reachable("127.0.0.1", self.report), 20)

    def _pod(self, name: str, template: Mapping[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self._cluster.namespace}/pods"
        body = {"apiVersion": "v1", "kind": "Pod", **template}
        body["metadata"] = {**template["metadata"], "name": name}
        self._cluster.call("POST", path, body=body)
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        if self._failing is not None:
            waiting = {"waiting": dict(self._failing)}
            one = {
                "name": "bench",
                "image": "x",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": waiting,
            }
            status = {"phase": "Pending", "containerStatuses": [one]}
        write_status(self._cluster, f"{path}/{name}", status)


@contextmanager
def kubelet(cluster: Cluster, folder: Path, failing: Mapping[str, Any] | None = None) -> Iterator[Kubelet]:
    folder.mkdir(parents=True, exist_ok=True)
    playing = Kubelet(cluster, folder, failing)
    try:
        yield playing
    finally:
        playing.close()
        shutil.rmtree(folder / "pod", ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
