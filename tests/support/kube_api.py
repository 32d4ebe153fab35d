"""A real API server for tests: etcd and kube-apiserver of $KUBEBUILDER_ASSETS, with our CRDs.

An API server only: no kubelet and no controllers. Pods stay as tests write them (see `controller.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.cluster.api import Cluster
from bench.core.errors import ClusterError
from tests.support.waiting import until

CRDS = Path(__file__).parents[1] / "data" / "crds"
TOKEN = "token-of-the-test-administrator"
HOW = (
    "needs a Kubernetes API server: set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver "
    "(`setup-envtest use -p path` downloads one), or USE_EXISTING_CLUSTER=true for the current context"
)


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API server; `kubeconfig` is what a user of it would have."""

    kubeconfig: Path
    url: str = ""

    def cluster(self, namespace: str) -> Cluster:
        with _environment(KUBECONFIG=str(self.kubeconfig)):
            return Cluster.connect(namespace)

    @contextmanager
    def namespace(self) -> Iterator[Cluster]:
        """A fresh one. Without its controller it would never end, so its name is simply not used again."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        cluster = self.cluster(name)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        cluster.call("POST", "/api/v1/namespaces", body=body)
        try:
            yield cluster
        finally:
            cluster.call("DELETE", f"/api/v1/namespaces/{name}")

    def user(self, cluster: Cluster, name: str) -> Cluster:
        """The same namespace as somebody without rights, until a RoleBinding gives some."""
        headers = {**cluster.connection.credentials(), "Impersonate-User": name}
        return replace(cluster, connection=replace(cluster.connection, credentials=lambda: dict(headers)))


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """Import this fixture where it is needed; skips with a sentence where there is no API server."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if os.environ.get("USE_EXISTING_CLUSTER", "").lower() == "true":
        server = ApiServer(Path(os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser())
        apply_crds(server.cluster("default"))
        yield server
    elif assets and (Path(assets) / "kube-apiserver").exists():
        with started(Path(assets)) as server:
            apply_crds(server.cluster("default"))
            yield server
    else:
        pytest.skip(HOW)


@contextmanager
def started(assets: Path) -> Iterator[ApiServer]:
    folder = Path(tempfile.mkdtemp(prefix="bench-kube-"))
    client, peer, secure = _free_ports(3)
    _write_credentials(folder)
    etcd = _spawn(folder, "etcd", [
        str(assets / "etcd"), f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=error",
        f"--listen-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
    ])  # fmt: skip
    api = _spawn(folder, "kube-apiserver", [
        str(assets / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{client}",
        f"--cert-dir={folder}/certs", "--bind-address=127.0.0.1", f"--secure-port={secure}",
        *_insecure_off(assets), "--service-cluster-ip-range=10.0.0.0/24",
        f"--token-auth-file={folder}/tokens", "--authorization-mode=RBAC",
        "--service-account-issuer=https://localhost", f"--service-account-key-file={folder}/key.pem",
        f"--service-account-signing-key-file={folder}/key.pem", "--allow-privileged=true",
        "--disable-admission-plugins=ServiceAccount",
    ])  # fmt: skip
    try:
        server = ApiServer(_write_kubeconfig(folder, secure), f"https://127.0.0.1:{secure}")
        until(lambda: _is_ready(server, api, folder))
        yield server
    finally:
        for process in (api, etcd):
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def path_of(cluster: Cluster, item: Mapping[str, Any]) -> str:
    """Of all objects of a kind, also one that `bench` itself never touches."""
    version = item["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{cluster.namespace}/{item['kind'].lower()}s"


def apply(cluster: Cluster, item: Mapping[str, Any], **query: str) -> dict[str, Any]:
    """Server-side apply of any kind; `dryRun="All"` changes nothing."""
    query = {"fieldManager": "bench-tests", "force": "true", "fieldValidation": "Strict", **query}
    path = f"{path_of(cluster, item)}/{item['metadata']['name']}"
    return cluster.call("PATCH", path, query, item, "application/apply-patch+yaml")


def write_status(cluster: Cluster, path: str, status: Mapping[str, Any]) -> None:
    """What a controller or a kubelet says of the object at `path`."""
    body = {"status": status}
    cluster.call("PATCH", f"{path}/status", body=body, content_type="application/merge-patch+json")


def apply_crds(cluster: Cluster) -> None:
    """All of tests/data/crds, until the server knows their kinds."""
    for path in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(path.read_text()):
            name = crd["metadata"]["name"]
            cluster.call(
                "PATCH",
                f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}",
                {"fieldManager": "bench-tests", "force": "true"},
                crd,
                "application/apply-patch+yaml",
            )
            until(lambda crd=crd: _is_served(cluster, crd), 20)  # type: ignore[misc]  # of this turn


def _is_served(cluster: Cluster, crd: dict[str, Any]) -> bool:
    spec = crd["spec"]
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    with suppress(ClusterError):
        cluster.call("GET", path)
        return True
    return False


def _spawn(folder: Path, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)


def _insecure_off(assets: Path) -> list[str]:
    """Servers up to 1.23 open a port without TLS; later ones do not know the flag."""
    text = subprocess.run([assets / "kube-apiserver", "--help"], capture_output=True, text=True).stdout
    return ["--insecure-port=0"] if "--insecure-port" in text else []


def _is_ready(server: ApiServer, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "kube-apiserver.log").read_text()[-2000:]
    with suppress(ClusterError):
        server.cluster("default").text("/readyz")
        return True
    return False


def _write_credentials(folder: Path) -> None:
    (folder / "tokens").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    command = ["openssl", "genrsa", "-out", str(folder / "key.pem"), "2048"]
    subprocess.run(command, check=True, capture_output=True)


def _write_kubeconfig(folder: Path, port: int) -> Path:
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{folder}/certs/apiserver.crt"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [
            {"name": "test", "context": {"cluster": "test", "user": "admin"}},
            {"name": "elsewhere", "context": {"cluster": "test", "user": "admin", "namespace": "mine"}},
        ],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its data is thrown away: no need to wait for an orderly end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
