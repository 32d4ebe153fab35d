"""Rollouts on a real API server, whose cluster is played by `controller.py`."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cluster.api import Cluster
from bench.cluster.deploy import lifecycle
from bench.cluster.deploy.lifecycle import deployed
from bench.cluster.deploy.rollout import find_service, scale, undeploy
from bench.cluster.deploy.verify import verify
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec
from bench.cluster.pods import REVISION
from bench.core.errors import DeployFailed
from bench.core.paths import MODEL_REPOSITORY
from bench.core.target import target_of
from bench.server.control import Triton
from tests.support.kube_api import ApiServer
from tests.support.kube_controller import Controller, Play, deploy
from tests.support.real_predictor import Predictor
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


@pytest.fixture
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    with api_server.namespace() as one:
        yield one


def spec(cluster: Cluster, platform: str = "mlservice", name: str = "vit") -> DeploymentSpec:
    return DeploymentSpec(
        platform=PLATFORMS[platform],
        name=name,
        namespace=cluster.namespace,
        image="example/triton:1",
        run_label="r1",
    )


def silent(_: str) -> None: ...


@pytest.mark.parametrize("platform", PLATFORMS)
def test_deploy_scale_and_undeploy_on_each_platform(cluster: Cluster, platform: str) -> None:
    with Controller(cluster) as controller:
        said: list[str] = []
        made = deploy(cluster, spec(cluster, platform), said.append, 30)
        assert len(made.pods) == 1
        assert made.url.startswith("http://vit.")
        assert any(line.startswith("pod vit") for line in said), "the live view names pods"
        assert {pod.name for pod in cluster.pods(made.selector)} == {pod.name for pod in made.pods}
        two = scale(cluster, made, 2, silent, 30)
        assert [pod.ready for pod in two.pods] == [True, True]
        assert len(find_service(cluster, PLATFORMS[platform], "vit").pods) == 2
        undeploy(cluster, silent, names=["vit"], timeout_s=20)
        assert not cluster.items("Pod")
        assert not cluster.items("Service")
        assert not controller.errors


def test_ready_of_the_old_revision_is_not_taken_for_the_new_one(cluster: Cluster) -> None:
    play = Play()
    with Controller(cluster, play=play):
        first = deploy(cluster, spec(cluster))
        play.ready_after_s, play.stale_ready_s = 2.0, 1.0
        began = time.monotonic()
        second = deploy(cluster, replace(spec(cluster), image="example/triton:2"))
        assert time.monotonic() - began >= 2.0, "the status said Ready all along for the first second"
        assert {p.labels[REVISION] for p in first.pods}.isdisjoint(p.labels[REVISION] for p in second.pods)


def test_pods_of_the_old_revision_must_have_ended(cluster: Cluster) -> None:
    play = Play()
    with Controller(cluster, play=play):
        deploy(cluster, spec(cluster))
        play.old_pods_stay_s = 1.5
        said: list[str] = []
        deployed = deploy(cluster, replace(spec(cluster), replicas=2), said.append, 30)
        assert len(cluster.items("Pod")) == 2 == len(deployed.pods)


def test_the_same_again_changes_nothing(cluster: Cluster) -> None:
    with Controller(cluster):
        first = deploy(cluster, spec(cluster))
        second = deploy(cluster, spec(cluster))
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
def test_each_failure_has_its_own_sentence_long_before_the_time_is_up(cluster: Cluster, failure: str) -> None:
    with Controller(cluster, play=Play(failure=failure)):
        with pytest.raises(DeployFailed) as error:
            deploy(cluster, spec(cluster), silent, 60)
        assert "was not ready within" not in str(error.value)
        assert error.value.exit_code == 4
        for part in FAILURES[failure]:
            assert part in str(error.value)


def test_a_pod_in_a_queue_may_wait(cluster: Cluster) -> None:
    with Controller(cluster, play=Play(failure="gpu")), pytest.raises(DeployFailed, match="within 6 s"):
        deploy(cluster, replace(spec(cluster), queue="default"), silent, 6)


def test_undeploy_removes_exactly_its_own(cluster: Cluster) -> None:
    with Controller(cluster):
        deploy(cluster, spec(cluster))
        deploy(cluster, spec(cluster, name="vit-other"))
        foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "vit-x"}}
        cluster.apply({**foreign, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}})
        removed = undeploy(cluster, silent, names=["vit"], timeout_s=20)
        assert removed == ("MLService vit", "MLServiceRuntime vit", "Service vit-direct")
        assert {i["metadata"]["name"] for i in cluster.items("Service")} == {"vit-x", "vit-other-direct"}
        assert len(find_service(cluster, PLATFORMS["mlservice"], "vit-other").pods) == 1


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
        until(lambda: bool(cluster.items("Pod")))
        undeploy(cluster, silent, run_label="r1", timeout_s=20)
        waiting.join()
        assert not cluster.items("Pod")
        assert failed


def test_a_missing_service_names_those_that_are_there(cluster: Cluster) -> None:
    with Controller(cluster):
        deploy(cluster, spec(cluster))
        with pytest.raises(DeployFailed, match="there are: vit"):
            find_service(cluster, PLATFORMS["mlservice"], "vti")


@pytest.fixture
def real(cluster: Cluster, tmp_path: Path) -> Iterator[DeploymentSpec]:
    """A deployment whose pod is a real Triton with the model `delay`."""
    with Controller(cluster, serve=lambda: Predictor("delay", tmp_path / "server.log")):
        yield replace(spec(cluster), sets=(("model", "delay"),))


@pytest.mark.e2e
def test_the_gate_holds_a_real_triton_to_its_file(
    cluster: Cluster, real: DeploymentSpec, tmp_path: Path
) -> None:
    with deployed(cluster, [real], silent, 60) as (made,):
        assert made.url.startswith("http://127.0.0.1:")
        triton = Triton(target_of(made.url, None, None))
        assert triton.model_ready("delay"), "the platform's way reaches it too"
        triton.close()
        with pytest.raises(DeployFailed, match="no model 'null_vit' ready"):
            verify(cluster, made.pods, "null_vit", MODEL_REPOSITORY)
        other = tmp_path / "delay" / "config.pbtxt"
        other.parent.mkdir()
        file = (MODEL_REPOSITORY / "delay" / "config.pbtxt").read_text()
        other.write_text(re.sub("max_batch_size: [0-9]+", "max_batch_size: 3", file))
        with pytest.raises(DeployFailed, match="max batch: asked 3, served"):
            verify(cluster, made.pods, "delay", tmp_path)
    assert left(cluster) == []


@pytest.mark.e2e
def test_the_gate_sends_a_real_request_over_grpc_too(cluster: Cluster, real: DeploymentSpec) -> None:
    """Control calls are answered as they should be; behind the gRPC port is something else."""
    with deployed(cluster, [real], silent, 60) as (made,):
        (pod,) = made.pods
        with pytest.raises(DeployFailed, match=f"Pod {pod.name} does not answer .* over grpc"):
            verify(cluster, [replace(pod, grpc_port=pod.http_port)], "delay", MODEL_REPOSITORY)


@pytest.mark.parametrize("moment", ["MLServiceRuntime", "MLService", "Service", "Pod", "block"])
@pytest.mark.parametrize("keep", [False, True])
def test_ctrl_c_at_any_moment_leaves_nothing_or_all_that_was_to_be_kept(
    cluster: Cluster, moment: str, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "verify", lambda *_: None)  # no server stands behind these pods

    def interrupt(line: str) -> None:
        if line.lower().startswith((f"applied {moment} ".lower(), f"{moment} vit".lower())):
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted() -> None:
        with deployed(cluster, [spec(cluster)], interrupt, 30, keep_serving=keep, keep_failed=keep):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    with Controller(cluster, play=Play(ready_after_s=1)), pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (left(cluster) != []) is keep


def left(cluster: Cluster) -> list[str]:
    kinds = ("MLService", "MLServiceRuntime", "Service", "Pod")
    return [item["metadata"]["name"] for kind in kinds for item in cluster.items(kind)]
