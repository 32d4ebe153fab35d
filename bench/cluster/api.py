"""One namespace of a Kubernetes API server: apply, read, list, delete and logs, nothing else.

The `kubernetes` package finds the cluster and proves who we are (kubeconfig, contexts, exec plugins,
service account, TLS); requests are plain JSON over its connection pool. Its typed models and their
content types differ from release to release, the pool and the configuration do not.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import urllib3

from bench.cluster.credentials import Connection, open_connection
from bench.cluster.platforms import platform_kinds
from bench.cluster.pods import Pod, pod_of
from bench.core.errors import ClusterError

FIELD_MANAGER = "bench"
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
_JSON = "application/json"
_TIMEOUT = urllib3.Timeout(connect=5, read=30)
# What was asked may have happened when the answer is lost, so only reading is tried again.
_RETRIES = urllib3.Retry(
    total=3,
    backoff_factor=0.2,
    status_forcelist=(429, 502, 503, 504),
    allowed_methods={"GET"},
    raise_on_status=False,
)
_NO_RETRIES = urllib3.Retry(total=0, redirect=0)

# Kind -> (API, plural) beside those of platforms: all that is ever touched, so that no discovery is needed.
KINDS: Mapping[str, tuple[str, str]] = {
    "Job": ("batch/v1", "jobs"),
    "Service": ("v1", "services"),
    "ConfigMap": ("v1", "configmaps"),
    "Pod": ("v1", "pods"),
    "Event": ("v1", "events"),
}
# urllib3 tells of each retry by itself; what matters of it is in our own message.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One namespace of one API server, as the user's kubeconfig, context or service account says."""

    namespace: str
    in_cluster: bool  # we run in a pod of it
    connection: Connection = field(repr=False)  # proves who we are: never shown

    @classmethod
    def connect(cls, namespace: str | None = None, context: str | None = None) -> Cluster:
        """As kubectl: $KUBECONFIG, ~/.kube/config, then the pod's service account.

        Raises ClusterError with the next step.
        """
        connection = open_connection(context, os.environ)
        return cls(namespace or connection.namespace, connection.in_cluster, connection)

    def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Server-side apply: makes the object, or changes what differs. Returns it as it is now."""
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self.call("PATCH", path, query, manifest, _APPLY)

    def read(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """None: there is none, or the cluster does not know the kind."""
        try:
            return self.call("GET", self._path(kind, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def items(self, kind: str, selector: str = "") -> tuple[Mapping[str, Any], ...]:
        """Objects of one kind by label; none where the cluster does not know the kind."""
        query = {"labelSelector": selector} if selector else {}
        try:
            found = self.call("GET", self._path(kind), query).get("items", ())
        except ClusterError as error:
            if error.status == 404:
                return ()
            raise
        # A list says once what its items are.
        return tuple({"apiVersion": _api(kind)[0], "kind": kind, **item} for item in found)

    def patch_json(self, kind: str, name: str, operations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """RFC 6902: a merge would replace whole lists, such as an MLService's releases."""
        query = {"fieldManager": FIELD_MANAGER}
        return self.call("PATCH", self._path(kind, name), query, list(operations), _JSON_PATCH)

    def delete(self, kind: str, name: str) -> None:
        """What it owns goes in the background. One that is gone already is fine."""
        try:
            self.call("DELETE", self._path(kind, name), {"propagationPolicy": "Background"})
        except ClusterError as error:
            if error.status != 404:
                raise

    def pods(self, selector: str) -> tuple[Pod, ...]:
        """By name; without those that are being ended."""
        found = (pod_of(item) for item in self.items("Pod", selector) if not _is_going(item))
        return tuple(sorted(found, key=lambda pod: pod.name))

    def logs(self, pod: str, container: str | None = None, lines: int = 20, *, previous: bool = False) -> str:
        """The last lines of a container, or of its run before this one. Raises ClusterError."""
        query = {"tailLines": str(lines)}
        if container:
            query["container"] = container
        if previous:
            query["previous"] = "true"
        return self.text(f"{self._path('Pod', pod)}/log", query)

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        """One request to the API server, decoded. Raises ClusterError with its reason."""
        answer: dict[str, Any] = json.loads(self._request(method, path, query, body, content_type).data)
        return answer

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """A GET of something that is no JSON."""
        return self._request("GET", path, query, None, _JSON).data.decode(errors="replace")

    def _request(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str
    ) -> urllib3.BaseHTTPResponse:
        url = self.connection.server + path + (f"?{urlencode(query)}" if query else "")
        headers = {**self.connection.credentials(), "Accept": "application/json, */*"}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            answer: urllib3.BaseHTTPResponse = self.connection.pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=_TIMEOUT,
                retries=_RETRIES if method == "GET" else _NO_RETRIES,
            )
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(_unreachable(self.connection.server, error)) from error
        if answer.status >= 400:
            raise _refusal(method, path, answer)
        return answer

    def _path(self, kind: str, name: str = "") -> str:
        version, plural = _api(kind)
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")


def _api(kind: str) -> tuple[str, str]:
    return KINDS.get(kind) or platform_kinds()[kind]


def _is_going(item: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in item["metadata"]


def _unreachable(server: str, error: urllib3.exceptions.HTTPError) -> str:
    cause = getattr(error, "reason", None) or error
    why = "its certificate is not trusted" if "CERTIFICATE_VERIFY" in str(cause) else type(cause).__name__
    return f"The API server {server} does not answer ({why}): check `kubectl cluster-info` and --context."


def _refusal(method: str, path: str, answer: urllib3.BaseHTTPResponse) -> ClusterError:
    said = _status_message(answer.data)
    if answer.status == 401:
        said = "The API server does not know you: log in again, and check that `kubectl get pods` works."
    elif answer.status == 403 and "exceeded quota" not in said:
        said = f"{said.rstrip('.')}. Ask for the verbs in docs/cluster.md, or give another --namespace."
    elif not said:
        said = f"{method} {path} ended with status {answer.status}: see the API server's own log."
    return ClusterError(said, status=answer.status)


def _status_message(body: bytes) -> str:
    try:
        return str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        return ""
