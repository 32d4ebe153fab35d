"""The files in manifests/ are what `bench deploy` applies, and a real API server takes each of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cluster.api import Cluster
from bench.cluster.platforms import PLATFORMS
from bench.cluster.platforms.base import DeploymentSpec, Platform, beside, manifests
from bench.cluster.pods import REVISION
from bench.core.errors import ClusterError
from tests.support.kube_api import CRDS, ApiServer, apply, path_of
from tests.support.kube_controller import template_of

FOLDER = Path(__file__).parents[2] / "manifests"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
KUBECTL = shutil.which("kubectl")
CASES = [(path, index) for path in FILES for index in range(len(list(yaml.safe_load_all(path.read_text()))))]


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def stripped(item: dict[str, Any]) -> dict[str, Any]:
    item["metadata"].pop("namespace", None)
    template_of(item)["labels"].pop(REVISION, None)
    return item


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda one: one.name)
def test_files_are_what_bench_deploy_applies(platform: Platform) -> None:
    sets = (("runtime", "triton-python"),) if platform.one_port else ()
    spec = DeploymentSpec(
        platform=platform, name="vit-base-patch16-224", namespace="x", run_label="manual", gpu=1,
        image="example.com/triton-vit:26.07-1", sets=sets,
    )  # fmt: skip
    assert shipped(FOLDER / platform.name) == [stripped(item) for item in manifests(spec)]
    if platform.one_port:
        assert shipped(FOLDER / "mlservice-grpc") == [stripped(item) for item in manifests(beside(spec))]


def shipped(folder: Path) -> list[dict[str, Any]]:
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [item for name in listed for item in objects(folder / name)]


def test_each_kustomization_lists_all_files_beside_it() -> None:
    for path in FOLDER.rglob("kustomization.yaml"):
        beside = {file.name for file in path.parent.glob("*.yaml")} - {path.name}
        assert set(yaml.safe_load(path.read_text())["resources"]) == beside


@pytest.fixture(scope="module")
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    with api_server.namespace() as one:
        yield one


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cluster.call("GET", "/openapi/v2")["definitions"]
    return found


@pytest.mark.cluster
@pytest.mark.parametrize(("path", "index"), CASES, ids=lambda c: c.parent.name if isinstance(c, Path) else c)
def test_the_server_takes_every_manifest_and_knows_every_field(
    cluster: Cluster, definitions: Mapping[str, Any], path: Path, index: int
) -> None:
    item = objects(path)[index]
    item["metadata"].pop("namespace", None)  # ours is the test's
    taken = apply(cluster, item, dryRun="All")
    assert taken["kind"] == item["kind"]
    assert not list(unknown(item, schema_of(item, definitions), definitions, ""))


@pytest.mark.cluster
@pytest.mark.parametrize(("path", "index"), CASES, ids=lambda c: c.parent.name if isinstance(c, Path) else c)
def test_kubectl_apply_dry_run_server_takes_every_manifest(cluster: Cluster, path: Path, index: int) -> None:
    """Its very request, for an object that is not there. Servers before 1.25 do not validate fields."""
    item = objects(path)[index]
    item["metadata"].pop("namespace", None)
    kind, name = item["kind"], item["metadata"]["name"]
    query = {"dryRun": "All", "fieldManager": "kubectl-client-side-apply", "fieldValidation": "Strict"}
    taken = cluster.call("POST", path_of(cluster, item), query, item)
    assert (taken["kind"], taken["metadata"]["name"]) == (kind, name)
    with pytest.raises(ClusterError, match="not found"):  # nothing was made
        cluster.call("GET", f"{path_of(cluster, item)}/{name}")


@pytest.mark.cluster
@pytest.mark.skipif(
    KUBECTL is None, reason="kubectl is not on the PATH; the test above sends the same request"
)
@pytest.mark.parametrize("path", [*FILES, *KUSTOMIZATIONS], ids=lambda path: "/".join(path.parts[-2:]))
def test_kubectl_itself_takes_every_file_and_kustomization(
    api_server: ApiServer, cluster: Cluster, path: Path
) -> None:
    what = ["-k", path.parent] if path in KUSTOMIZATIONS else ["-f", path]
    where = ["--kubeconfig", api_server.kubeconfig, "--namespace", cluster.namespace]
    command = [KUBECTL, *where, "apply", "--dry-run=server", *what]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)  # type: ignore[arg-type]
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("(server dry run)") == sum(len(objects(file)) for file in _files_of(path))


def _files_of(path: Path) -> list[Path]:
    if path not in KUSTOMIZATIONS:
        return [path]
    return [path.parent / name for name in yaml.safe_load(path.read_text())["resources"]]


@pytest.mark.cluster
def test_an_unknown_field_is_found(definitions: Mapping[str, Any]) -> None:
    wrong = objects(FOLDER / "deployment" / "deployment.yaml")[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    found = list(unknown(wrong, schema_of(wrong, definitions), definitions, ""))
    assert found == ["spec.template.spec.containers[0].imagePolicy"]
    service = objects(FOLDER / "mlservice" / "mlservice.yaml")[0]
    service["spec"]["releases"][0]["predictor"]["template"]["spec"]["volumen"] = []
    found = list(unknown(service, schema_of(service, definitions), definitions, ""))
    assert found == ["spec.releases[0].predictor.template.spec.volumen"]


def schema_of(item: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for path in CRDS.glob("*.yaml"):
        for crd in yaml.safe_load_all(path.read_text()):
            if crd["spec"]["names"]["kind"] == item["kind"]:
                schema: Mapping[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                return schema
    group, _, version = item["apiVersion"].rpartition("/")
    wanted = {"group": group, "version": version, "kind": item["kind"]}
    return next(d for d in definitions.values() if wanted in d.get("x-kubernetes-group-version-kind", ()))


def unknown(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any], at: str) -> Iterator[str]:
    """Paths of fields that no schema names. What a CRD leaves open inside a pod is read as a pod."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        schema = _as_core(definitions, at)
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from unknown(one, schema.get("items", {}), definitions, f"{at}[{index}]")
    if not isinstance(value, dict):
        return
    known, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for name, one in value.items():
        path = f"{at}.{name}" if at else name
        if name in known and path != "metadata":
            yield from unknown(one, known[name], definitions, path)
        elif name not in known and rest is None and (known or path.count(".") < 2):
            yield path


def _as_core(definitions: Mapping[str, Any], at: str) -> Mapping[str, Any]:
    last = at.rpartition(".")[2].partition("[")[0]
    core = {
        "spec": "core.v1.PodSpec", "containers": "core.v1.Container", "volumes": "core.v1.Volume",
        "volumeMounts": "core.v1.VolumeMount", "env": "core.v1.EnvVar",
        "deploymentStrategy": "apps.v1.DeploymentStrategy",
    }[last]  # fmt: skip
    return definitions[f"io.k8s.api.{core}"]
