"""Documents and installations that are, or become, invalid: nothing new starts, what runs ends by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unified_reward.config import ClusterDefaults
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import ConditionType, Phase

from .world import EVAL, IMPORT, POLICY, TRAIN, World, conditions, document, stamp, training


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
