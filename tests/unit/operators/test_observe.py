"""What a job is doing, from the objects as the API server has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operators.alignmentrun.observe import failure_of, observe
from unified_reward.launch.causes import Cause
from unified_reward.launch.retries import UNREACHABLE_SECONDS

from .world import START, ended, pod_of, stamp

JOB: dict[str, Any] = {"metadata": {"name": "j", "labels": {}}, "spec": {"runPolicy": {"suspend": False}}}
ENDING = json.dumps({"code": 2, "error": "steps is -1: it must be positive", "ended": START + 1.5})


def job(*conditions: str, **spec: Any) -> dict[str, Any]:
    said = [{"type": each, "status": "True"} for each in conditions]
    return {**JOB, "spec": {**JOB["spec"], **spec}, "status": {"conditions": said, "startTime": stamp(START)}}


def failed(index: int, code: int, at: float = 0.0, status: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    pod = ended(pod_of(JOB, index, START), code, START + at, **more)
    pod["status"] |= status or {}
    return pod


DISRUPTED = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]}
NOT_TAKEN_IN = {"containerStatuses": [], "reason": "OutOfcpu", "message": "no room"}


@pytest.mark.parametrize(
    ("pods", "cause", "reason", "said"),
    [
        ([failed(0, 137, reason="OOMKilled")], Cause.MEMORY, "OOMKilled", "2048Mi"),
        ([failed(0, 1, 1), failed(1, 137, 2, reason="OOMKilled")], Cause.MEMORY, "OOMKilled", "worker-1"),
        ([failed(0, 137)], Cause.MEMORY, "OutOfMemory", "its memory limit is 2048Mi"),
        ([failed(0, 143, status={"reason": "Evicted", "message": "low on memory"})], Cause.PREEMPTED, "Evicted", "low on"),
        ([failed(0, 1, 2), failed(1, 143, 5, DISRUPTED)], Cause.PREEMPTED, "Disrupted", "worker-1: EvictionByEvictionAPI"),
        ([failed(0, 137, status=DISRUPTED)], Cause.PREEMPTED, "Disrupted", "worker-0"),
        ([failed(0, 2, message=ENDING)], Cause.USER, "UserError", "steps is -1: it must be positive"),
        ([failed(0, 143, 1), failed(1, 2, 2)], Cause.USER, "UserError", "exit code 2"),
        ([failed(0, 1, message="a\nKeyError: 'x'\n")], Cause.CRASHED, "Crashed", "KeyError: 'x'"),
        ([failed(0, 143, 9), failed(1, 1, 3)], Cause.CRASHED, "Crashed", "worker-1"),
        ([failed(0, 137, 70), failed(1, 1, 3)], Cause.CRASHED, "Crashed", "worker-1"),
        ([failed(0, 143, 3), failed(1, 1, 9)], Cause.PREEMPTED, "Preempted", "worker-0"),
        ([failed(0, 1, status=NOT_TAKEN_IN)], Cause.PREEMPTED, "OutOfcpu", "no room"),
        ([failed(0, 143, status={"reason": "DeadlineExceeded"})], Cause.USER, "DeadlineExceeded", "deadlineSeconds"),
        ([], Cause.PREEMPTED, "PodsGone", "nothing is left"),
    ],
)  # fmt: skip
def test_the_cause_is_what_came_first_or_from_outside(
    pods: list[dict[str, Any]], cause: Cause, reason: str, said: str
) -> None:
    for order in (pods, pods[::-1]):
        failure = failure_of(order)
        assert (failure.cause, failure.reason) == (cause, reason)
        assert said in failure.message


def test_the_end_a_process_tells_itself_is_finer_than_the_kubelets_clock() -> None:
    said = [
        json.dumps({"code": 1, "error": which, "ended": START + at}) for which, at in (("late", 0.9), ("early", 0.2))
    ]
    pods = [failed(index, 1, message=text) for index, text in enumerate(said)]
    assert "early" in failure_of(pods).message


@pytest.mark.parametrize(
    ("status", "reason", "mendable"),
    [
        ({"containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}]},
         "ImagePullBackOff", True),
        ({"containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "CreateContainerConfigError"}}}]},
         "CreateContainerConfigError", True),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]},
         "Unschedulable", False),
        ({"containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, "", False),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for(status: dict[str, Any], reason: str, mendable: bool) -> None:
    seen = observe(job("Created"), [pod_of(JOB, 0, START, "Pending", **status)], 1)
    assert (seen.waiting, seen.mendable) == (reason, mendable)
    if reason == "ImagePullBackOff":
        assert "no such (image trainer:1)" in seen.message


def test_what_a_job_without_its_pods_waits_for() -> None:
    assert observe(job(), [], 1).waiting == "NotTakenUp"
    assert observe(job("Created"), [pod_of(JOB, 0, START)], 2).waiting == "PodsMissing"
    assert observe(job(runPolicy={"suspend": True}), [], 1).waiting == "Suspended"
    assert observe(job("Suspended"), [], 1).waiting == "Suspended"
    queued = {
        **job(runPolicy={"suspend": True}),
        "metadata": {"name": "j", "labels": {"kueue.x-k8s.io/queue-name": "q"}},
    }
    assert observe(queued, [], 1).waiting == "Queued"


def test_a_job_whose_end_is_not_yet_that_of_its_first_pod_is_still_telling() -> None:
    running = pod_of(JOB, 0, START)
    assert observe(job("Succeeded"), [running], 1).telling
    done = observe(job("Succeeded"), [ended(running, 0, START, message='{"code": 0, "result": {"key": "k"}}')], 1)
    assert not done.telling
    assert done.ending is not None
    assert done.ending.result == {"key": "k"}
    assert not observe(job("Succeeded"), [], 1).telling


def test_a_gang_that_has_run_once_misses_each_of_its_pods() -> None:
    both = [pod_of(JOB, 0, START), pod_of(JOB, 1, START + 3)]
    whole = observe(job("Running"), both, 2).gathered
    assert whole == stamp(START + 3)
    assert observe(job("Running"), both, 2, gathered=whole).lost == ""
    assert "1 of 2" in observe(job("Running"), both[:1], 2, gathered=whole).lost
    assert (
        "made again" in observe(job("Running"), [both[0], pod_of(JOB, 1, START + 9, "Pending")], 2, gathered=whole).lost
    )
    going = {**both[1], "metadata": {**both[1]["metadata"], "deletionTimestamp": stamp(START + 60)}}
    assert "deleted or evicted" in observe(job("Running"), [both[0], going], 2, gathered=whole).lost


def test_before_a_gang_has_run_pods_may_come_late_and_again() -> None:
    late = [pod_of(JOB, 0, START), pod_of(JOB, 1, START + 90, "Pending")]
    seen = observe(job("Running"), late, 2)
    assert (seen.lost, seen.gathered) == ("", "")
    assert observe(job("Running"), [pod_of(JOB, 0, START)], 1).gathered == ""


def test_a_failed_pod_tells_more_than_the_loss_of_its_peer() -> None:
    pods = [failed(0, 1)]
    assert observe(job("Running"), pods, 2, gathered=stamp(START)).lost == ""


def test_a_pod_on_a_node_that_is_gone_is_not_waited_for_for_ever() -> None:
    pod = pod_of(JOB, 0, START)
    pod["metadata"]["deletionTimestamp"] = stamp(START + 30)
    seen = observe(None, [pod], 1, START + 40)
    assert (seen.live, seen.settles) == (1, START + 30 + UNREACHABLE_SECONDS)
    assert observe(None, [pod], 1, START + 30 + UNREACHABLE_SECONDS).live == 0
