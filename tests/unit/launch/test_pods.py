"""What a pod says of its end, and whose end the others followed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torchx.specs import AppState

from unified_reward.launch.causes import Cause
from unified_reward.launch.job_status import replica
from unified_reward.launch.pods import Waiting, failure, first_failure, waiting

Object = dict[str, Any]


def pod(index: int, state: Object | None = None, phase: str = "Failed", **status: Any) -> Object:
    statuses = [{"name": "pytorch", "state": state}] if state else []
    return {
        "metadata": {"name": f"j-worker-{index}", "labels": {"training.kubeflow.org/replica-index": str(index)}},
        "spec": {"containers": [{"name": "pytorch", "resources": {"limits": {"memory": "1Gi"}}}]},
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }


def ended(code: int, at: str = "10:00:00", **more: Any) -> Object:
    return {"terminated": {"exitCode": code, "finishedAt": f"2026-11-24T{at}Z", **more}}


DISRUPTION = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for team-b"}


@pytest.mark.parametrize(
    ("failed", "cause", "reason", "said"),
    [
        (pod(0, ended(137, reason="OOMKilled"), conditions=[DISRUPTION]), Cause.MEMORY, "OOMKilled", ""),
        (pod(0, ended(137), reason="Evicted", message="low on memory"), Cause.PREEMPTED, "Evicted", "low on memory"),
        (pod(0, ended(143), conditions=[DISRUPTION]), Cause.PREEMPTED, "Disrupted", "PreemptionByScheduler: for team-b"),
        (pod(0, ended(143), reason="DeadlineExceeded", message="too long"), Cause.USER, "DeadlineExceeded", "too long"),
        (pod(0, reason="OutOfcpu", message="Node didn't have enough"), Cause.PREEMPTED, "OutOfcpu", "Node didn't have enough"),
        (pod(0), Cause.PREEMPTED, "", ""),
        (pod(0, ended(137, reason="ContainerStatusUnknown", message="The container could not be located")),
         Cause.PREEMPTED, "ContainerStatusUnknown", "its node lost track of it, as when it restarts"),
        (pod(0, ended(255, reason="Unknown", message="step 7")),
         Cause.PREEMPTED, "ContainerStatusUnknown", "its node lost track of it, as when it restarts"),
        (pod(0, ended(255, reason="Error", message="step 7")), Cause.CRASHED, "", "step 7"),
        (pod(0, ended(255, reason="Unknown", message=json.dumps({"code": 2, "error": "x is 0"}))), Cause.USER, "", "x is 0"),
        (pod(0, ended(75, message=json.dumps({"code": 75, "error": "store is s3://b: no answer came"}))),
         Cause.PREEMPTED, "StoreUnavailable", "store is s3://b: no answer came"),
        (pod(0, ended(1, message="a\nKeyError: 'x'\n")), Cause.CRASHED, "", "KeyError: 'x'"),
    ],
)  # fmt: skip
def test_why_a_pod_failed(failed: Object, cause: Cause, reason: str, said: str) -> None:
    found = failure(failed)
    assert (found.cause, found.reason, found.said) == (cause, reason, said)


def test_the_entrys_own_word_counts_more_than_how_its_process_was_ended_after_it() -> None:
    """Stopped, it had said so, and was then killed because its grace was over."""
    left = json.dumps({"code": 143, "ended": 5.5})
    found = failure(pod(0, ended(137, message=left)))
    assert (found.cause, found.code, found.ended) == (Cause.PREEMPTED, 143, 5.5)


@pytest.mark.parametrize(
    ("first", "others"),
    [
        (pod(1, ended(143, "10:00:09"), conditions=[DISRUPTION]), [pod(0, ended(1, "10:00:01"))]),
        (pod(1, reason="OutOfcpu"), [pod(0, ended(1, "10:00:01"))]),
        (pod(1, ended(2, "10:00:09")), [pod(0, ended(143, "10:00:01"))]),
        (pod(1, ended(143, "10:00:01")), [pod(0, ended(1, "10:00:09"))]),
        (pod(0, ended(1)), [pod(1, ended(1))]),
    ],
)
def test_the_one_that_the_others_followed(first: Object, others: list[Object]) -> None:
    for order in ([first, *others], [*others, first]):
        assert first_failure(map(failure, order)).pod == first["metadata"]["name"]


def test_what_a_pod_waits_for() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3\nnodes"}
    assert waiting(pod(0, phase="Pending", conditions=[unscheduled])) == Waiting("Unschedulable", "0/3 nodes")
    assert waiting(pod(0, {"waiting": {"reason": "ContainerCreating"}}, "Pending")) is None
    assert waiting(pod(0, {"running": {}}, "Running")) is None
    for reason, mendable in (("ErrImagePull", True), ("RegistryUnavailable", False)):
        found = waiting(pod(0, {"waiting": {"reason": reason}}, "Pending"))
        assert found is not None
        assert (found.reason, found.mendable) == (reason, mendable)


def test_a_stage_that_is_done_beside_another_container_has_not_failed() -> None:
    assert replica(pod(0, ended(0), phase="Running")).state is AppState.SUCCEEDED
    assert replica(pod(0, ended(0), phase="Failed", reason="Evicted")).state is AppState.FAILED
