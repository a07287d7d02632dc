"""What stands in a run's status, and what is made of it when it was lost."""

from __future__ import annotations

import json

from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import (
    LONGEST_BYTES,
    ConditionType,
    Phase,
    ResourceStatus,
    StageProgress,
    Tracking,
)

from .world import IMPORT, POLICY, TRAIN, World, conditions, document, ended, stamp, training


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
