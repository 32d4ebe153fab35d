"""What `bench deploy --set NAME=VALUE` may set: names, defaults, meanings, and what is a wrong value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kKMGTP]i?)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NODE = "node-selector."


@dataclass(frozen=True, slots=True)
class Settings:
    """Field `weights_path` is `--set weights-path=...`; each has its reason in docs/cluster.md."""

    model: str = "python_vit"
    cpu: str = "4"  # decoding and resizing are the CPU's work: one core starves a GPU
    memory: str = "16Gi"
    shm: str = "1Gi"  # the Python backend moves tensors through /dev/shm; the default is 64 MiB
    pvc: str = "triton-python"
    repository_path: str = "python_model_repository"  # in the PVC
    weights_path: str = "vit-base-patch16-224-in21k"  # in the PVC
    weights_mount: str = "/data/vit-base-patch16-224-in21k"  # in the pod
    progress_deadline: str = "1800s"  # pulling the image alone takes minutes
    runtime: str = ""  # of the MLServiceRuntime; "": the deployment's
    service_account: str = ""
    pull_secret: str = ""
    node_selector: tuple[tuple[str, str], ...] = ()


NAMES = tuple(field.name.replace("_", "-") for field in fields(Settings) if field.name != "node_selector")


def settings_of(sets: Sequence[tuple[str, str]]) -> Settings:
    """Of names that `wrong_settings` let pass."""
    plain = {name.replace("-", "_"): value for name, value in sets if not name.startswith(_NODE)}
    nodes = tuple((name.removeprefix(_NODE), value) for name, value in sets if name.startswith(_NODE))
    return replace(Settings(), **plain, node_selector=nodes)


def wrong_settings(sets: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Every mistake, one sentence each."""
    for name, value in sets:
        if name.startswith(_NODE):
            continue
        if name not in NAMES:
            yield f"--set {name}: there are {', '.join(NAMES)}, and node-selector.LABEL"
        elif name in ("cpu", "memory", "shm") and not _QUANTITY.fullmatch(value):
            yield f"--set {name}={value}: give a Kubernetes quantity, such as 4, 500m or 16Gi"
        elif name == "progress-deadline" and not re.fullmatch(r"[1-9]\d*s", value):
            yield f"--set {name}={value}: give seconds, such as 1800s"
        elif name in ("pvc", "runtime", "service-account", "pull-secret") and not is_name(value):
            yield f"--set {name}={value}: give the name of an object: a-z, 0-9 and -"


def is_name(text: str) -> bool:
    """Of a Kubernetes object."""
    return bool(_NAME.fullmatch(text)) and len(text) <= 253
