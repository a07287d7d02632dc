"""What a person asks of a run while it goes: suspend, resume, cancel, retry, and its time to live."""

from __future__ import annotations

import pytest

from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import RETRY_AT, Phase

from .world import EVAL, IMPORT, TRAIN, World, conditions, document, stamp, training


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
