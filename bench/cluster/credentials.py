"""Which API server, which namespace, and who we are there: what kubectl would take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
import yaml

from bench.core.errors import ClusterError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST = "KUBERNETES_SERVICE_HOST"
_HOW = (
    "Give --context, set KUBECONFIG, or run in a pod with a service account; `kubectl config view` shows "
    "what there is."
)


@dataclass(frozen=True, slots=True)
class Connection:
    """An API server's address, a pool of TLS connections to it, and headers that prove who we are."""

    server: str
    namespace: str  # where one is not given
    in_cluster: bool
    pool: Any = field(repr=False)  # urllib3.PoolManager or ProxyManager
    credentials: Callable[[], dict[str, str]] = field(repr=False)  # anew each time: tokens are short-lived
    client: Any = field(repr=False)  # kubernetes.client.ApiClient, for what needs its own (port-forward)


def open_connection(context: str | None, environment: Mapping[str, str]) -> Connection:
    """Raises ClusterError; its message never holds a value of the kubeconfig, which may be a secret."""
    if context is None and _is_in_pod(environment) and not _kubeconfigs(environment):
        return _from_service_account()
    return _from_kubeconfig(context, environment)


def _is_in_pod(environment: Mapping[str, str]) -> bool:
    return _HOST in environment and (SERVICE_ACCOUNT / "token").exists()


def _kubeconfigs(environment: Mapping[str, str]) -> list[Path]:
    """Those that are there."""
    named = environment.get("KUBECONFIG") or "~/.kube/config"
    paths = (Path(part).expanduser() for part in named.split(os.pathsep) if part)
    return [path for path in paths if path.exists()]


def _from_service_account() -> Connection:
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_incluster_config(client_configuration=configuration)
    namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    return _connection(configuration, namespace, in_cluster=True)


def _from_kubeconfig(context: str | None, environment: Mapping[str, str]) -> Connection:
    from kubernetes import client, config

    files = [str(path) for path in _kubeconfigs(environment)]
    if not files:
        raise ClusterError(f"No kubeconfig here. {_HOW}")
    where = os.pathsep.join(files)
    configuration = client.Configuration()
    try:
        contexts, active = config.list_kube_config_contexts(config_file=where)
        names = {entry["name"]: entry["context"] for entry in contexts}
        if context is not None and context not in names:
            raise ClusterError(f"No context {context!r}; there are: {', '.join(sorted(names))}.")
        config.load_kube_config(
            config_file=where, context=context, client_configuration=configuration, persist_config=False
        )
    except config.ConfigException as error:
        raise ClusterError(f"{_safe(str(error))} {_HOW}") from None
    except (yaml.YAMLError, OSError, KeyError, TypeError, AttributeError, ValueError):
        # The library walks the file as if it were sound; its errors quote what they met, tokens too.
        raise ClusterError(f"The kubeconfig {where} cannot be read as one. {_HOW}") from None
    chosen = names.get(context) if context else active["context"]
    namespace = str((chosen or {}).get("namespace") or "default")
    return _connection(configuration, namespace, in_cluster=_is_in_pod(environment))


def _safe(message: str) -> str:
    """The library's own complaints about structure name keys only; others may repeat a plugin's output."""
    if message.startswith("Invalid kube-config"):
        return message.rstrip(".") + "."
    return "The kubeconfig's credentials could not be had (its login plugin failed)."


def _connection(configuration: Any, namespace: str, *, in_cluster: bool) -> Connection:
    from kubernetes import client

    api = client.ApiClient(configuration=configuration)
    if not configuration.verify_ssl:  # the kubeconfig says so; once would be enough, each request is too much
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def credentials() -> dict[str, str]:
        settings = configuration.auth_settings().values()
        return {one["key"]: one["value"] for one in settings if one["in"] == "header" and one["value"]}

    return Connection(
        configuration.host.rstrip("/"), namespace, in_cluster, api.rest_client.pool_manager, credentials, api
    )
