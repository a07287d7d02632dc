"""The operator's course through a run's stages, and their attempts, as stories on a small cluster."""

from __future__ import annotations

import json

import pytest

from unified_reward.launch.causes import Cause
from unified_reward.launch.retries import UNREACHABLE_SECONDS
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import Phase

from .world import EVAL, IMPORT, POLICY, TRAIN, World, conditions, document, ended, stamp, training


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
