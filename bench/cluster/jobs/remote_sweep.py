"""`bench sweep --in-cluster`: applies the Jobs, follows the sweep, fetches its folder, and cleans up."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.jobs import manifests as load_jobs
from bench.cluster.jobs.manifests import REPORT_PORT, LoadJobs
from bench.cluster.jobs.sweep_pod import unpack
from bench.cluster.pods import pod_of
from bench.cluster.session import KubernetesProvider, deployed_for
from bench.core.command_line import inside_cluster, without_secrets
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_MISSED, EXIT_OK, ClusterError, RunFolderError, ToolError
from bench.core.run_folder import RunFolder
from bench.core.teardown import Teardown

DEFAULT_IMAGE = "triton-bench"  # docs/workers.md builds manifests/locust/Dockerfile under this name.
_START_TIMEOUT_S = 300.0
_SILENT_S = 60.0  # A pod that has been out of reach for longer counts as lost.
_INTERRUPT_S = 30.0
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")

Reach = Callable[[Cluster, str], AbstractContextManager[str]]  # a pod's report server, as a URL
Say = Callable[[str], None]


@contextmanager
def forwarded(cluster: Cluster, pod: str) -> Iterator[str]:
    """Through the API server, as `kubectl port-forward`."""
    from bench.cluster.port_forward import PortForward, dial_pod

    with PortForward(dial_pod(cluster, pod), [REPORT_PORT]) as forward:
        yield f"http://127.0.0.1:{forward.local[REPORT_PORT]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    """Where the Jobs run. `service`: what the sweep inside has to find; None: it is told an address."""

    workers: int
    service: KubernetesProvider | None = None
    namespace: str | None = None
    context: str | None = None
    image: str = DEFAULT_IMAGE
    account: str = ""


def measured(inside: InCluster, command: Sequence[str], path: Path, say: Say) -> RunFolder:
    """The run folder that the sweep in the cluster left; nothing else of it is left there.

    What --deploy makes is made and removed from here, whatever happens to the pod meanwhile.
    Raises ClusterError or ToolError; KeyboardInterrupt after what was measured has been fetched.
    """
    cluster = Cluster.connect(inside.namespace, inside.context)
    with _named(inside.service, cluster, say) as words:
        jobs = LoadJobs(
            name=f"bench-load-{secrets.token_hex(3)}",
            namespace=cluster.namespace,
            image=inside.image,
            workers=inside.workers,
            arguments=(*words, *inside_cluster(command)),
            asks_api=bool(words),
            account=inside.account,
        )
        try:
            code = run(cluster, jobs, path, say)
        finally:
            keep_command(path, command)
    if not (path / "run.json").exists() or code not in (EXIT_OK, EXIT_MISSED, EXIT_INCONCLUSIVE):
        raise ToolError(f"The sweep in the cluster ended with code {code}: its messages are above.")
    return RunFolder.open(path)


def keep_command(path: Path, command: Sequence[str]) -> None:
    """What was typed here measures it again; the pod's own words name things that are gone."""
    with contextlib.suppress(RunFolderError):  # nothing was fetched, or not all: the reason for that is told
        folder = RunFolder.open(path)
        folder.write_record(replace(folder.record, command=tuple(without_secrets(command))))


@contextmanager
def _named(service: KubernetesProvider | None, cluster: Cluster, say: Say) -> Iterator[tuple[str, ...]]:
    """The service as the sweep in the cluster is told of it; () where that is an address alone."""
    if service is None:
        yield ()
        return
    making = deployed_for(service, cluster, say) if service.specs else contextlib.nullcontext(())
    with making as services:
        names = [one.name for one in services] or service.names
        protocols = ",".join(service.protocols)  # what --deploy was asked, or means unasked
        yield ("--mlservice", ",".join(names), "--platform", service.platform.name, "--protocol", protocols)


def run(cluster: Cluster, jobs: LoadJobs, path: Path, say: Say, reach: Reach | None = None) -> int:
    """The exit code of the sweep in the cluster; its folder lies at `path` then."""
    with Teardown(lambda: _remove(cluster, jobs), "Removing the load's Jobs first; that takes a moment."):
        for manifest in load_jobs.manifests(jobs):
            cluster.apply(manifest)
        say(f"Jobs {jobs.name} and {jobs.name}-worker applied in namespace {cluster.namespace}.")
        pod = _started(cluster, jobs)
        with (reach or forwarded)(cluster, pod) as url:
            return _followed(url, path, say)


def _remove(cluster: Cluster, jobs: LoadJobs) -> None:
    """All of it, also where one cannot be removed. Raises the last ClusterError."""
    failed: ClusterError | None = None
    for kind, name in load_jobs.objects(jobs):
        try:
            cluster.delete(kind, name)
        except ClusterError as error:
            failed = ClusterError(f"{error} `kubectl delete {kind.lower()} {name}` removes what is left.")
    if failed is not None:
        raise failed


def _started(cluster: Cluster, jobs: LoadJobs) -> str:
    """The name of the master's pod, once it is ready. Raises ClusterError with why it is not."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    why = "no pod was made: look at the Job's events"
    while time.monotonic() < deadline:
        for item in cluster.items("Pod", jobs.selector):
            pod = pod_of(item)
            if pod.ready:
                return pod.name
            why, hopeless = _why_not(item.get("status", {}))
            if hopeless:
                raise ClusterError(f"The load's pod {pod.name} cannot start: {why}. Check --load-image.")
        time.sleep(0.5)  # polled: a watch would need one more verb than list
    raise ClusterError(f"The load's pod was not ready within {_START_TIMEOUT_S:g} s: {why}.")


def _why_not(status: Mapping[str, Any]) -> tuple[str, bool]:
    """In words, and whether waiting is of no use."""
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated")
        if ended:
            return f"its container ended with code {ended.get('exitCode')}", True
        if waiting:
            words = filter(None, (waiting.get("reason"), waiting.get("message")))
            return ": ".join(words), waiting.get("reason") in _HOPELESS
    for one in status.get("conditions", ()):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return str(one.get("message", "it fits on no node")), False
    return f"its phase is {status.get('phase', 'unknown')}", status.get("phase") == "Failed"


def _followed(url: str, path: Path, say: Say) -> int:
    try:
        return _collected(url, path, say, _SILENT_S)
    except KeyboardInterrupt:
        say("Interrupted: fetching what was measured.")
        with contextlib.suppress(OSError, ToolError):
            _post(f"{url}/interrupt")
            _collected(url, path, say, _INTERRUPT_S)
        raise


def _collected(url: str, path: Path, say: Say, silent_s: float) -> int:
    """Until the sweep has ended and its folder is here. Raises ToolError when it is out of reach."""
    begin, heard = 0, time.monotonic()
    while True:
        try:
            status = json.loads(_get(f"{url}/status?from={begin}"))
        except OSError as error:
            if time.monotonic() - heard > silent_s:
                raise ToolError(
                    f"The sweep's pod has been out of reach for {silent_s:g} s ({error}): its Job is deleted."
                ) from error
            time.sleep(1)  # a node or the API server that comes back takes seconds
            continue
        begin, heard = status["next"], time.monotonic()
        if status["said"].strip():
            say(status["said"].rstrip("\n"))
        if status["exit_code"] is not None:
            unpack(_get(f"{url}/run.tar.gz"), path)
            _post(f"{url}/collected")
            return int(status["exit_code"])
        time.sleep(1)  # as often as somebody who reads along wants it


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def _post(url: str) -> None:
    request = urllib.request.Request(url, method="POST", data=b"")
    with urllib.request.urlopen(request, timeout=10):
        pass
