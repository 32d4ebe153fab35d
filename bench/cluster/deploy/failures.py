"""Why a deployment does not come up: from pods, events and conditions to one paragraph. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cluster.pods import Event
from bench.core.paths import MANIFESTS

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_TOO_SLOW = ("ProgressDeadlineExceeded", "Initial scale was never achieved", "exceeded its progress deadline")


@dataclass(frozen=True, slots=True)
class Failure:
    """A cause that waiting does not cure. `patience_s`: how long it must hold, since it may pass."""

    sentence: str
    patience_s: float = 0.0
    pod: str = ""  # whose log belongs to it
    container: str = ""
    restarted: bool = False  # the log is that of the run before


def diagnose(
    pods: Sequence[Mapping[str, Any]], events: Sequence[Event], conditions: Sequence[Mapping[str, Any]]
) -> Failure | None:
    """The first cause found, the nearest one first. None: nothing is wrong as far as can be seen.

    `pods` are those of this revision as the API server has them; events and conditions new ones only.
    """
    for pod in pods:
        found = next(_in_pod(pod), None)
        if found:
            return found
    return next(_in_events(events), None) or next(_in_conditions(conditions), None)


def refused(message: str) -> str | None:
    """A paragraph for a manifest that the API server refused, where the cause is known."""
    if "exceeded quota" in message:
        return _quota(message)
    if "no matches for kind" in message or "could not find the requested resource" in message:
        return (
            "The cluster does not know this platform: its definitions are not installed. Choose another "
            "--platform (mlservice, kserve or deployment)."
        )
    return None


def _in_pod(pod: Mapping[str, Any]) -> Iterator[Failure]:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _in_container(name, one)
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "Unschedulable" and condition.get("status") == "False":
            yield _unschedulable(name, str(condition.get("message", "")))
    if status.get("reason") == "Evicted":
        yield Failure(f"Pod {name} was evicted: {_text(status)}. Ask for less memory or a bigger node.")


def _in_container(pod: str, status: Mapping[str, Any]) -> Iterator[Failure]:
    name = str(status.get("name", ""))
    waiting = status.get("state", {}).get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _PULL:
        yield Failure(_pull(pod, str(status.get("image", "")), f"{reason}: {_text(waiting)}"))
    elif reason in _CONFIG:
        yield Failure(
            f"Container {name} of pod {pod} could not be made ({reason}: {_text(waiting)}): correct what "
            "its manifest names, then deploy again."
        )
    else:
        now, before = status.get("state", {}).get("terminated"), status.get("lastState", {}).get("terminated")
        ended = now or before
        if ended and (ended.get("exitCode") or status.get("restartCount")):
            yield _crash(pod, name, ended, restarted=not now)


def _crash(pod: str, container: str, ended: Mapping[str, Any], *, restarted: bool) -> Failure:
    if ended.get("reason") == "OOMKilled":
        why = (
            f"Container {container} of pod {pod} was killed for using more memory than its limit: give more "
            "with --set memory=32Gi, or serve fewer instances (/dev/shm counts too)."
        )
    else:
        how = f"signal {ended['signal']}" if ended.get("signal") else f"exit code {ended.get('exitCode')}"
        why = (
            f"Container {container} of pod {pod} crashed ({how}): its last lines say why; correct that, then "
            "deploy again."
        )
    return Failure(why, pod=pod, container=container, restarted=restarted)


def _unschedulable(pod: str, message: str) -> Failure:
    said = message.rstrip(".")
    if "persistentvolumeclaim" in message and "not found" in message:
        return Failure(_claim(said))
    if "unbound immediate PersistentVolumeClaims" in message:
        return Failure(
            f"Pod {pod} waits for a volume ({said}): look at the claim's storage class with `kubectl "
            "describe pvc`.",
            patience_s=60,
        )
    if "nvidia.com/gpu" in message:
        return Failure(
            f"No node has the GPU that pod {pod} asks for ({said}): free one (an earlier revision may hold "
            "it, `bench undeploy` first), ask for fewer with --gpu or --replicas, or name a pool with "
            "--set node-selector.LABEL=VALUE.",
            patience_s=4,
        )
    return Failure(
        f"No node can take pod {pod} ({said}): ask for less with --set cpu=2 or --set memory=8Gi, or use "
        "fewer --replicas.",
        patience_s=4,
    )


def _in_events(events: Sequence[Event]) -> Iterator[Failure]:
    for event in events:
        text = event.message
        if event.type != "Warning":
            continue
        if "exceeded quota" in text:
            yield Failure(_quota(text))
        elif "persistentvolumeclaim" in text and "not found" in text:
            yield Failure(_claim(text))
        elif event.reason in ("Failed", "FailedPull") and "pull image" in text:
            yield Failure(_pull(event.name, "", text))
        elif event.reason == "FailedMount" and "not found" in text:
            yield Failure(
                f"Pod {event.name} cannot mount a volume ({text.rstrip('.')}): make what it names, then "
                "deploy again."
            )


def _in_conditions(conditions: Sequence[Mapping[str, Any]]) -> Iterator[Failure]:
    for one in conditions:
        text = f"{one.get('reason', '')}: {one.get('message', '')}"
        if str(one.get("status", "")).title() == "True":
            continue
        if "exceeded quota" in text:
            yield Failure(_quota(str(one.get("message", ""))))
        elif any(phrase in text for phrase in _TOO_SLOW):
            yield Failure(
                f"The pods were not ready before the platform's progress deadline ({text.strip(': ')}): a "
                "first pull of the image may take longer; give --set progress-deadline=3600s, or look at "
                "the pods' events."
            )


def _pull(pod: str, image: str, said: str) -> str:
    return (
        f"The image {image or 'of the pod'} cannot be pulled by pod {pod} ({said.strip(': ').rstrip('.')}): "
        "check --image and its tag, and for a private registry --set pull-secret=NAME."
    )


def _claim(said: str) -> str:
    return (
        f"A volume claim is missing ({said.rstrip('.')}): make and fill it with `kubectl apply -k "
        f"{MANIFESTS}/storage`, or name the one you have with --set pvc=NAME."
    )


def _quota(said: str) -> str:
    return (
        f"The namespace's quota does not allow it ({said.rstrip('.')}): ask for less with --gpu, --replicas, "
        "--set cpu=... or --set memory=..., or remove what holds it (`kubectl describe quota`)."
    )


def _text(part: Mapping[str, Any]) -> str:
    return " ".join(str(part.get("message", "")).split())
