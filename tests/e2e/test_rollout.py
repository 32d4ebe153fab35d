"""Rollouts on a real API server, whose cluster is played by `controller.py`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli.verbs.deploy import deployed, teardown
from bench.cluster.api import Cluster
from bench.cluster.deploy.rollout import deploy, found, scale, undeploy
from bench.cluster.deploy.verify import pass_gate
from bench.cluster.platforms.base import DeploymentSpec, Platform
from bench.cluster.pods import REVISION
from bench.core.errors import DeployFailed
from bench.core.target import target_of
from bench.server.control import Triton
from tests.support.kube_api import ApiServer
from tests.support.kube_controller import Controller, Play
from tests.support.real_predictor import REPOSITORY, Predictor

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    with api_server.namespace() as one:
        yield one


def spec(cluster: Cluster, platform: Platform = Platform.MLSERVICE, name: str = "vit") -> DeploymentSpec:
    return DeploymentSpec(
        platform=platform, name=name, namespace=cluster.namespace, image="example/triton:1", run_label="r1"
    )


def silent(_: str) -> None: ...


@pytest.mark.parametrize("platform", list(Platform))
def test_deploy_scale_and_undeploy_on_each_platform(cluster: Cluster, platform: Platform) -> None:
    with Controller(cluster) as controller:
        said: list[str] = []
        made = deploy(cluster, spec(cluster, platform), said.append, 30)
        assert len(made.pods) == 1
        assert made.url.startswith("http://vit.")
        assert any(line.startswith("pod vit") for line in said), "the live view names pods"
        assert {pod.name for pod in cluster.pods(made.selector)} == {pod.name for pod in made.pods}
        two = scale(cluster, made, 2, silent, 30)
        assert [pod.ready for pod in two.pods] == [True, True]
        assert len(found(cluster, platform, "vit").pods) == 2
        undeploy(cluster, silent, name="vit", timeout_s=20)
        assert not cluster.items("Pod")
        assert not cluster.items("Service")
        assert not controller.errors


def test_ready_of_the_old_revision_is_not_taken_for_the_new_one(cluster: Cluster) -> None:
    play = Play()
    with Controller(cluster, play=play):
        first = deploy(cluster, spec(cluster), silent, 30)
        play.ready_after_s, play.stale_ready_s = 2.0, 1.0
        began = time.monotonic()
        second = deploy(cluster, replace(spec(cluster), image="example/triton:2"), silent, 30)
        assert time.monotonic() - began >= 2.0, "the status said Ready all along for the first second"
        assert {p.labels[REVISION] for p in first.pods}.isdisjoint(p.labels[REVISION] for p in second.pods)


def test_pods_of_the_old_revision_must_have_ended(cluster: Cluster) -> None:
    play = Play()
    with Controller(cluster, play=play):
        deploy(cluster, spec(cluster), silent, 30)
        play.old_pods_stay_s = 1.5
        said: list[str] = []
        deployed = deploy(cluster, replace(spec(cluster), replicas=2), said.append, 30)
        assert len(cluster.items("Pod")) == 2 == len(deployed.pods)


def test_the_same_again_changes_nothing(cluster: Cluster) -> None:
    with Controller(cluster):
        first = deploy(cluster, spec(cluster), silent, 30)
        second = deploy(cluster, spec(cluster), silent, 30)
        assert [pod.name for pod in first.pods] == [pod.name for pod in second.pods]


FAILURES = {
    "image": ("cannot be pulled", "--image"),
    "gpu": ("No node has the GPU", "--gpu"),
    "pvc": ("volume claim is missing", "--set pvc=NAME"),
    "quota": ("quota does not allow it", "limited: requests.nvidia.com/gpu=4"),
    "crash": ("crashed (exit code 1)", "its last lines say why"),
    "deadline": ("progress deadline", "Initial scale was never achieved"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_has_its_own_sentence_within_10_s(cluster: Cluster, failure: str) -> None:
    with Controller(cluster, play=Play(failure=failure)):
        began = time.monotonic()
        with pytest.raises(DeployFailed) as error:
            deploy(cluster, spec(cluster), silent, 60)
        assert time.monotonic() - began < 10
        assert error.value.exit_code == 4
        for part in FAILURES[failure]:
            assert part in str(error.value)


def test_a_pod_in_a_queue_may_wait(cluster: Cluster) -> None:
    with Controller(cluster, play=Play(failure="gpu")), pytest.raises(DeployFailed, match="within 6 s"):
        deploy(cluster, replace(spec(cluster), queue="default"), silent, 6)


def test_undeploy_removes_exactly_its_own(cluster: Cluster) -> None:
    with Controller(cluster):
        deploy(cluster, spec(cluster), silent, 30)
        deploy(cluster, spec(cluster, name="vit-other"), silent, 30)
        foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "vit-x"}}
        cluster.apply({**foreign, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
        removed = undeploy(cluster, silent, name="vit", timeout_s=20)
        assert removed == ("MLService vit", "MLServiceRuntime vit", "Service vit-direct")
        assert {i["metadata"]["name"] for i in cluster.items("Service")} == {"vit-x", "vit-other-direct"}
        assert len(found(cluster, Platform.MLSERVICE, "vit-other").pods) == 1


def test_what_somebody_else_made_is_not_taken_over(cluster: Cluster) -> None:
    item = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "vit-direct"}}
    cluster.apply({**item, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
    with pytest.raises(DeployFailed, match="not made by this deployment"):
        deploy(cluster, spec(cluster), silent, 5)
    assert not cluster.items("MLService")


def test_a_deploy_can_be_undone_while_it_waits(cluster: Cluster) -> None:
    """What Ctrl-C does: teardown starts with objects applied and pods half there."""
    with Controller(cluster, play=Play(ready_after_s=60)):
        failed: list[DeployFailed] = []

        def wait() -> None:
            try:
                deploy(cluster, spec(cluster), silent, 4)
            except DeployFailed as error:
                failed.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not cluster.items("Pod"):
            time.sleep(0.05)  # what another thread applies has to be looked for
        undeploy(cluster, silent, run_label="r1", timeout_s=20)
        waiting.join()
        assert not cluster.items("Pod")
        assert failed


def test_a_missing_service_names_those_that_are_there(cluster: Cluster) -> None:
    with Controller(cluster):
        deploy(cluster, spec(cluster), silent, 30)
        with pytest.raises(DeployFailed, match="there are: vit"):
            found(cluster, Platform.MLSERVICE, "vti")


@pytest.mark.e2e
def test_the_gate_holds_a_real_triton_to_its_file(cluster: Cluster, tmp_path: Path) -> None:
    wanted = replace(spec(cluster), sets=(("model", "delay"),))
    with Controller(cluster, serve=lambda: Predictor("delay", tmp_path / "server.log")):
        with deployed(cluster, wanted, silent, 60) as made:
            assert made.url.startswith("http://127.0.0.1:")
            triton = Triton(target_of(made.url, None, None))
            assert triton.model_ready("delay"), "the platform's way reaches it too"
            triton.close()
            with pytest.raises(DeployFailed, match="no model 'null_vit' ready"):
                pass_gate(cluster, made.pods, "null_vit", REPOSITORY)
        assert not cluster.items("Pod")


@pytest.mark.parametrize("moment", ["MLServiceRuntime", "MLService", "Service", "Pod", "block"])
def test_ctrl_c_at_any_moment_leaves_nothing(cluster: Cluster, moment: str) -> None:
    def interrupt(line: str) -> None:
        if line.lower().startswith((f"applied {moment} ".lower(), f"{moment} vit".lower())):
            raise KeyboardInterrupt

    def interrupted() -> None:
        with teardown(cluster, spec(cluster), silent):
            deploy(cluster, spec(cluster), interrupt, 30)
            raise KeyboardInterrupt

    with Controller(cluster, play=Play(ready_after_s=1)), pytest.raises(KeyboardInterrupt):
        interrupted()
    for kind in ("MLService", "MLServiceRuntime", "Service", "Pod"):
        assert not cluster.items(kind)
