"""A plain Deployment behind a Service: no autoscaling, no gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.cluster.platforms import base
from bench.cluster.platforms import pod_template as pod
from bench.cluster.platforms.base import DeploymentSpec


class Deployment(base.Platform):
    name = "deployment"
    kinds: Mapping[str, tuple[str, str]] = {"Deployment": ("apps/v1", "deployments")}

    def objects(self, spec: DeploymentSpec, revision: Mapping[str, str]) -> list[dict[str, Any]]:
        settings = spec.settings
        body = {
            "replicas": spec.replicas,
            "progressDeadlineSeconds": int(settings.progress_deadline.rstrip("s")),
            "selector": {"matchLabels": {base.DEPLOYMENT: spec.name}},
            "strategy": base.in_place(),
            "template": {
                "metadata": {"labels": {**spec.labels, **revision}},
                "spec": {
                    **pod.pod("tritonserver", spec.image, settings, spec.gpu),
                    "terminationGracePeriodSeconds": 40,  # Triton waits 30 s for requests under way
                },
            },
        }
        return [
            base.manifest(spec, "apps/v1", "Deployment", body),
            base.service(spec),
            base.direct_service(spec),
        ]
