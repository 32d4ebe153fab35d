"""What a real cluster writes into status and events when pods do not come up."""

from __future__ import annotations

from typing import Any

QUOTA = (
    'pods "x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=1, '
    "used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4"
)
_UNSCHEDULED = {
    "gpu": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    "pvc": '0/3 nodes are available: persistentvolumeclaim "triton-python" not found.',
}


def pod_status(failure: str) -> dict[str, Any]:
    """Of a pod that stays Pending; `failure`: image, gpu, pvc or crash."""
    if failure in _UNSCHEDULED:
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        return {"phase": "Pending", "conditions": [{**unscheduled, "message": _UNSCHEDULED[failure]}]}
    container = {"name": "user-container", "image": "example/triton:1", "imageID": "", "ready": False}
    if failure == "image":
        said = 'Back-off pulling image "example/triton:1"'
        state = {"waiting": {"reason": "ImagePullBackOff", "message": said}}
        return {"phase": "Pending", "containerStatuses": [{**container, "restartCount": 0, "state": state}]}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}
    last = {"terminated": {"exitCode": 1, "reason": "Error"}}
    crashed = {**container, "restartCount": 1, "state": state, "lastState": last}
    return {"phase": "Pending", "containerStatuses": [crashed]}


def service_status(failure: str) -> dict[str, Any]:
    """Of a service whose pods were never made (quota), or never came (deadline)."""
    reason, message = "PredictorNotReady", ""
    if failure == "deadline":
        reason, message = "RevisionFailed", "Initial scale was never achieved"
    return {"conditions": [{"type": "Ready", "status": "False", "reason": reason, "message": message}]}
