"""What the operator does about pods that are lost, slow, or cannot start, and about time in a queue."""

from __future__ import annotations

from typing import Any

import pytest

from unified_reward.pipeline.resource import Phase, Stopped

from .world import IMPORT, START, TRAIN, World, document, pod_of, stamp, training


@pytest.mark.parametrize("status_is_lost", [False, True])
def test_a_gang_that_lost_a_pod_starts_anew_when_all_have_gone(status_is_lost: bool) -> None:
    world = training()
    first, second = world.pods[TRAIN]
    world.pods[TRAIN] = [first, pod_of(world.jobs[TRAIN], 1, world.now + 30, "Pending")]
    world.now += 31
    if status_is_lost:
        world.apply(world.outcome(), status_is_lost=True)
    world.settle()
    assert TRAIN not in world.jobs
    assert world.record("reward-train").stopped is Stopped.LOST
    assert world.made[-1] == TRAIN
    world.bury(TRAIN)
    world.settle()
    world.now += 10
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"
    assert world.record("reward-train").failures == {"Preempted": 1}
    assert second["metadata"]["name"] in world.record("reward-train").last_failure.message


def test_an_elastic_gang_goes_on_without_a_pod() -> None:
    world = training(rewardTrain={"processes": 2, "nodes": 2, "minNodes": 1})
    world.pods[TRAIN] = world.pods[TRAIN][:1]
    world.now += 60
    world.settle()
    assert TRAIN in world.jobs
    assert world.record("reward-train").reason == "PodsMissing"


def test_a_gang_whose_pods_come_slowly_is_whole() -> None:
    world = World()
    world.settle()
    world.succeed(IMPORT)
    world.settle()
    world.pods[TRAIN] = [pod_of(world.jobs[TRAIN], 0, world.now)]
    world.now += 40
    world.settle()
    assert world.record("reward-train").reason == "PodsMissing"
    world.pods[TRAIN].append(pod_of(world.jobs[TRAIN], 1, world.now))
    world.settle()
    assert (world.record("reward-train").reason, world.record("reward-train").started) == ("", stamp(world.now))


def waiting(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": reason, "message": "m"}}}]}


UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]
}


def test_what_cannot_start_is_named_then_ends_the_run_and_leaves_nothing() -> None:
    world = World(document(cluster={"startTimeoutSeconds": 30}))
    world.settle()
    world.start(IMPORT, "Pending", **waiting("ErrImagePull"))
    assert world.settle().reason == "ErrImagePull"
    writes = world.writes
    world.start(IMPORT, "Pending", **waiting("ImagePullBackOff"))
    world.settle()
    assert world.writes == writes
    assert world.outcome().next_look == START + 30
    world.now += 30
    world.settle()
    assert IMPORT not in world.jobs
    world.bury(IMPORT)
    status = world.settle()
    assert (status.phase, status.reason) == (Phase.FAILED, "ErrImagePull")
    assert status.stages[0].last_failure is not None
    assert status.stages[0].last_failure.reason == "ErrImagePull"
    assert "trainer:1" in status.message


@pytest.mark.parametrize("pods", ["none", "pending"])
def test_a_lost_pod_of_a_job_that_has_run_is_waited_for(pods: str) -> None:
    world = World(document(cluster={"startTimeoutSeconds": 30}))
    world.settle()
    world.start(IMPORT)
    world.say(IMPORT, "Running")
    world.settle()
    world.now += 7200
    world.pods[IMPORT] = []
    if pods == "pending":
        world.start(IMPORT, "Pending", **UNSCHEDULABLE)
    assert world.settle().reason == ("PodsMissing" if pods == "none" else "Unschedulable")
    world.now += 7200
    world.settle()
    assert IMPORT in world.jobs
    assert world.record("import").failures == {}
    world.start(IMPORT)
    assert world.settle().reason == ""


ELASTIC = {"processes": 4, "nodes": 4, "minNodes": 2, "globalBatch": 48}


@pytest.mark.parametrize(("ran", "stays"), [(2, True), (1, False)])
def test_an_elastic_gang_that_had_its_fewest_nodes_is_not_held_to_the_time_to_start(ran: int, stays: bool) -> None:
    world = World(document(cluster={"startTimeoutSeconds": 30}, rewardTrain=ELASTIC))
    world.settle()
    world.succeed(IMPORT)
    world.settle()
    world.start(TRAIN)
    world.say(TRAIN, "Running")
    whole, world.pods[TRAIN] = world.pods[TRAIN], world.pods[TRAIN][:ran]
    world.settle()
    world.now += 20
    world.settle()
    world.pods[TRAIN] = whole[:1]
    world.now += 20
    world.settle()
    assert (TRAIN in world.jobs) is stays


def test_a_gang_of_which_a_pod_never_came_is_held_to_the_time_to_start() -> None:
    world = World(document(cluster={"startTimeoutSeconds": 30}))
    world.settle()
    world.succeed(IMPORT)
    world.settle()
    world.start(TRAIN)
    world.say(TRAIN, "Running")
    world.pods[TRAIN] = world.pods[TRAIN][:1]
    world.settle()
    world.now += 40
    world.settle()
    assert TRAIN not in world.jobs


def test_a_job_deleted_while_it_could_not_start_is_no_mistake_of_the_user() -> None:
    world = World()
    world.settle()
    world.start(IMPORT, "Pending", **waiting("ErrImagePull"))
    world.settle()
    world.delete_job(IMPORT)
    world.bury(IMPORT)
    world.settle()
    assert world.record("import").failures == {"Preempted": 1}


def test_a_short_wait_is_not_told_and_a_longer_one_is() -> None:
    world = World()
    world.settle()
    world.start(IMPORT, "Pending", **UNSCHEDULABLE)
    world.now += 1
    assert world.outcome().next_look == START + 5
    assert world.settle().reason == ""
    world.now += 4
    assert world.settle().reason == "Unschedulable"
    world.start(IMPORT)
    assert world.settle().reason == ""


def test_a_training_operator_that_has_much_to_do_is_given_time() -> None:
    world = World()
    world.settle()
    world.now += 299
    assert world.settle().reason == ""
    world.now += 1
    assert world.settle().reason == "NotTakenUp"


def test_time_in_a_queue_is_not_time_to_start() -> None:
    world = World(document(cluster={"queue": "q", "startTimeoutSeconds": 30}))
    world.settle()
    world.now += 7200
    assert world.settle().reason == "Queued"
    assert IMPORT in world.jobs
    world.suspend_job(IMPORT, False)
    world.start(IMPORT, "Pending", **UNSCHEDULABLE)
    world.now += 10
    assert world.settle().reason == "Unschedulable"
    world.now += 25
    world.settle()
    assert IMPORT not in world.jobs
