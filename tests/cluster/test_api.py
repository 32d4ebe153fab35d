"""The rim over a real API server, and finding one as kubectl does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bench.cluster.api import Cluster
from bench.cluster.pods import pod_of
from bench.core.errors import ClusterError
from tests.support.kube_api import TOKEN, ApiServer, apply
from tests.support.waiting import until

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a": "b"}}}
RIGHTS = Path(__file__).parents[2] / "manifests" / "rights" / "role.yaml"


@pytest.fixture
def cluster(api_server: ApiServer) -> Iterator[Cluster]:
    with api_server.namespace() as one:
        yield one


@pytest.mark.cluster
def test_apply_read_patch_list_delete(cluster: Cluster) -> None:
    cluster.apply({**CONFIG, "data": {"x": "1"}})
    cluster.apply({**CONFIG, "data": {"x": "2"}})
    cluster.patch_json("ConfigMap", "c", [{"op": "add", "path": "/data/y", "value": "3"}])
    there = cluster.read("ConfigMap", "c")
    assert there is not None
    assert there["data"] == {"x": "2", "y": "3"}
    assert [item["metadata"]["name"] for item in cluster.items("ConfigMap", "a=b")] == ["c"]
    cluster.delete("ConfigMap", "c")
    cluster.delete("ConfigMap", "c")
    assert cluster.read("ConfigMap", "c") is None


@pytest.mark.cluster
def test_contexts_bring_their_namespace(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    if not api_server.url:
        pytest.skip("an existing cluster has contexts of its own")
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
    assert Cluster.connect().namespace == "default"
    assert Cluster.connect(context="elsewhere").namespace == "mine"
    with pytest.raises(ClusterError, match="there are: elsewhere, test"):
        Cluster.connect(context="nowhere")
    assert TOKEN not in repr(Cluster.connect())


@pytest.mark.cluster
def test_the_role_is_enough_and_without_it_the_message_says_what_is_missing(
    cluster: Cluster,
    api_server: ApiServer,
) -> None:
    name = f"system:serviceaccount:{cluster.namespace}:bench"
    user = api_server.user(cluster, name)
    with pytest.raises(ClusterError, match=r"docs/cluster\.md") as error:
        user.pods("a=b")
    assert error.value.status == 403
    for item in yaml.safe_load_all(RIGHTS.read_text()):
        if item["kind"] == "RoleBinding":
            item["subjects"][0]["namespace"] = cluster.namespace
        apply(cluster, item)
    until(lambda: _may_list_pods(user), 20)
    assert user.pods("a=b") == ()
    assert user.items("Event") == ()
    user.apply({**CONFIG, "data": {}})
    user.delete("ConfigMap", "c")


def _may_list_pods(user: Cluster) -> bool:
    """The authorizer hears of a RoleBinding a moment after it was made."""
    try:
        user.pods("a=b")
    except ClusterError:
        return False
    return True


@pytest.mark.parametrize(
    "text", ["users: [{token: s3cret", "just words s3cret", "contexts: [{name: s3cret, context: 5}]"]
)
def test_a_broken_kubeconfig_is_never_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ClusterError) as error:
        Cluster.connect()
    assert "s3cret" not in str(error.value)
    assert "--context" in str(error.value)


def test_without_a_kubeconfig_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull + "-not-there")
    with pytest.raises(ClusterError, match="No kubeconfig"):
        Cluster.connect()


def test_an_api_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "s3cret"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ClusterError, match="does not answer") as error:
        Cluster.connect().pods("a=b")
    assert "s3cret" not in str(error.value)


def test_ports_come_from_the_annotation_then_from_names_then_are_tritons_own() -> None:
    plain = {"metadata": {"name": "p"}}
    named = {**plain, "spec": {"containers": [{"ports": [{"name": "h2c", "containerPort": 9}]}]}}
    told = {**named, "metadata": {"name": "p", "annotations": {"triton-bench/ports": "grpc=7,http=6"}}}
    ports = [(p.http_port, p.grpc_port, p.metrics_port) for p in map(pod_of, (plain, named, told))]
    assert ports == [(8000, 8001, 8002), (8000, 9, 8002), (6, 7, 8002)]
