"""Waiting until a change serves: its own pods, not an older READY; or failing with the cause.

An MLService has no observedGeneration, so its Ready condition may still be about what ran before. Each
change therefore gives its pods a label of their own. It serves when these pods are all ready, none of
another revision is left (it would still take requests, and hold a GPU), and the service says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.cluster.api import Cluster
from bench.cluster.deploy.failures import Failure, diagnose
from bench.cluster.platforms.base import Item, Platform, is_about, selector
from bench.cluster.pods import Event, Pod, event_of, pod_of
from bench.core.errors import ClusterError, DeployFailed

_POLL_S = 0.5  # Polled, since a watch would need one more verb than list.
_LOG_LINES = 15
Serving = tuple[Item, tuple[Pod, ...]]  # a service that serves, and the pods of the change


@dataclass(frozen=True, slots=True)
class Wanted:
    """The service as it shall be. `labels` tell the pods of this change from those of others."""

    platform: Platform
    name: str
    replicas: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Events and conditions that were there before a change: they are not about it."""

    events: frozenset[tuple[str, int]]
    conditions: tuple[Item, ...]

    @classmethod
    def of(cls, cluster: Cluster, platform: Platform, name: str) -> Baseline:
        item = cluster.read(platform.kind, name)
        return cls(
            frozenset((event.uid, event.count) for event in _events(cluster)), tuple(_conditions(item))
        )


@dataclass(frozen=True, slots=True)
class Change:
    """Something applied, and what was there before it. `is_queued`: its pods may wait for a node."""

    wanted: Wanted
    baseline: Baseline
    is_queued: bool = False


def wait_until_serving(
    cluster: Cluster, changes: Sequence[Change], say: Callable[[str], None], timeout_s: float
) -> list[Serving]:
    """Watch all changes at once; returns each service as it is when it serves, in the order of `changes`.

    Raises DeployFailed with the cause, once it has held for as long as it may pass by itself.
    """
    watches, began = [_Watch(cluster, change, say) for change in changes], time.monotonic()
    serving: dict[int, Serving] = {}
    while True:
        overdue_s = timeout_s if time.monotonic() - began > timeout_s else 0
        for i, watch in enumerate(watches):
            if i not in serving and (now := watch.look(overdue_s)) is not None:
                serving[i] = now
        if len(serving) == len(changes):
            return [serving[i] for i in range(len(changes))]
        time.sleep(_POLL_S)  # polled: a watch would need one more verb than list


def missing(wanted: Wanted, item: Item | None, pods: Sequence[Pod]) -> str:
    """What is still waited for, as a phrase; "" when the change serves.

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
    return wanted.platform.unsettled(item, wanted.replicas)


def split(wanted: Wanted, pods: Sequence[Pod]) -> tuple[tuple[Pod, ...], tuple[Pod, ...]]:
    """Pods of this change, and the others; without those that have ended by themselves."""
    alive = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    mine = tuple(pod for pod in alive if wanted.labels.items() <= pod.labels.items())
    return mine, tuple(pod for pod in alive if pod not in mine)


@dataclass(slots=True)
class _Watch:
    """One change as it goes: what has been said already, and since when a failure holds."""

    cluster: Cluster
    change: Change
    say: Callable[[str], None]
    said: dict[str, str] = field(default_factory=dict)
    failing: dict[str, float] = field(default_factory=dict)

    def look(self, overdue_s: float) -> Serving | None:
        """None as long as it does not serve. `overdue_s`: it has had that long; 0: there is time."""
        wanted, baseline = self.change.wanted, self.change.baseline
        item, raw = _service_and_pods(self.cluster, wanted)
        pods = tuple(sorted((pod_of(one) for one in raw), key=lambda pod: pod.name))
        events = list(_news(self.cluster, self.change, pods))
        self._tell_all(item, pods, events)
        lacking = missing(wanted, item, pods)
        if not lacking and item is not None:
            return item, split(wanted, pods)[0]
        mine = {pod.name for pod in split(wanted, pods)[0]}
        own = [one for one in raw if one["metadata"]["name"] in mine]
        conditions = [one for one in _conditions(item) if one not in baseline.conditions]
        failure = diagnose(own, events, conditions)
        self._raise_if_it_holds(failure)
        if overdue_s:
            raise DeployFailed(_too_long(wanted, overdue_s, lacking, failure, events))
        return None

    def _tell_all(self, item: Item | None, pods: Sequence[Pod], events: Sequence[Event]) -> None:
        for one in _conditions(item):
            text = " ".join(str(one[key]) for key in ("status", "reason", "message") if one.get(key))
            self._tell(f"condition {one.get('type')} of {self.change.wanted.name}", text)
        for pod in pods:
            self._tell(f"pod {pod.name}", "ready" if pod.ready else pod.phase or "Pending")
        for event in events:
            self._tell(f"event {event.kind} {event.name}", f"{event.reason} {event.message}")

    def _tell(self, what: str, now: str) -> None:
        if self.said.get(what) != now:
            self.said[what] = now
            self.say(f"{what}: {now}")

    def _raise_if_it_holds(self, failure: Failure | None) -> None:
        """In a queue, a pod that nobody schedules yet is what a queue is for."""
        if failure is None or (self.change.is_queued and failure.patience_s):
            self.failing.clear()
            return
        # A scheduler words the same cause anew each time it counts its nodes.
        since = self.failing.setdefault(failure.sentence[:40], time.monotonic())
        if time.monotonic() - since >= failure.patience_s:
            raise DeployFailed(failure.sentence + last_lines(self.cluster, failure))


def last_lines(cluster: Cluster, failure: Failure) -> str:
    """The end of the log of the container that failed; "" where there is none."""
    if not failure.container:
        return ""
    try:
        text = cluster.logs(failure.pod, failure.container, _LOG_LINES, previous=failure.restarted)
    except ClusterError as error:
        return f"\nIts log cannot be read ({str(error).rstrip('.')}): `kubectl logs {failure.pod}`."
    lines = text.rstrip().splitlines()[-_LOG_LINES:]
    return "\nIts last lines:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def _service_and_pods(cluster: Cluster, wanted: Wanted) -> tuple[Item | None, tuple[Item, ...]]:
    """The service, and its pods of any revision but those being ended."""
    item = cluster.read(wanted.platform.kind, wanted.name)
    by_platform = wanted.platform.pod_labels(item) if item else {}
    pods: dict[str, Item] = {}
    for labels in (by_platform, wanted.labels):
        if labels:
            pods |= {one["metadata"]["name"]: one for one in cluster.items("Pod", selector(labels))}
    return item, tuple(one for one in pods.values() if "deletionTimestamp" not in one["metadata"])


def _news(cluster: Cluster, change: Change, pods: Sequence[Pod]) -> Iterator[Event]:
    """Events of this change: not of before, not about another service or an earlier revision's pods."""
    wanted = change.wanted
    earlier = {pod.name for pod in split(wanted, pods)[1]}
    for event in _events(cluster):
        about = is_about(wanted.platform, wanted.name, event.name)
        if about and event.name not in earlier and (event.uid, event.count) not in change.baseline.events:
            yield event


def _events(cluster: Cluster) -> tuple[Event, ...]:
    """None where we may not read them: they only explain."""
    try:
        return tuple(event_of(item) for item in cluster.items("Event"))
    except ClusterError as error:
        if error.status == 403:
            return ()
        raise


def _conditions(item: Item | None) -> Sequence[Item]:
    return tuple((item or {}).get("status", {}).get("conditions", ()))


def _too_long(
    wanted: Wanted, timeout_s: float, lacking: str, failure: Failure | None, events: Sequence[Event]
) -> str:
    """The likely cause where there is one, else what was still waited for and the last warning."""
    late = f"{wanted.name} was not ready within {timeout_s:g} s (waiting for {lacking})."
    if failure is not None:
        return f"{late} {failure.sentence}"
    warnings = [event for event in events if event.type == "Warning"]
    last = f" Last warning: {warnings[-1].reason}: {warnings[-1].message.rstrip('.')}." if warnings else ""
    return f"{late}{last} Give it more time with --deploy-timeout, or see `kubectl get events`."
