"""The load's Jobs: what is applied, and a whole sweep through them on a real API server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bench.cli.main import bench
from bench.cluster.api import Cluster
from bench.cluster.jobs import remote_sweep
from bench.cluster.jobs.manifests import LOAD, LoadJobs, manifests
from bench.cluster.jobs.sweep_pod import packed, unpack
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec
from bench.core.command_line import inside_cluster
from bench.core.errors import ClusterError
from bench.core.run_folder import RunFolder
from bench.server.control import Triton
from bench.server.embedded import EmbeddedTriton
from tests.support import synthetic
from tests.support.kube_api import ApiServer, apply
from tests.support.kube_controller import Controller, deploy
from tests.support.load_kubelet import kubelet
from tests.support.real_predictor import Predictor
from tests.support.waiting import until

JOBS = LoadJobs(
    name="bench-load",
    namespace="default",
    image="triton-bench",
    workers=8,
    arguments=("--url", "http://vit-predict-origin.default.svc.cluster.local", "--batch", "1,8"),
)
SHIPPED = Path(__file__).parents[2] / "manifests" / "locust" / "load.yaml"


def by_kind(jobs: LoadJobs, kind: str, name: str) -> dict[str, Any]:
    return next(i for i in manifests(jobs) if (i["kind"], i["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--in-cluster --workers 8 --url http://a", ["--url", "http://a"]),
        ("--workers=8 --in-cluster --batch=1,8", ["--batch=1,8"]),
        ("--name x --out y --force --json --quick --load-image i", ["--quick"]),
        ("--namespace a --context b --rate 5/s", ["--rate", "5/s"]),
        ("--slo p99=1s --workers", ["--slo", "p99=1s"]),
        ("--in-cluster -n my-ns --url http://a", ["--url", "http://a"]),
        ("-nmy-ns --url http://a", ["--url", "http://a"]),
        ("--deploy --triton-image i --gpu=1 --set a=b --keep --load-account c --via pod", ["--via", "pod"]),
        ("--mlservice a,b --platform kserve --replicas 1,2", ["--replicas", "1,2"]),
    ],
)
def test_the_sweep_in_the_cluster_is_asked_all_but_where_it_runs(words: str, kept: list[str]) -> None:
    assert inside_cluster(["bench", "sweep", *words.split()]) == tuple(kept)


def test_there_is_a_pod_for_each_worker_and_one_for_the_sweep() -> None:
    workers, master = by_kind(JOBS, "Job", "bench-load-worker"), by_kind(JOBS, "Job", "bench-load")
    assert workers["spec"]["parallelism"] == workers["spec"]["completions"] == 8
    assert "8" in master["spec"]["template"]["spec"]["containers"][0]["command"]
    assert master["spec"]["backoffLimit"] == 0


def test_only_a_sweep_that_asks_the_api_server_has_a_token() -> None:
    for asks, account in ((False, ""), (True, ""), (True, "bench")):
        jobs = replace(JOBS, asks_api=asks, account=account)
        pods = [
            by_kind(jobs, "Job", name)["spec"]["template"]["spec"]
            for name in ("bench-load", "bench-load-worker")
        ]
        assert [pod["automountServiceAccountToken"] for pod in pods] == [asks, False]
        assert [pod.get("serviceAccountName", "") for pod in pods] == [account, ""]


def test_every_object_and_every_pod_carries_the_loads_label() -> None:
    for item in manifests(JOBS):
        assert item["metadata"]["labels"][LOAD] == "bench-load"
        if item["kind"] == "Job":
            assert item["spec"]["template"]["metadata"]["labels"][LOAD] == "bench-load"


def test_the_service_finds_the_master_and_the_workers_look_for_the_service() -> None:
    service, master = by_kind(JOBS, "Service", "bench-load"), by_kind(JOBS, "Job", "bench-load")
    labels = master["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    worker = by_kind(JOBS, "Job", "bench-load-worker")["spec"]["template"]["spec"]["containers"][0]
    assert worker["command"][-1] == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_the_shipped_file_is_what_the_code_applies() -> None:
    applied = list(manifests(JOBS))
    for item in applied:
        del item["metadata"]["namespace"]  # the file goes where kubectl is told
    applied[0]["data"] = {name: json.loads(text) for name, text in applied[0]["data"].items()}
    shipped = list(yaml.safe_load_all(SHIPPED.read_text()))
    shipped[0]["data"] = {name: json.loads(text) for name, text in shipped[0]["data"].items()}
    assert shipped == applied


def test_a_folder_arrives_as_it_left(tmp_path: Path) -> None:
    (tmp_path / "a" / "trials").mkdir(parents=True)
    (tmp_path / "a" / "trials" / "1.npz").write_bytes(b"\0" * 1000)
    (tmp_path / "a" / "run.json").write_text("{}")
    unpack(packed(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b" / "trials" / "1.npz").read_bytes() == b"\0" * 1000
    unpack(packed(tmp_path / "none"), tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_the_run_is_kept_under_the_command_that_was_typed(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", synthetic.Study(cells=(synthetic.cell(),), repeats=1))
    typed = ("bench", "sweep", "--workers", "8", "--in-cluster", "--url", "http://vit")
    remote_sweep.keep_command(tmp_path / "run", (*typed, "--header", "Authorization:Bearer s3cret"))
    assert folder.record.command[: len(typed)] == typed
    assert "s3cret" not in (tmp_path / "run" / "run.json").read_text()


def test_a_run_that_was_fetched_in_part_hides_no_other_failure(tmp_path: Path) -> None:
    remote_sweep.keep_command(tmp_path / "none", ("bench",))
    (tmp_path / "run.json").write_text('{"name": "cut sh')
    remote_sweep.keep_command(tmp_path, ("bench",))


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    import io

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(tarfile.TarError):
        unpack(buffer.getvalue(), tmp_path / "in")
    assert not (tmp_path / "evil").exists()


@pytest.fixture
def cluster(api_server: ApiServer) -> Any:
    with api_server.namespace() as cluster:
        yield cluster


def named(cluster: Cluster, *arguments: str, workers: int = 2) -> LoadJobs:
    return LoadJobs(
        name="bench-load-1", namespace=cluster.namespace, image="x", workers=workers, arguments=arguments
    )


def asked(triton: EmbeddedTriton) -> list[str]:
    """Arguments of a short sweep of the calibration model."""
    control, target = Triton(triton.target), triton.target
    control.load("delay")
    control.close()
    words = f"--url {target.http_url} --grpc-url {target.grpc_address} --metrics-url {target.metrics_url}"
    load = "--model delay --batch 1 --quick --duration 1s --warmup 0.2s"
    return [*words.split(), *load.split()]


def left(cluster: Cluster) -> list[str]:
    kinds = ("Job", "Service", "ConfigMap")
    return [item["metadata"]["name"] for kind in kinds for item in cluster.items(kind, LOAD)]


def test_the_api_server_takes_every_object_with_no_field_that_it_does_not_know(cluster: Cluster) -> None:
    """Server-side apply refuses a field that no schema declares."""
    for item in manifests(named(cluster)):
        kind, name = item["kind"], item["metadata"]["name"]
        taken = apply(cluster, item, dryRun="All")
        assert (taken["kind"], taken["metadata"]["name"]) == (kind, name)


@pytest.mark.e2e
def test_a_sweep_in_the_cluster_gives_the_same_folder_and_leaves_nothing(
    cluster: Cluster, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    said: list[str] = []
    with kubelet(cluster, tmp_path / "node") as node:
        jobs = named(cluster, *asked(triton), "--concurrency", "2")
        code = remote_sweep.run(cluster, jobs, tmp_path / "run", said.append, node.reach)
        assert code == 0, said
        until(lambda: not node.alive(), 20)  # the played kubelet ends them in a thread of its own
    folder = RunFolder.open(tmp_path / "run")
    (trial,) = folder.trials()
    assert trial.generator.workers == 2
    assert len(trial.samples.good()) > 10
    assert (tmp_path / "run" / "report.html").exists()
    assert any("[1/1]" in line for line in said)
    assert left(cluster) == []


@pytest.mark.e2e
@pytest.mark.parametrize(
    "how", ["--deploy --triton-image example/triton:1", "--mlservice vit --protocol http,grpc"]
)
def test_a_service_is_found_and_measured_from_inside(
    api_server: ApiServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The pod asks the API server itself: here with our kubeconfig in the place of its token."""
    monkeypatch.setenv("KUBECONFIG", str(_in_namespace(api_server, cluster, tmp_path)))
    out, pods = tmp_path / "run", iter(range(9))
    words = f"{how} --in-cluster --workers 2 --load-account bench --model null_small"
    words += f" --batch 1 --quick --duration 0.5s --warmup 0.2s --concurrency 2 --check 0 --out {out}"
    command = ["bench", "sweep", *words.split(" ")]
    monkeypatch.setattr(sys, "argv", command)

    def serve() -> Predictor:
        return Predictor("null_small", tmp_path / f"pod-{next(pods)}.log")

    with Controller(cluster, serve) as controller, kubelet(cluster, tmp_path / "node") as node:
        monkeypatch.setattr(remote_sweep, "forwarded", node.reach)
        is_there = how.startswith("--mlservice")
        if is_there:
            deploy(cluster, _vit(cluster))
        result = CliRunner().invoke(bench, command[1:])
        assert result.exit_code in (0, 3), (result.output, result.exception)
        assert not controller.errors
        accounts = {job["spec"]["template"]["spec"].get("serviceAccountName") for job in node.jobs.values()}
        assert accounts == {"bench", None}
        services = [item["metadata"]["name"] for item in cluster.items("MLService")]
        assert services == (["vit"] if is_there else [])
    assert left(cluster) == []
    ways = {trial.cell.load.protocol: trial.engine["way"] for trial in RunFolder.open(out).trials()}
    over_grpc = "pods" if is_there else "gRPC service's address"
    assert ways == {"http": "service address", "grpc": over_grpc}


@pytest.mark.e2e
def test_ctrl_c_removes_the_service_made_for_it_too(
    api_server: ApiServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(_in_namespace(api_server, cluster, tmp_path)))
    words = "--deploy --triton-image a/b:1 --in-cluster --workers 1 --model null_small --protocol http"
    words += f" --batch 1 --duration 20s --out {tmp_path / 'run'}"
    command = ["bench", "sweep", *words.split(" ")]
    monkeypatch.setattr(sys, "argv", command)

    def serve() -> Predictor:
        return Predictor("null_small", tmp_path / "pod.log")

    with Controller(cluster, serve), kubelet(cluster, tmp_path / "node") as node:
        monkeypatch.setattr(remote_sweep, "forwarded", node.reach)
        begun = threading.Thread(
            target=_interrupt_when, args=(lambda: bool(list(tmp_path.glob("node/pod/run*"))),)
        )
        begun.start()
        result = CliRunner().invoke(bench, command[1:])
        begun.join()
        assert result.exit_code != 0
        assert cluster.items("MLService") == ()
        assert cluster.items("MLServiceRuntime") == ()
    assert left(cluster) == []


def _interrupt_when(happened: Callable[[], bool]) -> None:
    """SIGINT to this very process, as Ctrl-C; after a minute anyway, so that nothing hangs."""
    with contextlib.suppress(AssertionError):
        until(happened)
    os.kill(os.getpid(), signal.SIGINT)


def _vit(cluster: Cluster) -> DeploymentSpec:
    return DeploymentSpec(
        platform=PLATFORMS["mlservice"], name="vit", namespace=cluster.namespace, image="example/triton:1",
        run_label="vit", sets=(("model", "null_small"),),
    )  # fmt: skip


def _in_namespace(api_server: ApiServer, cluster: Cluster, folder: Path) -> Path:
    """A kubeconfig whose context is the test's namespace, as a pod's service account has one."""
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = cluster.namespace
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.e2e
def test_ctrl_c_fetches_what_was_measured_and_leaves_nothing(
    cluster: Cluster, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    interrupted: list[str] = []

    def interrupt(said: str) -> None:
        if "[2/2]" in said and not interrupted:
            interrupted.append(said)
            raise KeyboardInterrupt

    with kubelet(cluster, tmp_path / "node") as node:
        jobs = named(cluster, *asked(triton), "--concurrency", "1,2", workers=1)
        with pytest.raises(KeyboardInterrupt):
            remote_sweep.run(cluster, jobs, tmp_path / "run", interrupt, node.reach)
    assert interrupted
    assert len(list(RunFolder.open(tmp_path / "run").trials())) >= 1
    assert left(cluster) == []


@pytest.mark.parametrize("reason", ["ErrImagePull", "CreateContainerConfigError"])
def test_a_pod_that_cannot_start_ends_it_with_the_reason(
    cluster: Cluster, tmp_path: Path, reason: str
) -> None:
    failing = {"reason": reason, "message": "no such image"}
    with (
        kubelet(cluster, tmp_path / "node", failing) as node,
        pytest.raises(ClusterError, match=f"cannot start: {reason}: no such image"),
    ):
        remote_sweep.run(cluster, named(cluster), tmp_path / "run", lambda _: None, node.reach)
    assert left(cluster) == []


def test_what_was_applied_goes_even_when_applying_breaks_off(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote_sweep, "_started", interrupt)
    with pytest.raises(KeyboardInterrupt):
        remote_sweep.run(cluster, named(cluster), tmp_path / "run", lambda _: None)
    assert left(cluster) == []
