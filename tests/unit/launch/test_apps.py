"""What a job's state is made of: which events are read while a part of it does not run."""

from __future__ import annotations

from typing import Any

import pytest
from torchx.specs import AppState

from unified_reward.launch.apps import state_of
from unified_reward.launch.pytorchjob import INDEX_LABEL

Object = dict[str, Any]
JOB = {
    "metadata": {"name": "j", "namespace": "ns"},
    "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}},
    "status": {"conditions": [{"type": "Running", "status": "True"}]},
}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes: no GPU"}


def pod(index: int, state: str, *conditions: Object) -> Object:
    statuses = [] if conditions else [{"name": "pytorch", "state": {state: {}}}]
    return {
        "metadata": {"name": f"j-worker-{index}", "labels": {INDEX_LABEL: str(index)}},
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Running" if state == "running" else "Pending",
            "conditions": list(conditions),
            "containerStatuses": statuses,
        },
    }


def warning(of: str, reason: str, message: str, when: str = "10:00") -> Object:
    return {
        "type": "Warning",
        "involvedObject": {"name": of},
        "reason": reason,
        "message": message,
        "lastTimestamp": when,
    }


class Cluster:
    def __init__(self, pods: list[Object], events: list[Object]) -> None:
        self.pods, self.events = pods, events

    def objects(self, path: str, *, fields: str = "", **_: str) -> list[Object]:
        if path.endswith("/pods"):
            return self.pods
        asked = fields.partition("involvedObject.name=")[2].partition(",")[0]
        return [event for event in self.events if event["involvedObject"]["name"] == asked]


MOUNT = warning("j-worker-1", "FailedMount", 'configmap "x" not found')


@pytest.mark.parametrize(
    ("pods", "events", "state", "message"),
    [
        ([pod(0, "running"), pod(1, "waiting")], [MOUNT], AppState.RUNNING,
         '1 of 2 pods run; worker-1: FailedMount: configmap "x" not found'),
        ([pod(0, "waiting"), pod(1, "waiting")], [MOUNT], AppState.PENDING, 'worker-1: FailedMount: configmap "x" not found'),
        ([pod(0, "waiting", NO_NODE), pod(1, "waiting")], [MOUNT], AppState.PENDING,
         'worker-0: Unschedulable: 0/4 nodes: no GPU; worker-1: FailedMount: configmap "x" not found'),
        ([pod(0, "waiting", NO_NODE), pod(1, "waiting", NO_NODE)], [], AppState.PENDING,
         "worker-0: Unschedulable: 0/4 nodes: no GPU"),
        ([pod(0, "running")], [warning("j", "FailedCreatePod", "exceeded quota: gpus")], AppState.RUNNING,
         "1 of 2 pods run; pods are not created: exceeded quota: gpus"),
        ([pod(0, "running"), pod(1, "waiting")], [warning("j-worker-1", "FailedScheduling", "0/4 nodes")], AppState.RUNNING, ""),
        ([pod(0, "running"), pod(1, "running")], [MOUNT], AppState.RUNNING, ""),
    ],
)  # fmt: skip
def test_each_pod_that_does_not_run_is_asked_why(
    pods: list[Object], events: list[Object], state: AppState, message: str
) -> None:
    found = state_of(Cluster(pods, events), JOB)  # type: ignore[arg-type]
    assert (found.state, found.message) == (state, message)
