"""What the operator does about a run, as stories on a small cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unified_reward.config import ClusterDefaults
from unified_reward.launch.causes import Cause
from unified_reward.launch.retries import UNREACHABLE_SECONDS
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import (
    LONGEST_BYTES,
    RETRY_AT,
    ConditionType,
    Phase,
    ResourceStatus,
    StageProgress,
    Stopped,
    Tracking,
)

from .world import POLICY, START, World, document, ended, pod_of, stamp

IMPORT, TRAIN, EVAL = "r-import-a1", "r-reward-train-a1", "r-reward-eval-a1"


def training(**spec: Any) -> World:
    """A world where the judge's training runs on both its nodes."""
    world = World(document(**spec))
    world.settle()
    world.succeed(IMPORT)
    world.settle()
    world.start(TRAIN)
    world.settle()
    return world


def conditions(world: World) -> dict[str, str]:
    return {each.type.value: each.status for each in world.status.conditions}


def test_the_first_look_makes_the_first_job_and_no_other() -> None:
    world = World()
    status = world.settle()
    assert world.made == [IMPORT]
    assert (status.phase, status.stage, status.progress) == (Phase.RUNNING, "import", "0/3")
    owner = world.jobs[IMPORT]["metadata"]["ownerReferences"][0]
    assert (owner["uid"], owner["controller"]) == ("uid-r", True)
    assert world.writes == 1


def test_a_run_goes_from_job_to_job_to_its_end() -> None:
    world = World()
    world.settle()
    for job in (IMPORT, TRAIN, EVAL):
        world.start(job)
        world.settle()
        world.now += 10
        world.succeed(job, metrics={"accuracy": 0.9, "text": "no number"})
        status = world.settle()
    assert world.made == [IMPORT, TRAIN, EVAL]
    assert (status.phase, status.progress, status.ended) == (Phase.SUCCEEDED, "3/3", stamp(world.now))
    assert world.record("reward-train").key == f"key-{TRAIN}"
    assert world.record("reward-train").metrics == {"accuracy": 0.9}
    assert world.events == ["StageSucceeded", "StageSucceeded", "RunSucceeded"]
    assert conditions(world) == {
        "Accepted": "True",
        "Suspended": "False",
        "Progressing": "False",
        "Succeeded": "True",
        "Failed": "False",
    }
    assert world.writes == 5  # four, and one that says when the gang was whole


def test_what_a_stage_has_cost_is_added_up_over_its_pods_and_attempts() -> None:
    def told(code: int, cpu_seconds: float, peak_rss_bytes: int) -> str:
        return json.dumps({"code": code, "cpu_seconds": cpu_seconds, "peak_rss_bytes": peak_rss_bytes})

    world = training()
    world.fail(TRAIN, 143, message=told(143, 5.0, 100))
    world.bury(TRAIN)
    world.settle()
    world.now += 60
    world.settle()
    second = "r-reward-train-a2"
    world.start(second)
    writes = world.writes
    world.settle()
    world.succeed(second)
    world.pods[second] = [ended(pod, 0, world.now, message=told(0, 2.25, 60)) for pod in world.pods[second]]
    world.settle()
    record = world.record("reward-train")
    assert (record.cpu_seconds, record.peak_memory_bytes) == (9.5, 120)
    assert world.writes == writes + 2  # that it runs; that it is done, and what it has cost
    world.settle()
    assert world.record("reward-train") == record


def test_a_result_that_is_there_is_used_without_a_job() -> None:
    world = World()
    world.settle()
    world.succeed(IMPORT, ahead={"reward-train": "k1", "reward-eval": "k2"})
    status = world.settle()
    assert world.made == [IMPORT]
    assert status.phase is Phase.SUCCEEDED
    assert [(r.key, r.reused, r.state) for r in status.stages[1:]] == [
        ("k1", True, State.DONE),
        ("k2", True, State.DONE),
    ]
    assert world.events == ["RunSucceeded"]


def test_a_result_ahead_of_a_stage_that_runs_is_remembered() -> None:
    world = World(document(policies=[POLICY]))
    world.settle()
    world.succeed(IMPORT, ahead={"score/vlm": "k"})
    world.settle()
    assert world.record("score/vlm").state is State.WAITING
    world.succeed(TRAIN)
    world.succeed("r-generate-vlm-a1")
    world.settle()
    assert (world.record("score/vlm").state, world.record("score/vlm").key) == (State.DONE, "k")
    assert "r-score-vlm-a1" not in world.made


def test_the_end_of_a_job_is_read_when_its_first_pod_has_told_it() -> None:
    world = World()
    world.settle()
    world.start(IMPORT)
    world.say(IMPORT, "Succeeded")
    world.settle()
    assert world.record("import").state is State.RUNNING
    world.succeed(IMPORT)
    assert world.settle().stages[0].key == f"key-{IMPORT}"


@pytest.mark.parametrize(
    ("code", "limit", "cause"),
    [(2, 0, Cause.USER), (137, 1, Cause.MEMORY), (1, 1, Cause.CRASHED), (143, 3, Cause.PREEMPTED)],
)
def test_failures_are_tried_again_as_often_as_their_cause_allows(code: int, limit: int, cause: Cause) -> None:
    world = World(document(cluster={"retries": {"preempted": 3, "backoffSeconds": 5}}))
    world.settle()
    for attempt in range(1, limit + 2):
        assert world.made[-1] == f"r-import-a{attempt}"
        world.fail(world.made[-1], code)
        outcome = world.outcome()
        assert outcome.apply == ()
        world.settle()
        if attempt <= limit:
            assert world.outcome().next_look == pytest.approx(world.now + 5 * 2 ** (attempt - 1))
            assert world.status.phase is Phase.RUNNING
        world.now += 3600
        status = world.settle()
    assert (status.phase, status.reason) == (Phase.FAILED, cause.value)
    assert world.record("import").failures == {cause.value: limit + 1}
    assert len(world.made) == limit + 1
    assert world.events[-1] == "RunFailed"


def test_a_deleted_job_is_made_again_under_a_new_number_when_its_pods_have_gone() -> None:
    world = training()
    world.delete_job(TRAIN)
    world.settle()
    assert world.made[-1] == TRAIN
    world.bury(TRAIN)
    world.settle()
    world.now += 10
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"
    assert world.record("reward-train").last_failure.reason == "JobDeleted"


def test_pods_of_a_dead_node_do_not_hold_up_the_next_attempt_for_ever() -> None:
    world = training()
    world.delete_job(TRAIN)
    world.settle()
    assert world.outcome().next_look == world.now + 60 + UNREACHABLE_SECONDS
    world.now += 60 + UNREACHABLE_SECONDS
    world.settle()
    world.now += 10
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"


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


def test_suspend_stops_and_resume_goes_on_as_the_same_attempt() -> None:
    world = training()
    world.run["spec"]["suspend"] = True
    status = world.settle()
    assert (status.phase, conditions(world)["Suspended"]) == (Phase.SUSPENDED, "True")
    assert world.jobs[TRAIN]["spec"]["runPolicy"]["suspend"]
    assert "RunSuspended" in world.events
    world.now += 7200
    world.settle()
    world.run["spec"]["suspend"] = False
    world.settle()
    assert not world.jobs[TRAIN]["spec"]["runPolicy"]["suspend"]
    world.start(TRAIN)
    status = world.settle()
    assert (status.phase, world.record("reward-train").attempt) == (Phase.RUNNING, 1)
    assert world.record("reward-train").failures == {}
    world.succeed(TRAIN)
    world.settle()
    assert world.made[-1] == EVAL


def test_a_queued_job_is_taken_away_by_suspend_and_made_anew_without_counting() -> None:
    world = World(document(cluster={"queue": "q"}))
    world.settle()
    world.suspend_job(IMPORT, False)
    world.start(IMPORT)
    world.settle()
    world.run["spec"]["suspend"] = True
    world.settle()
    assert world.live_jobs() == []
    world.bury(IMPORT)
    assert world.settle().phase is Phase.SUSPENDED
    world.run["spec"]["suspend"] = False
    world.settle()
    assert world.made[-1] == "r-import-a2"
    assert world.record("import").failures == {}


def test_what_fails_while_suspended_counts_and_waits() -> None:
    world = training()
    world.fail(TRAIN, 1)
    world.bury(TRAIN)
    world.run["spec"]["suspend"] = True
    world.settle()
    world.now += 3600
    assert world.settle().phase is Phase.SUSPENDED
    assert world.record("reward-train").failures == {"Crashed": 1}
    world.run["spec"]["suspend"] = False
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"


def test_cancel_ends_for_good_when_nothing_runs_any_more() -> None:
    world = training()
    world.run["spec"]["cancel"] = True
    status = world.settle()
    assert world.live_jobs() == []
    assert status.phase is Phase.RUNNING
    world.bury(TRAIN)
    status = world.settle()
    assert (status.phase, world.events[-1]) == (Phase.CANCELLED, "RunCancelled")
    assert [record.state for record in status.stages] == [State.DONE, State.CANCELLED, State.CANCELLED]
    assert conditions(world)["Failed"] == "True"
    world.run["metadata"]["annotations"][RETRY_AT] = "now"
    world.now += 3600
    assert world.settle().phase is Phase.CANCELLED
    assert world.made[-1] == TRAIN


@pytest.mark.parametrize("queue", ["", "q"])
def test_a_stage_that_torchx_cancelled_ends_the_run_until_it_is_asked_for_again(queue: str) -> None:
    world = training(cluster={"queue": queue}) if not queue else World(document(cluster={"queue": queue}))
    job = TRAIN if not queue else IMPORT
    if queue:
        world.settle()
        world.suspend_job(job, False)
        world.start(job)
        world.settle()
    marks = {"unifiedreward.dev/cancelled-at": stamp(world.now), "unifiedreward.dev/cancelled-by": "ada"}
    world.jobs[job]["metadata"].setdefault("annotations", {}).update(marks)
    world.jobs[job]["spec"]["runPolicy"]["suspend"] = True
    assert world.settle().phase is Phase.RUNNING  # its pods save what they have
    world.suspend_job(job, True)
    status = world.settle()
    assert (status.phase, status.reason) == (Phase.FAILED, "StageCancelled")
    assert f"{job} was cancelled by ada at {stamp(world.now)}" in status.message
    assert world.jobs[job]["spec"]["runPolicy"]["suspend"]
    assert world.made[-1] == job
    world.run["metadata"]["annotations"][RETRY_AT] = "t1"
    world.settle()
    assert world.made[-1] == job[:-1] + "2"
    assert world.jobs[job]["spec"]["runPolicy"]["suspend"]


def test_a_cancelled_suspended_run_ends_too() -> None:
    world = training()
    world.run["spec"]["suspend"] = True
    world.settle()
    world.run["spec"]["cancel"] = True
    assert world.settle().phase is Phase.CANCELLED
    assert world.live_jobs() == []


def test_a_failed_run_is_tried_again_when_asked_once_for_each_value() -> None:
    world = World()
    world.settle()
    world.fail(IMPORT, 2)
    assert world.settle().phase is Phase.FAILED
    world.run["metadata"]["annotations"][RETRY_AT] = "t1"
    status = world.settle()
    assert (status.phase, status.retried, world.made[-1]) == (Phase.RUNNING, "t1", "r-import-a2")
    assert status.ended == ""
    world.fail("r-import-a2", 2)
    assert world.settle().phase is Phase.FAILED
    assert len(world.made) == 2
    world.run["metadata"]["annotations"][RETRY_AT] = "t2"
    world.settle()
    assert world.made[-1] == "r-import-a3"


def test_asking_a_running_run_again_forgives_and_starts_nothing_twice() -> None:
    world = training()
    world.run["metadata"]["annotations"][RETRY_AT] = "t1"
    world.settle()
    assert world.live_jobs() == [TRAIN]
    world.fail(TRAIN, 1)
    world.now += 3600
    world.settle()
    world.now += 3600
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"


def test_a_succeeded_run_stays_so_whatever_is_asked() -> None:
    world = World()
    world.settle()
    world.succeed(IMPORT, ahead={"reward-train": "a", "reward-eval": "b"})
    end = world.settle().ended
    world.now += 60
    world.run["metadata"]["annotations"][RETRY_AT] = "t1"
    world.run["spec"] |= {"cancel": True, "suspend": True}
    status = world.settle()
    assert (status.phase, status.ended, world.made) == (Phase.SUCCEEDED, end, [IMPORT])


def test_ttl_takes_the_resource_away_in_its_time() -> None:
    world = World(document(ttlSecondsAfterFinished=100))
    world.settle()
    world.succeed(IMPORT, ahead={"reward-train": "a", "reward-eval": "b"})
    world.settle()
    assert world.outcome().next_look == world.now + 100
    world.now += 99
    assert not world.outcome().gone
    world.now += 1
    assert world.outcome().gone


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rewardTrain": {"processes": 3, "nodes": 2}}, "processes"),
        ({"cluster": {"secrets": ["hf-token"]}}, "hf-token"),
        ({"import": {"source": "files", "paths": ["r.jsonl"]}, "policies": [POLICY]}, "spec.import.vlmPrompts is []"),
        ({"policies": [{**POLICY, "sweep": {"seeds": list(range(60))}}]}, "243 stages"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_with_its_reason(spec: dict[str, Any], said: str) -> None:
    world = World(document(**spec))
    status = world.settle()
    assert (status.phase, status.reason) == (Phase.FAILED, "InvalidSpec")
    assert said in status.message
    assert conditions(world)["Accepted"] == "False"
    assert world.made == []


def outdated(**spec: Any) -> World:
    """The judge's training runs, and an operator of another version finds the document invalid."""
    world = training(**spec)
    world.run["spec"]["ofYesterday"] = 1
    return world


def test_what_runs_under_a_document_that_became_invalid_ends_by_itself_before_the_run_does() -> None:
    world = outdated(ttlSecondsAfterFinished=100)
    status = world.settle()
    assert (status.phase, status.reason, conditions(world)["Accepted"]) == (Phase.RUNNING, "InvalidSpec", "False")
    assert "ofYesterday" in status.message
    world.now += 1000
    world.settle()
    assert world.live_jobs() == [TRAIN]
    assert not world.gone
    world.succeed(TRAIN, metrics={"accuracy": 0.9})
    status = world.settle()
    assert (status.phase, status.progress, status.ended) == (Phase.FAILED, "2/3", stamp(world.now))
    assert world.record("reward-train").metrics == {"accuracy": 0.9}
    assert world.made == [IMPORT, TRAIN]
    assert world.events == ["StageSucceeded", "InvalidSpec", "RunFailed"]
    assert world.outcome().next_look == world.now + 100


def test_a_failure_under_a_document_that_became_invalid_is_the_last() -> None:
    world = outdated()
    world.settle()
    world.fail(TRAIN, 143, message=json.dumps({"code": 143, "cpu_seconds": 9.5}))
    assert world.settle().phase is Phase.RUNNING  # its other pod saves
    world.bury(TRAIN)
    status = world.settle()
    assert (status.phase, world.record("reward-train").state) == (Phase.FAILED, State.FAILED)
    assert world.record("reward-train").failures == {"Preempted": 1}
    assert world.record("reward-train").cpu_seconds == 9.5
    world.now += 3600
    world.settle()
    assert world.made[-1] == TRAIN


@pytest.mark.parametrize(("field", "phase"), [("cancel", Phase.CANCELLED), ("suspend", Phase.FAILED)])
def test_a_document_that_became_invalid_leaves_no_job_that_a_person_stopped(field: str, phase: Phase) -> None:
    world = training()
    world.run["spec"][field] = True
    if field == "suspend":
        world.settle()
    world.run["spec"]["ofYesterday"] = 1
    world.settle()
    assert world.live_jobs() == []
    world.bury(TRAIN)
    assert world.settle().phase is phase
    assert all(record.state is not State.RUNNING for record in world.status.stages)


def test_a_document_that_is_valid_again_goes_on() -> None:
    world = outdated()
    world.settle()
    del world.run["spec"]["ofYesterday"]
    status = world.settle()
    assert (status.phase, status.reason, conditions(world)["Accepted"]) == (Phase.RUNNING, "", "True")
    world.succeed(TRAIN)
    world.settle()
    assert world.made[-1] == EVAL


def test_a_job_under_an_invalid_document_whose_status_was_lost_is_waited_for() -> None:
    world = World()
    world.apply(world.outcome(), status_is_lost=True)
    world.run["spec"]["ofYesterday"] = 1
    assert world.settle().phase is Phase.RUNNING
    world.succeed(IMPORT)
    assert world.settle().phase is Phase.FAILED


def test_what_the_installation_no_longer_offers_lets_what_runs_end() -> None:
    offered = ClusterDefaults(allowed_secrets=["token"])
    world = World(document(cluster={"secrets": ["token"]}), offered)
    world.settle()
    world.defaults = ClusterDefaults()
    assert world.settle().phase is Phase.RUNNING
    world.succeed(IMPORT)
    status = world.settle()
    assert (status.phase, status.reason) == (Phase.FAILED, "NotOffered")
    assert "token" in status.message


def test_a_bad_edit_of_the_installation_is_said_and_stops_nothing() -> None:
    world = training()
    problem = "the installation's configuration is not used, the last good one is: ..."
    world.apply(world.outcome(installation=problem))
    accepted = world.status.condition(ConditionType.ACCEPTED)
    assert accepted is not None
    assert (accepted.status, accepted.reason, accepted.message) == ("True", "InstallationInvalid", problem)
    assert not world.apply(world.outcome(installation=problem))
    world.run["spec"]["cancel"] = True
    world.apply(world.outcome(installation=problem))
    assert world.live_jobs() == []
    world.bury(TRAIN)
    world.apply(world.outcome(installation=problem))
    accepted = world.status.condition(ConditionType.ACCEPTED)
    assert accepted is not None
    assert (world.status.phase, accepted.reason) == (Phase.CANCELLED, "Valid")


def test_jobs_are_taken_for_its_own_when_the_status_was_not_written() -> None:
    world = World()
    world.apply(world.outcome(), status_is_lost=True)
    status = world.settle()
    assert world.made == [IMPORT]
    assert (status.stages[0].state, status.stages[0].job) == (State.RUNNING, IMPORT)


def test_failures_before_a_lost_status_still_count() -> None:
    world = World()
    world.settle()
    world.fail(IMPORT, 1)
    world.settle()
    world.now += 60
    world.apply(world.outcome(), status_is_lost=True)
    world.settle()
    assert (world.record("import").attempt, world.record("import").failures) == (2, {"Crashed": 1})
    world.fail("r-import-a2", 1)
    world.now += 60
    assert world.settle().phase is Phase.FAILED
    assert len(world.made) == 2


def test_a_status_that_is_gone_altogether_is_made_from_the_jobs() -> None:
    world = training()
    del world.run["status"]
    world.settle()
    assert world.record("import").state is State.DONE
    assert (world.record("reward-train").state, world.record("reward-train").attempt) == (State.RUNNING, 1)
    assert world.made == [IMPORT, TRAIN]


def test_attempts_count_on_from_the_jobs_when_the_status_is_gone() -> None:
    world = World()
    world.settle()
    world.fail(IMPORT, 1)
    world.settle()
    world.now += 60
    world.settle()
    del world.run["status"]
    world.settle()
    assert world.record("import").attempt == 2
    world.fail("r-import-a2", 1)
    world.settle()
    world.now += 60
    world.settle()
    assert world.made == [IMPORT, "r-import-a2", "r-import-a3"]


def test_a_failed_job_is_followed_when_the_last_of_its_pods_has_gone() -> None:
    world = training()
    world.fail(TRAIN, 1)
    world.settle()
    assert world.record("reward-train").state is State.RUNNING
    world.now += 30
    world.bury(TRAIN)
    world.settle()
    assert world.record("reward-train").failures == {"Crashed": 1}
    world.now += 30
    world.settle()
    assert world.made[-1] == "r-reward-train-a2"


def test_a_job_that_the_api_server_does_not_take_is_told_and_asked_for_again() -> None:
    world = World()
    refused = {IMPORT: "exceeded quota: gpus"}
    outcome = world.outcome(refused=refused)
    assert len(outcome.apply) == 1
    assert (outcome.status.reason, outcome.status.message) == ("JobRefused", "import: exceeded quota: gpus")
    world.run["status"] = json.loads(json.dumps(outcome.status.document()))
    assert world.settle().reason == ""
    assert world.record("import").attempt == 1


def test_a_run_of_the_same_name_made_later_does_not_see_the_jobs_of_the_earlier() -> None:
    world = World()
    world.settle()
    again = World(document())
    again.run["metadata"]["uid"] = "another"
    assert [m["metadata"]["ownerReferences"][0]["uid"] for m in again.outcome().apply] == ["another"]


def test_tracking_that_was_not_asked_changes_nothing() -> None:
    world = World()
    page = Tracking(experiment_id="1", run_id="2", url="u", state="RUNNING")
    world.apply(world.outcome(tracking=page, tracking_error=""))
    assert conditions(world)["TrackingReady"] == "True"
    writes = world.writes
    world.settle()
    assert world.writes == writes
    world.apply(world.outcome(tracking_error="MLflow does not answer"))
    assert conditions(world)["TrackingReady"] == "False"
    writes = world.writes
    world.settle()
    assert world.writes == writes
    assert world.status.tracking == page
    world.succeed(IMPORT, ahead={"reward-train": "a", "reward-eval": "b"})
    world.settle()
    world.apply(world.outcome(tracking=page.model_copy(update={"state": "FINISHED"}), tracking_error=""))
    assert (conditions(world)["TrackingReady"], conditions(world)["Succeeded"]) == ("True", "True")


def test_progress_is_told_in_steps_that_a_person_would_see() -> None:
    world = training()

    def told(percent: int, later: float) -> bool:
        said = StageProgress(
            percent=percent, text=f"{percent}/100 steps", seconds_left=9, updated=stamp(world.now + later)
        )
        world.now += later
        return world.apply(world.outcome(progress={TRAIN: said}))

    assert told(1, 1)
    assert not told(4, 1)
    assert told(6, 1)
    assert not told(7, 59)
    assert told(8, 2)
    assert world.status.progress == "1/3 (8%)"
    world.now += 600
    writes = world.writes
    world.settle()
    assert world.writes == writes


def test_the_status_stays_small_and_at_rest_with_many_stages_and_long_messages() -> None:
    policies = [{**POLICY, "name": f"p{number}"} for number in range(39)]
    world = World(document(policies=policies))
    world.settle()
    numbers = {f"a-rather-long-name-of-a-metric-{number}": 1.0 / 3 for number in range(16)}
    world.succeed(IMPORT, metrics=numbers)
    world.settle()
    for job in [job for job in world.live_jobs() if "generate" in job]:
        world.start(job)
        world.pods[job] = [ended(world.pods[job][0], 1, world.now, message="e" * 3000)]
        world.say(job, "Failed")
    world.settle()
    writes = world.writes
    world.settle()
    assert world.writes == writes
    assert len(json.dumps(world.run["status"])) <= LONGEST_BYTES
    assert len(world.status.stages) == 159


def test_one_look_tells_one_event_of_a_kind() -> None:
    world = World(document(policies=[POLICY, {**POLICY, "name": "other"}]))
    world.settle()
    world.succeed(IMPORT)
    world.settle()
    for job in world.live_jobs():
        world.succeed(job)
    outcome = world.outcome()
    (event,) = outcome.events
    assert event.message.count(" done in 3 s") == 3


def test_a_status_of_another_version_is_read() -> None:
    world = training()
    world.run["status"]["ofTomorrow"] = 1
    world.run["status"]["stages"][0]["ofTomorrow"] = {"a": 1}
    world.settle()
    assert world.live_jobs() == [TRAIN]
    assert ResourceStatus.model_validate(world.run["status"]).condition(ConditionType.FAILED) is not None
