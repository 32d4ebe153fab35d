"""Whether a change has landed: its own pods, not an older READY. Pure.

An MLService has no observedGeneration, so its Ready condition may still be about what ran before. Each
change therefore gives its pods a label of their own, and has landed when these pods are all ready, none
of another revision is left (it would still take requests, and hold a GPU), and the service says Ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cluster.api import Cluster
from bench.cluster.deploy.failures import Failure, diagnose
from bench.cluster.platforms import base as platforms
from bench.cluster.platforms.base import KIND, Platform
from bench.cluster.pods import Event, Pod, condition, event_of, pod_of
from bench.core.errors import ClusterError, DeployFailed


@dataclass(frozen=True, slots=True)
class Wanted:
    """`labels` tell the pods of this change from those of others."""

    platform: Platform
    name: str
    namespace: str
    replicas: int
    labels: Mapping[str, str]


def missing(wanted: Wanted, item: Mapping[str, Any] | None, pods: Sequence[Pod]) -> str:
    """What is still waited for, as a phrase; "" when the change has landed.

    `pods` are all of the service, of any revision, without those being ended.
    """
    if item is None:
        return "the service to exist"
    mine, others = split(wanted, pods)
    ready = sum(pod.ready for pod in mine)
    if ready < wanted.replicas:
        return f"pods of this revision: {ready} of {wanted.replicas} ready"
    if len(mine) > wanted.replicas:
        return f"{len(mine) - wanted.replicas} pods too many to end"
    if others:
        return f"{len(others)} pods of an earlier revision to end"
    return _unsettled(wanted, item)


def split(wanted: Wanted, pods: Sequence[Pod]) -> tuple[tuple[Pod, ...], tuple[Pod, ...]]:
    """Pods of this change, and the others; without those that have ended by themselves."""
    alive = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    mine = tuple(pod for pod in alive if wanted.labels.items() <= pod.labels.items())
    return mine, tuple(pod for pod in alive if pod not in mine)


def address(wanted: Wanted, item: Mapping[str, Any]) -> str:
    """With a scheme, whether the platform gives one or not; "" where it gives no address yet."""
    if wanted.platform is Platform.DEPLOYMENT:
        return f"http://{wanted.name}.{wanted.namespace}.svc:8000"
    status = item.get("status", {})
    given = str(status.get("address", {}).get("url") or status.get("url") or "").rstrip("/")
    return given if not given or "://" in given else f"http://{given}"


def _unsettled(wanted: Wanted, item: Mapping[str, Any]) -> str:
    status = item.get("status", {})
    seen, generation = status.get("observedGeneration"), item["metadata"].get("generation", 0)
    if wanted.platform is Platform.DEPLOYMENT:
        if (seen or 0) < generation:
            return "the change to be taken up"
        available = int(status.get("availableReplicas") or 0)
        return "" if available >= wanted.replicas else f"available: {available} of {wanted.replicas}"
    if seen is not None and seen < generation:
        return "the change to be taken up"
    if condition(item, "Ready") != "True":
        return f"Ready, which is {_ready(item)}"
    counted = _release(item).get("readyReplicas")
    if counted is not None and counted != wanted.replicas:
        return f"the service to count its replicas: {counted} of {wanted.replicas}"
    return "" if address(wanted, item) else "the service's address"


def _ready(item: Mapping[str, Any]) -> str:
    for one in item.get("status", {}).get("conditions", ()):
        if one.get("type") == "Ready":
            return " ".join(str(one[key]) for key in ("status", "reason") if one.get(key))
    return "not said"


def _release(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Status of the default release; {} where there is none, or the platform has no releases."""
    default = item["spec"].get("default")
    releases = item.get("status", {}).get("releases", ())
    return next((one for one in releases if one.get("name") == default), {})


_POLL_S = 0.5
_LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Before:
    """What a change found: events and conditions that are not about it."""

    events: frozenset[tuple[str, int]]
    conditions: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, cluster: Cluster, platform: Platform, name: str) -> Before:
        item = cluster.read(KIND[platform], name)
        return cls(
            frozenset((event.uid, event.count) for event in _events(cluster)), tuple(_conditions(item))
        )


@dataclass(slots=True)
class _Watch:
    """What has been told already, and since when a failure holds."""

    say: Callable[[str], None]
    told: dict[str, str] = field(default_factory=dict)
    failing: dict[str, float] = field(default_factory=dict)

    def tell(self, what: str, now: str) -> None:
        if self.told.get(what) != now:
            self.told[what] = now
            self.say(f"{what}: {now}")


Landed = tuple[Mapping[str, Any], tuple[Pod, ...]]


@dataclass(frozen=True, slots=True)
class Change:
    """Something applied, and what was there before it. `is_queued`: its pods may wait for a node."""

    wanted: Wanted
    before: Before
    is_queued: bool = False


def wait(
    cluster: Cluster, changes: Sequence[Change], say: Callable[[str], None], timeout_s: float
) -> list[Landed]:
    """Of each change the service as it is when it has landed, and its pods; all are watched at once.

    Raises DeployFailed with the cause, once it has held for as long as it may pass by itself.
    """
    watches, began = [_Watch(say) for _ in changes], time.monotonic()
    landed: dict[int, Landed] = {}
    while True:
        for i, (change, watch) in enumerate(zip(changes, watches, strict=True)):
            if i not in landed:
                seen = _seen(cluster, change, watch, timeout_s if time.monotonic() - began > timeout_s else 0)
                landed |= {} if seen is None else {i: seen}
        if len(landed) == len(changes):
            return [landed[i] for i in range(len(changes))]
        time.sleep(_POLL_S)  # polled: a watch would need one more verb than list


def _seen(cluster: Cluster, change: Change, watch: _Watch, overdue_s: float) -> Landed | None:
    """One look: None as long as it has not landed. `overdue_s`: it has had that long; 0: there is time."""
    wanted, before = change.wanted, change.before
    item, raw = _look(cluster, wanted)
    pods = tuple(sorted((pod_of(one) for one in raw), key=lambda pod: pod.name))
    events = list(_news(cluster, wanted, before, pods))
    _tell(watch, item, pods, events)
    lacking = missing(wanted, item, pods)
    if not lacking and item is not None:
        return item, split(wanted, pods)[0]
    mine = {pod.name for pod in split(wanted, pods)[0]}
    own = [one for one in raw if one["metadata"]["name"] in mine]
    news = [one for one in _conditions(item) if one not in before.conditions]
    failure = diagnose(own, events, news)
    _raise_if_holds(cluster, watch, failure, is_queued=change.is_queued)
    if overdue_s:
        raise DeployFailed(_too_long(wanted, overdue_s, lacking, failure, events))
    return None


def _look(cluster: Cluster, wanted: Wanted) -> tuple[Mapping[str, Any] | None, tuple[Mapping[str, Any], ...]]:
    """The service, and its pods of any revision but those being ended."""
    item = cluster.read(KIND[wanted.platform], wanted.name)
    by_platform = platforms.pods_of(wanted.platform, item) if item else {}
    found: dict[str, Mapping[str, Any]] = {}
    for labels in (by_platform, wanted.labels):
        if labels:
            pods = cluster.items("Pod", platforms.selector(labels))
            found |= {one["metadata"]["name"]: one for one in pods}
    alive = tuple(one for one in found.values() if "deletionTimestamp" not in one["metadata"])
    return item, alive


def _news(cluster: Cluster, wanted: Wanted, before: Before, pods: Sequence[Pod]) -> Iterator[Event]:
    """Events of this change: not of before, not about another service or an earlier revision's pods."""
    earlier = {pod.name for pod in split(wanted, pods)[1]}
    for event in _events(cluster):
        about = platforms.is_about(wanted.name, wanted.platform, event.name)
        if about and event.name not in earlier and (event.uid, event.count) not in before.events:
            yield event


def _events(cluster: Cluster) -> tuple[Event, ...]:
    """None where we may not read them: they only explain."""
    try:
        return tuple(event_of(item) for item in cluster.items("Event"))
    except ClusterError as error:
        if error.status == 403:
            return ()
        raise


def _conditions(item: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    return tuple((item or {}).get("status", {}).get("conditions", ()))


def _tell(
    watch: _Watch, item: Mapping[str, Any] | None, pods: Sequence[Pod], events: Sequence[Event]
) -> None:
    for one in _conditions(item):
        said = " ".join(str(one[key]) for key in ("status", "reason", "message") if one.get(key))
        watch.tell(f"condition {one.get('type')} of {item['metadata']['name'] if item else ''}", said)
    for pod in pods:
        watch.tell(f"pod {pod.name}", "ready" if pod.ready else pod.phase or "Pending")
    for event in events:
        watch.tell(f"event {event.kind} {event.name}", f"{event.reason} {event.message}")


def _raise_if_holds(cluster: Cluster, watch: _Watch, failure: Failure | None, *, is_queued: bool) -> None:
    """In a queue, a pod that nobody schedules yet is what a queue is for."""
    if failure is None or (is_queued and failure.patience_s):
        watch.failing.clear()
        return
    # The same cause is told in other words each time a scheduler counts its nodes.
    since = watch.failing.setdefault(failure.sentence[:40], time.monotonic())
    if time.monotonic() - since >= failure.patience_s:
        raise DeployFailed(failure.sentence + _last_lines(cluster, failure))


def _last_lines(cluster: Cluster, failure: Failure) -> str:
    """What the container said last; "" where it says nothing, or may not be read."""
    if not failure.container:
        return ""
    try:
        text = cluster.logs(failure.pod, failure.container, _LOG_LINES, previous=failure.restarted)
    except ClusterError as error:
        return f"\nIts log cannot be read ({str(error).rstrip('.')}): `kubectl logs {failure.pod}`."
    lines = text.rstrip().splitlines()[-_LOG_LINES:]
    return "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _too_long(
    wanted: Wanted, timeout_s: float, lacking: str, failure: Failure | None, events: Sequence[Event]
) -> str:
    """The likely cause where there is one, else what was still waited for and the last warning."""
    late = f"{wanted.name} was not ready within {timeout_s:g} s (waiting for {lacking})."
    if failure is not None:
        return f"{late} {failure.sentence}"
    warnings = [event for event in events if event.type == "Warning"]
    last = f" Last warning: {warnings[-1].reason}: {warnings[-1].message.rstrip('.')}." if warnings else ""
    return f"{late}{last} Give it more time with --timeout, or see `kubectl get events`."
