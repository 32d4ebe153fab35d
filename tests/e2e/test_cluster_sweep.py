"""`bench sweep` on a cluster, as somebody runs it: a real API server, a played cluster, real Tritons."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from bench.cli.main import bench
from bench.cluster.api import Cluster
from bench.cluster.deploy.rollout import find_service
from bench.cluster.platforms import PLATFORMS, platform_kinds
from bench.cluster.platforms.base import DeploymentSpec, beside
from bench.core.errors import WrongUse
from bench.core.run_folder import RunFolder
from bench.core.target import Target
from bench.server.control import Triton
from tests.support.host_names import Names
from tests.support.kube_api import ApiServer
from tests.support.kube_controller import Controller, Play, deploy
from tests.support.real_predictor import Predictor
from tests.support.waiting import until

MODEL = "null_small"
IMAGE = {"BENCH_TRITON_IMAGE": "example/triton:1"}
QUICK = ["--quick", "--duration", "0.4s", "--warmup", "0.1s", "--concurrency", "2"]


@dataclass
class Lab:
    """A namespace, its controller, and the command run against it."""

    cluster: Cluster
    controller: Controller
    kubeconfig: Path
    folder: Path
    names: Names
    asked: str = MODEL
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def sweep(self, *words: str) -> subprocess.Popen[str]:
        return self.run("sweep", *QUICK, *words)

    def run(self, *words: str) -> subprocess.Popen[str]:
        return self.bench(*words, "--model", MODEL, "--out", str(self.out))

    def deploy(self) -> subprocess.Popen[str]:
        return self.bench("deploy", "--name", "vit", "--set", f"model={self.asked}", "--no-keep")

    def bench(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *words, "--namespace", self.cluster.namespace],
            stderr=self.log.open("w"),
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.names.environment, "KUBECONFIG": str(self.kubeconfig), **IMAGE},
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> Path:
        return self.folder / "stderr"

    def said(self) -> str:
        return " ".join(self.log.read_text().split())

    def ways(self) -> dict[str, set[str]]:
        """Of each protocol, as the run's table says."""
        table = pd.read_csv(self.out / "cells.csv")
        return {str(protocol): set(cells["way"]) for protocol, cells in table.groupby("protocol")}

    def passed(self) -> dict[str, dict[int, int]]:
        """Bytes sent to each service's ports: 0 HTTP, 1 gRPC."""
        return {name: gateway.passed for (_, name), gateway in self.controller.gateways.items()}

    def is_empty(self) -> bool:
        """Soon: the played controllers may be making a pod of an object that has just been removed."""
        return not self.left()

    def left(self) -> list[str]:
        kinds = (*platform_kinds(), "Service", "Pod")
        return [f"{kind} {item['metadata']['name']}" for kind in kinds for item in self.cluster.items(kind)]

    def until(self, happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        until(lambda: happened() or process.poll() is not None, why=self.said)
        assert process.poll() is None, self.said()


@pytest.fixture
def lab(api_server: ApiServer, tmp_path: Path) -> Iterator[Lab]:
    count = iter(range(100))

    def serve() -> Predictor:
        return Predictor(MODEL, tmp_path / f"pod-{next(count)}.log")

    with api_server.namespace() as cluster, Controller(cluster, serve) as controller:
        controller.names = Names(tmp_path / "names.json")
        lab = Lab(cluster, controller, api_server.kubeconfig, tmp_path, controller.names)
        yield lab
        for process in lab.processes:
            process.kill()  # of a test that failed
            process.wait()
        assert not controller.errors


DEPLOY = ("--deploy",)
BOTH = ("--batch", "1", "--protocol", "http,grpc", "--check", "0")


@pytest.mark.e2e
@pytest.mark.cluster
def test_deploy_measures_through_an_address_of_each_protocol_and_leaves_nothing(lab: Lab) -> None:
    """The image from the environment and no --protocol: a service made for the run is measured as a whole."""
    process = lab.sweep("--deploy", "--batch", "1,8", "--instances", "1,2", "--check", "0")
    assert process.wait(120) in (0, 3), lab.said()
    table = pd.read_csv(lab.out / "cells.csv")
    assert sorted(zip(table["protocol"], table["batch"], table["instances"], strict=True)) == [
        (protocol, batch, instances)
        for protocol in ("grpc", "http")
        for batch in (1, 8)
        for instances in (1, 2)
    ]
    assert (table["throughput_img_per_s"] > 10).all(), lab.said()
    assert (table["executed_batch_mean"] == table["batch"]).all()
    record = RunFolder.open(lab.out).record
    assert record.target.startswith("mlservice made for the run from example/triton:1, client outside")
    assert record.target.endswith("http through the service address, grpc through the gRPC service's address")
    assert lab.ways() == {"http": {"service address"}, "grpc": {"gRPC service's address"}}
    (over_http,), (over_grpc,) = (
        [n for n in lab.passed() if n.endswith("-grpc") is is_grpc] for is_grpc in (False, True)
    )
    assert over_grpc == f"{over_http}-grpc"
    assert lab.passed()[over_http][0] > 1000
    assert lab.passed()[over_grpc][1] > 1000
    assert lab.said().index("needs up to 2 pods with 0 GPUs") < lab.said().index("applied MLService ")
    for trial in RunFolder.open(lab.out).trials():
        assert trial.counters is not None
        assert len(trial.counters.pods) == 1, "the other service's pod has nothing to count"
        assert trial.counters.inference_count > 0
    assert lab.left() == []


@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.parametrize("platform", ["kserve", "deployment"])
def test_a_platform_that_shows_all_ports_needs_one_service(lab: Lab, platform: str) -> None:
    process = lab.sweep(*DEPLOY, "--platform", platform, *BOTH)
    assert process.wait(120) in (0, 3), lab.said()
    assert lab.ways() == {"http": {"service address"}, "grpc": {"service address"}}
    (passed,) = lab.passed().values()
    assert min(passed[0], passed[1]) > 1000
    assert RunFolder.open(lab.out).record.target.startswith(f"{platform} made for the run")
    assert lab.left() == []


@pytest.mark.e2e
@pytest.mark.cluster
def test_two_services_that_find_no_room_tell_how_one_would_do(lab: Lab) -> None:
    lab.controller.play = Play(failure="gpu")
    assert lab.sweep("--deploy").wait(60) == 4
    assert "No node has the GPU" in lab.said()
    assert "With --protocol http, one of the two services is enough." in lab.said()
    assert lab.left() == []
    assert lab.sweep("--deploy", "--protocol", "http").wait(60) == 4
    assert "is enough" not in lab.said()


@pytest.mark.e2e
@pytest.mark.cluster
def test_straight_to_the_pods_needs_no_second_service(lab: Lab) -> None:
    process = lab.sweep(*DEPLOY, *BOTH, "--via", "pod")
    assert process.wait(120) in (0, 3), lab.said()
    assert lab.ways() == {"http": {"pods"}, "grpc": {"pods"}}
    assert len(lab.passed()) == 1
    assert lab.left() == []


@pytest.mark.e2e
@pytest.mark.cluster
def test_services_that_are_there_are_told_apart_by_their_ports(lab: Lab) -> None:
    vit = _made(lab)
    deploy(lab.cluster, beside(vit))
    process = lab.sweep("--mlservice", "vit-grpc,vit", *BOTH, "--via", "platform,pod")
    assert process.wait(120) in (0, 3), lab.said()
    assert lab.ways() == {"http": {"service address", "pods"}, "grpc": {"gRPC service's address", "pods"}}
    alone = lab.sweep("--mlservice", "vit-grpc", *BOTH, "--force")
    assert alone.wait(120) in (0, 3), lab.said()
    assert lab.ways() == {"http": {"pods"}, "grpc": {"service address"}}
    refused = lab.sweep("--mlservice", "vit", *BOTH, "--via", "platform", "--force")
    assert refused.wait(60) == 2
    assert "--protocol grpc: the service's address does not take grpc" in lab.said()
    deploy(lab.cluster, replace(vit, name="vit2"))
    twice = lab.sweep("--mlservice", "vit,vit2", *BOTH, "--force")
    assert twice.wait(60) == 4
    assert "the addresses of both take http" in lab.said()


@pytest.mark.e2e
@pytest.mark.cluster
def test_an_mlservice_is_scaled_measured_both_ways_and_taken_back(lab: Lab) -> None:
    _made(lab)
    words = "--mlservice vit --batch 1 --instances 2 --replicas 1,2 --via platform,pod --check 0"
    process = lab.sweep(*words.split(" "))
    assert process.wait(120) in (0, 3), lab.said()
    table = pd.read_csv(lab.out / "cells.csv")
    assert sorted(zip(table["replicas"], table["via"], strict=True)) == [
        (1, "platform"), (1, "pod"), (2, "platform"), (2, "pod"),
    ]  # fmt: skip
    assert (table["throughput_img_per_s"] > 10).all(), lab.said()
    assert "the pods of both revisions may hold GPUs" in " ".join(lab.said().split())
    trials = [t for t in RunFolder.open(lab.out).trials() if t.cell.server.replicas == 2]
    for trial in trials:
        assert trial.counters is not None
        assert len(trial.counters.pods) == 2
        assert all(pod.inference_count > 0 for pod in trial.counters.pods.values())
    service = find_service(lab.cluster, PLATFORMS["mlservice"], "vit")
    assert len(service.pods) == 1
    control = Triton(Target(f"http://127.0.0.1:{service.pods[0].http_port}"))
    assert sum(int(group["count"]) for group in control.config(MODEL)["instance_group"]) == 1
    control.close()


@pytest.mark.e2e
@pytest.mark.cluster
def test_a_search_goes_the_same_ways(lab: Lab) -> None:
    """Interrupted after its first probe: how it ends is not of the cluster."""
    _made(lab)
    words = "--mlservice vit --slo p50=1s --via pod --workers 2 --longest-probe 2s --warmup 0.2s --check 0"
    process = lab.run("search", *words.split(" "))
    lab.until(lambda: len(list(lab.out.glob("trials/*/*.json"))) >= 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, lab.said()
    trials = list(RunFolder.open(lab.out).trials())
    assert {trial.engine["way"] for trial in trials} == {"pods"}
    assert {trial.generator.workers for trial in trials if trial.cell.load.is_open_loop} == {2}
    assert "Traceback" not in lab.said()


def _made(lab: Lab) -> DeploymentSpec:
    """An MLService that is there already."""
    spec = DeploymentSpec(
        platform=PLATFORMS["mlservice"], name="vit", namespace=lab.cluster.namespace, run_label="vit",
        image="example/triton:1", sets=(("model", MODEL),),
    )  # fmt: skip
    deploy(lab.cluster, spec)
    return spec


MOMENTS: dict[str, Callable[[Lab], bool]] = {
    "with one object applied": lambda lab: "applied" in lab.said(),
    "while pods come": lambda lab: bool(lab.cluster.items("Pod")),
    "while the model is loaded": lambda lab: "loading" in lab.said(),
    "while it measures": lambda lab: len(list(lab.out.glob("trials/*/*.json"))) >= 1,
    "while it is taken down": lambda lab: "removed MLService" in lab.said(),
    "with half of the gRPC service applied": lambda lab: lab.said().count("applied MLServiceRuntime") == 2,
    "with one service ready": lambda lab: ": ready" in lab.said(),
}


@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_leaves_nothing(lab: Lab, moment: str) -> None:
    process = lab.sweep(*DEPLOY, *BOTH)
    lab.until(lambda: MOMENTS[moment](lab), process)
    process.send_signal(signal.SIGINT)
    expected = (0, 3) if moment == "while it is taken down" else (130,)
    assert process.wait(60) in expected, lab.said()
    assert "Traceback" not in lab.said()
    until(lab.is_empty)


@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.parametrize("moment", ["with one object applied", "while pods come", "with one service ready"])
def test_ctrl_c_while_it_deploys_leaves_nothing_either(lab: Lab, moment: str) -> None:
    lab.controller.play = Play(ready_after_s=0.5)
    process = lab.deploy()
    lab.until(lambda: MOMENTS[moment](lab), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in ((0, 130) if moment == "with one service ready" else (130,)), lab.said()
    assert "Traceback" not in lab.said()
    until(lambda: process.returncode == 0 or lab.is_empty())


@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.parametrize("verb", ["deploy", "sweep"])
def test_a_service_that_fails_the_last_gate_is_refused_and_leaves_nothing(lab: Lab, verb: str) -> None:
    """Its pods are ready, but serve another model than asked."""
    lab.asked = "null_vit"
    if verb == "deploy":
        process = lab.deploy()
    else:
        words = ("--model", lab.asked, "--out", str(lab.out), *BOTH, "--deploy")
        process = lab.bench("sweep", *QUICK, *words)
    assert process.wait(60) == 4, lab.said()
    assert "has no model 'null_vit' ready: does the volume hold it?" in lab.said()
    assert lab.left() == []
    assert not list(lab.out.glob("trials/*/*.json")), "nothing was measured"


@pytest.mark.parametrize(
    ("says", "words", "mistakes"),
    [
        ("--replicas needs a cluster", "--replicas 2", ["--replicas 2: goes with --mlservice"]),
        ("a service has an address", "--mlservice a --url b", ["--url b: goes without --mlservice"]),
        ("one of two", "--mlservice a --deploy --triton-image i", ["--deploy: goes without --mlservice"]),
        (
            "all at once",
            "--deploy --via x --gpu y --platform z",
            [
                "--via x",
                "--gpu y",
                "--platform z: 'z' is unknown; allowed: mlservice",
                "--triton-image ''",
            ],
        ),
        ("flags of a deployment", "--mlservice a --queue q", ["--queue q: goes with --deploy"]),
        ("one address only", "--mlservice a --shared-memory system", ["needs the server on this host"]),
    ],
)
def test_mistakes_are_found_before_any_cluster_is_asked(says: str, words: str, mistakes: list[str]) -> None:
    result = CliRunner().invoke(bench, ["sweep", *words.split(" ")])
    assert isinstance(result.exception, WrongUse), says
    for mistake in mistakes:
        assert any(mistake in found for found in result.exception.mistakes), result.exception.mistakes
