"""Pods and events as this suite sees them, from the API server's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Knative lets a pod declare one port only, so where the others differ from Triton's own, this says so:
# "http=8000,grpc=8001,metrics=8002".
PORTS = "triton-bench/ports"
REVISION = "triton-bench/revision"
_PORT_NAMES = {"http": "http", "http1": "http", "grpc": "grpc", "h2c": "grpc", "metrics": "metrics"}
_REVISIONS = ("serving.knative.dev/revision", "pod-template-hash", REVISION)


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    ip: str  # "" until it has one
    phase: str
    ready: bool
    labels: Mapping[str, str]
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    kind: str  # of the object it is about
    name: str
    type: str  # Normal or Warning
    reason: str
    message: str
    at: str  # RFC 3339
    uid: str = ""
    count: int = 1


def pod_of(item: Mapping[str, Any]) -> Pod:
    """Ports from the annotation, else from the names of container ports, else Triton's own."""
    status, meta = item.get("status", {}), item["metadata"]
    labels = meta.get("labels", {})
    ports = {**dict(_declared(item)), **dict(_annotated(meta.get("annotations", {})))}
    return Pod(
        meta["name"],
        status.get("podIP", ""),
        status.get("phase", ""),
        condition(item, "Ready") == "True",
        labels,
        **{f"{kind}_port": port for kind, port in ports.items()},
        revision=next((labels[key] for key in _REVISIONS if key in labels), ""),
    )


def _declared(item: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for container in item.get("spec", {}).get("containers", ()):
        for port in container.get("ports", ()):
            if port.get("name") in _PORT_NAMES:
                yield _PORT_NAMES[port["name"]], int(port["containerPort"])


def _annotated(annotations: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    for part in annotations.get(PORTS, "").split(","):
        kind, _, number = part.strip().partition("=")
        if kind in ("http", "grpc", "metrics") and number.isdigit():
            yield kind, int(number)


def event_of(item: Mapping[str, Any]) -> Event:
    about = item.get("involvedObject", {})
    at = item.get("lastTimestamp") or item.get("eventTime") or item["metadata"].get("creationTimestamp", "")
    return Event(
        about.get("kind", ""),
        about.get("name", ""),
        item.get("type", ""),
        item.get("reason", ""),
        " ".join(item.get("message", "").split()),
        at,
        item["metadata"].get("uid", ""),
        int(item.get("count") or 1),
    )


def condition(item: Mapping[str, Any], kind: str) -> str:
    """True, False, Unknown, or "" where the status has none. Platforms differ in case."""
    for one in item.get("status", {}).get("conditions", ()):
        if one.get("type") == kind:
            return str(one.get("status", "")).title()
    return ""
