"""From what a cluster writes to one sentence; the common causes are played on a server in test_rollout."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cluster.api import Cluster
from bench.cluster.deploy.failures import Failure, diagnose, refused
from bench.cluster.deploy.readiness import last_lines
from bench.cluster.deploy.verify import differences
from bench.cluster.pods import Event
from bench.core.errors import ClusterError


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return pod(containerStatuses=[{"name": "user-container", "restartCount": 1, **state}])


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (container(lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "--set memory"),
        (container(state={"terminated": {"exitCode": 2}}), "exit code 2"),
        (container(state={"waiting": {"reason": "CreateContainerConfigError"}}), "could not be made"),
        (container(state={"waiting": {"reason": "ErrImagePull", "message": "denied"}}), "--image"),
        (pod(reason="Evicted", message="low on memory"), "evicted"),
    ],
)
def test_a_pod_says_it(seen: dict[str, Any], sentence: str) -> None:
    failure = diagnose([seen], [], [])
    assert failure is not None
    assert sentence in failure.sentence


def test_a_container_that_is_starting_is_no_failure() -> None:
    assert diagnose([container(state={"waiting": {"reason": "ContainerCreating"}})], [], []) is None
    assert (
        diagnose([pod()], [], [{"type": "Ready", "status": "False", "reason": "PredictorNotReady"}]) is None
    )


def test_an_event_says_it() -> None:
    event = Event("Pod", "p", "Warning", "FailedMount", 'secret "s" not found', "")
    failure = diagnose([], [event], [])
    assert failure is not None
    assert "mount" in failure.sentence


def test_what_the_server_refuses_for_quota_is_said_as_quota() -> None:
    assert "quota" in str(refused("mlservices is forbidden: exceeded quota: team"))
    assert refused("spec.replicas in body must be of type integer") is None


class _Logs:
    def logs(self, pod: str, container: str, lines: int, *, previous: bool) -> str:
        if pod == "gone":
            raise ClusterError("pod not found.")
        assert lines > 10
        return f"{container} {previous}\nImportError: torch\n"


def test_a_crash_ends_with_the_last_lines_of_the_run_that_crashed() -> None:
    cluster: Cluster = _Logs()  # type: ignore[assignment]  # all that is asked of it
    failure = Failure("It crashed.", pod="p", container="c", restarted=True)
    assert last_lines(cluster, failure) == "\nIts last lines:\n  c True\n  ImportError: torch"
    unread = last_lines(cluster, Failure("It crashed.", pod="gone", container="c"))
    assert "kubectl logs gone" in unread


def test_the_gate_compares_what_a_cell_varies() -> None:
    asked = {"max_batch_size": 8, "instance_group": [{"count": 2}], "input": [{"name": "image"}]}
    assert differences(asked, asked) == ()
    assert differences(asked, {**asked, "instance_group": [{"count": 1}]}) == (
        "instances: asked 2, served 1",
    )
