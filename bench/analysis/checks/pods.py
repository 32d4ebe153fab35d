"""Of a service with several pods: how its load was shared."""

from __future__ import annotations

from collections.abc import Iterator

from bench.analysis.summary import TrialSummary
from bench.core import units
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

# A pod that got less than half of an even share was passed over.
UNEVEN = 0.5


def shares(trial: Trial, summary: TrialSummary) -> Iterator[Finding]:
    """Yield one for every service of several pods, since a sum hides an idle pod; a warning if one is."""
    pods = trial.counters.pods if trial.counters else {}
    items = sum(pod.inference_count for pod in pods.values())
    if len(pods) < 2 or items <= 0 or not summary.requests:
        return
    shares_of_pods = ", ".join(
        f"{name} {units.percent(pod.inference_count / items)}" for name, pod in pods.items()
    )
    least = min(pod.inference_count for pod in pods.values()) * len(pods) / items
    if least >= UNEVEN:
        yield Finding(
            "pods",
            Severity.NOTE,
            f"Images by pod: {shares_of_pods}.",
            "The load was shared.",
            "Server times are over all pods; the trial's counters hold each pod's own.",
        )
    else:
        yield Finding(
            "pods-uneven",
            Severity.WARNING,
            f"Images by pod: {shares_of_pods}.",
            "A balancer that shares connections, not requests, and there are few connections; or a slow pod.",
            "Use more --concurrency than pods, compare with --via pod, or look at the pods' nodes.",
        )


CHECKS = (shares,)
