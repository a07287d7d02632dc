"""What a job is doing and why, from objects as a cluster answers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torchx.specs import AppState
from torchx.specs.api import NONE

from unified_reward.launch.causes import Cause
from unified_reward.launch.ending import Ending
from unified_reward.launch.job_status import CANCELLED_AT, CANCELLED_BY, job_state, role_of, structured_error

Object = dict[str, Any]


def job(*conditions: str, replicas: int = 2, annotations: dict[str, str] | None = None, queue: str = "") -> Object:
    labels = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    container = {
        "name": "pytorch", "image": "i:1", "command": ["python", "-m", "x"], "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"}},
    }  # fmt: skip
    template = {"spec": {"containers": [container]}}
    return {
        "metadata": {"name": "j", "namespace": "ns", "labels": labels, "annotations": annotations or {}},
        "spec": {
            "runPolicy": {"suspend": bool(queue)},
            "pytorchReplicaSpecs": {"Worker": {"replicas": replicas, "template": template}},
        },
        "status": {"conditions": [{"type": name, "status": "True", "message": f"{name}."} for name in conditions]},
    }


def pod(index: int, phase: str, state: Object | None = None, **status: Any) -> Object:
    statuses = [{"name": "pytorch", "state": state, "restartCount": 0}] if state is not None else []
    return {
        "metadata": {
            "name": f"j-worker-{index}", "creationTimestamp": "2026-11-24T10:00:00Z",
            "labels": {"training.kubeflow.org/replica-index": str(index)},
        },
        "spec": {
            "nodeName": f"node{index}",
            "containers": [{"name": "pytorch", "resources": {"limits": {"memory": "64Mi"}}}],
        },
        "status": {"phase": phase, "containerStatuses": statuses, **status},
    }  # fmt: skip


def ended(
    index: int, code: int, at: str = "10:05:00", reason: str = "Error", message: str = "", **status: Any
) -> Object:
    terminated = {"exitCode": code, "reason": reason, "finishedAt": f"2026-11-24T{at}Z", "message": message}
    return pod(index, "Succeeded" if code == 0 else "Failed", {"terminated": terminated}, **status)


def left(code: int, error: str, tail: str = "") -> str:
    return json.dumps(Ending(code=code, rank=1, error=error, tail=tail, ended=1.0).__dict__)


RUNNING = {"running": {}}


def waiting(reason: str, message: str) -> Object:
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("pods", "events", "expected"),
    [
        ([], [], "waits for the training-operator to create its pods"),
        (
            [],
            [{"type": "Warning", "involvedObject": {"name": "j"}, "reason": "FailedCreatePod", "message": "exceeded quota: gpus"}],
            "pods are not created: exceeded quota: gpus",
        ),
        (
            [pod(0, "Pending", conditions=[
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes: no GPU"}])],
            [], "worker-0: Unschedulable: 0/4 nodes: no GPU",
        ),
        ([pod(0, "Pending", waiting("ContainerCreating", ""))], [], ""),
        (
            [pod(0, "Pending", waiting("ImagePullBackOff", "Back-off pulling image"))], [],
            "worker-0: ImagePullBackOff (image pull): Back-off pulling image",
        ),
        (
            [pod(0, "Pending", waiting("CreateContainerConfigError", 'secret "s" not found'))], [],
            'worker-0: CreateContainerConfigError (missing Secret or ConfigMap): secret "s" not found',
        ),
        (
            [pod(0, "Pending", waiting("ContainerCreating", ""))],
            [{"type": "Warning", "involvedObject": {"name": "j-worker-0"}, "reason": "FailedMount", "message": "no volume"}],
            "worker-0: FailedMount: no volume",
        ),
    ],
)  # fmt: skip
def test_what_keeps_a_job_from_starting_is_named(pods: list[Object], events: list[Object], expected: str) -> None:
    found = job_state(job("Created"), pods, events)
    assert found.state is AppState.PENDING
    assert found.message == expected


def test_a_job_of_which_a_part_runs_says_what_the_rest_waits_for() -> None:
    pods = [pod(0, "Running", RUNNING), pod(1, "Pending", waiting("ErrImagePull", "gone"))]
    found = job_state(job("Created", "Running"), pods)
    assert found.state is AppState.RUNNING
    assert found.message == "1 of 2 pods run; worker-1: ErrImagePull (image pull): gone"
    assert [one.state for one in found.replicas] == [AppState.RUNNING, AppState.PENDING]


@pytest.mark.parametrize(
    ("failed", "cause", "message"),
    [
        (ended(1, 2, message=left(2, "spec.steps is 0: too few.")), Cause.USER, "spec.steps is 0: too few."),
        (ended(1, 1, message=left(1, "ValueError: bad")), Cause.CRASHED, "exit code 1: ValueError: bad"),
        (ended(1, 137, reason="OOMKilled"), Cause.MEMORY, "OOMKilled: it had 64Mi of memory; ask for more (memory)"),
        (ended(1, 137, message=left(137, "memory is exhausted (CUDA out of memory)")), Cause.MEMORY,
         "memory is exhausted (CUDA out of memory)"),
        (ended(1, 137, message=left(137, "", "step 7")), Cause.MEMORY,
         "killed (exit code 137), most likely for memory: it had 64Mi of memory; ask for more (memory)"),
        (ended(1, 137, message="step 7"), Cause.MEMORY,
         "killed (exit code 137), most likely for memory: it had 64Mi of memory; ask for more (memory)"),
        (ended(1, 137, message=left(0, "")), Cause.PREEMPTED, "it was killed when its work was done"),
        (ended(1, 143, message=left(143, "")), Cause.PREEMPTED, "stopped by SIGTERM (exit code 143)"),
        (ended(1, 137, reason="Error", conditions=[
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicted"}]),
         Cause.PREEMPTED, "Disrupted: EvictionByEvictionAPI: evicted"),
        (pod(1, "Failed", reason="Evicted", message="The node was low on resource: memory."), Cause.PREEMPTED,
         "Evicted: The node was low on resource: memory."),
    ],
)  # fmt: skip
def test_the_cause_of_a_failure_is_told_apart(failed: Object, cause: Cause, message: str) -> None:
    found = job_state(job("Created", "Failed"), [ended(0, 0), failed])
    assert found.state is AppState.FAILED
    assert found.first is not None
    assert found.first.failure is not None
    assert found.first.failure.cause is cause
    assert found.message == f"worker-1 failed: {message}"


def test_the_first_that_failed_is_blamed_and_not_the_peers_that_were_stopped() -> None:
    pods = [
        ended(0, 143, "10:04:00"),
        ended(1, 1, "10:04:30", message=left(1, "RuntimeError: boom", "line\nRuntimeError: boom")),
    ]
    found = job_state(job("Failed"), pods)
    assert found.first is not None
    assert found.first.index == 1
    told = json.loads(structured_error(found.first))["message"]
    assert told["errorCode"] == 1
    assert "rank 1 said last:\nline\nRuntimeError: boom" in told["message"]
    assert structured_error(job_state(job("Succeeded"), [ended(0, 0), ended(1, 0)]).replicas[0]) == NONE


def test_a_cancelled_job_says_by_whom_though_its_pods_are_gone() -> None:
    marks = {CANCELLED_AT: "2026-11-24T10:00:00Z", CANCELLED_BY: "ada"}
    found = job_state(job("Suspended", annotations=marks), [])
    assert found.state is AppState.CANCELLED
    assert found.message == "cancelled by ada at 2026-11-24T10:00:00Z"
    assert {one.state for one in found.replicas} == {AppState.CANCELLED}


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        (None, "queued in team: no Kueue Workload for it yet (does the queue exist, and does Kueue manage PyTorchJobs?)"),
        ({"status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "insufficient unused quota"}]}},
         "queued in team: insufficient unused quota"),
    ],
)  # fmt: skip
def test_a_queued_job_says_what_kueue_waits_for(workload: Object | None, message: str) -> None:
    found = job_state(job("Created", queue="team"), [], (), workload)
    assert (found.state, found.message) == (AppState.PENDING, message)


@pytest.mark.parametrize(
    ("cpu", "memory", "read"),
    [
        ("500m", "64M", (0, 61)), ("1500m", "1e9", (1, 953)), (2, 1 << 30, (2, 1024)), ("1", "512Ki", (1, 0)),
        ("3", "1Ti", (3, 1024 * 1024)), ("x", "1Xi", (0, 0)), (None, None, (0, 0)),
    ],
)  # fmt: skip
def test_amounts_are_read_in_all_of_kubernetes_units(cpu: Any, memory: Any, read: tuple[int, int]) -> None:
    resource = job()
    container = resource["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"cpu": cpu, "memory": memory}}
    role = role_of(resource)
    assert (role.resource.cpu, role.resource.memMB) == read


def test_a_job_is_read_back_as_the_role_it_was() -> None:
    role = role_of(job())
    assert (role.image, role.entrypoint, role.args, role.env) == ("i:1", "python", ["-m", "x"], {"A": "b"})
    assert (role.num_replicas, role.resource.cpu, role.resource.gpu, role.resource.memMB) == (2, 4, 2, 8192)
