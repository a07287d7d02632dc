"""What holds whatever happens: a model of the cluster does anything at random, and the operator may be killed at any time.

I1 the same inputs give the same outcome. I2 what is done is not asked for again. I3 at most one attempt of a stage is alive,
its pods counted. I4 an end stays. I5 attempts only count up. I6 a stage starts when all it needs are done. I7 at rest nothing
is written. And every run that is let go on comes to an end.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unified_reward.config import validate
from unified_reward.config.graph import build_graph
from unified_reward.config.run import AlignmentRun
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import RETRY_AT, Phase

from .world import POLICY, World, document, pod_of, stamp

PICK = st.integers(0, 7)


class Anything(RuleBasedStateMachine):
    @initialize(queue=st.booleans(), policy=st.booleans(), nodes=st.sampled_from([1, 2]))
    def begin(self, queue: bool, policy: bool, nodes: int) -> None:
        spec: dict[str, Any] = {"rewardTrain": {"processes": 2, "nodes": nodes}, "policies": [POLICY] * policy}
        spec["cluster"] = {"queue": "q" if queue else "", "startTimeoutSeconds": 100, "retries": {"preempted": 4}}
        self.world = World(document(**spec))
        run = validate(AlignmentRun, {"metadata": {"name": "r"}, "spec": spec})
        self.needs = {node.id: node.needs for node in build_graph(run).values()}
        self.ended: Phase | None = None
        self.attempts: dict[str, int] = {}
        self.asked = 0
        self._act()

    # --- the operator

    def _act(self, *, killed: bool = False) -> None:
        for _ in range(12):
            outcome = self.world.outcome()
            assert outcome == self.world.outcome()  # I1
            for manifest in outcome.apply:
                node = manifest["metadata"]["labels"]["unifiedreward.dev/node"].replace(".", "/")
                states = {record.name: record.state for record in outcome.status.stages}
                assert all(states[need] is State.DONE for need in self.needs[node])  # I6
            wrote = self.world.apply(outcome, status_is_lost=killed)
            self._check_alive()
            if killed or not wrote:
                return
        raise AssertionError("it does not come to rest")  # I2, I7

    def _check_alive(self) -> None:
        alive: dict[str, set[str]] = {}
        for job in self.world.live_jobs():
            alive.setdefault(job.rpartition("-a")[0], set()).add(job)
        for job, pods in self.world.pods.items():
            if any(pod["status"]["phase"] in ("Pending", "Running") for pod in pods):
                alive.setdefault(job.rpartition("-a")[0], set()).add(job)
        assert all(len(jobs) == 1 for jobs in alive.values()), alive  # I3

    def _pick(self, which: int, *, suspended: bool = False) -> str | None:
        jobs = [
            job for job in self.world.live_jobs()
            if bool(self.world.jobs[job]["spec"]["runPolicy"]["suspend"]) is suspended
        ]  # fmt: skip
        return jobs[which % len(jobs)] if jobs else None

    # --- the cluster and people

    @rule(which=PICK, phase=st.sampled_from(["Pending", "Running"]), killed=st.booleans())
    def pods_start(self, which: int, phase: str, killed: bool) -> None:
        if (job := self._pick(which)) is not None:
            waits = {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}
            self.world.start(job, phase, **(waits if phase == "Pending" else {}))
            self._act(killed=killed)

    @rule(which=PICK, ahead=st.booleans(), killed=st.booleans())
    def a_job_succeeds(self, which: int, ahead: bool, killed: bool) -> None:
        if (job := self._pick(which)) is not None:
            self.world.succeed(job, ahead={"reward-eval": "k", "score/vlm": "k"} if ahead else {})
            self._act(killed=killed)

    @rule(which=PICK, code=st.sampled_from([1, 2, 137, 143]), killed=st.booleans())
    def a_job_fails(self, which: int, code: int, killed: bool) -> None:
        if (job := self._pick(which)) is not None:
            self.world.fail(job, code)
            self._act(killed=killed)

    @rule(which=PICK, killed=st.booleans())
    def a_pod_is_lost_and_made_again(self, which: int, killed: bool) -> None:
        job = self._pick(which)
        if job is not None and self.world.pods.get(job):
            self.world.now += 2
            pods = self.world.pods[job]
            pods[-1] = pod_of(self.world.jobs[job], len(pods) - 1, self.world.now)
            self._act(killed=killed)

    @rule(which=PICK, killed=st.booleans())
    def a_job_is_deleted(self, which: int, killed: bool) -> None:
        if (job := self._pick(which)) is not None:
            self.world.delete_job(job)
            self._act(killed=killed)

    @rule(which=PICK)
    def a_queue_admits(self, which: int) -> None:
        job = self._pick(which, suspended=True)
        if job is not None and self.world.run["spec"]["cluster"]["queue"]:
            self.world.suspend_job(job, False)
            self._act()

    @rule(which=PICK)
    def a_queue_preempts(self, which: int) -> None:
        job = self._pick(which)
        if job is not None and self.world.run["spec"]["cluster"]["queue"]:
            self.world.suspend_job(job, True)
            self._act()

    @rule()
    def old_pods_go(self) -> None:
        for job in self.world.pods:
            self.world.bury(job)
        self._act()

    @rule(seconds=st.sampled_from([1, 6, 60, 400]), killed=st.booleans())
    def time_goes_by(self, seconds: int, killed: bool) -> None:
        if seconds >= 60:  # a kubelet keeps to its grace period
            for job in self.world.pods:
                self.world.bury(job)
        self.world.now += seconds
        self._act(killed=killed)

    @rule(suspend=st.booleans(), killed=st.booleans())
    def it_is_suspended_or_resumed(self, suspend: bool, killed: bool) -> None:
        self.world.run["spec"]["suspend"] = suspend
        self.world.run["metadata"]["generation"] += 1
        self._act(killed=killed)

    @precondition(lambda self: self.world.status.phase is Phase.FAILED or self.asked == 0)
    @rule()
    def it_is_asked_to_retry(self) -> None:
        self.asked += 1
        if self.world.status.phase is Phase.FAILED:
            self.ended = None
        self.world.run["metadata"]["annotations"][RETRY_AT] = f"t{self.asked}"
        self._act()

    @rule(sure=st.integers(0, 9))
    def it_is_cancelled(self, sure: int) -> None:
        if sure == 0:
            self.world.run["spec"]["cancel"] = True
            self._act()

    @rule(sure=st.integers(0, 4), killed=st.booleans())
    def the_operator_is_exchanged_for_one_that_takes_other_documents(self, sure: int, killed: bool) -> None:
        if sure == 0 and self.world.run["spec"].pop("ofYesterday", None) is None:
            self.world.run["spec"]["ofYesterday"] = 1
        self._act(killed=killed)

    # --- what holds

    @invariant()
    def an_end_stays(self) -> None:
        phase = self.world.status.phase
        if self.ended is not None:
            assert phase is self.ended  # I4
        elif phase.terminal:
            self.ended = phase
            assert self.world.live_jobs() == []

    @invariant()
    def attempts_count_up(self) -> None:
        for record in self.world.status.stages:
            assert record.attempt >= self.attempts.get(record.name, 0)  # I5
            self.attempts[record.name] = record.attempt

    @invariant()
    def at_rest_nothing_is_written(self) -> None:
        run = copy.deepcopy(self.world.run)
        if run.get("status") and not self.world.outcome().apply:
            self._act()
            writes = self.world.writes
            self._act()
            assert self.world.writes == writes  # I7

    def teardown(self) -> None:
        """Let everything go well from here on: the run ends."""
        world = self.world
        world.run["spec"]["suspend"] = False
        world.run["spec"].pop("ofYesterday", None)
        for _ in range(60):
            world.now += 700
            for job in list(world.pods):
                world.bury(job)
            self._act()
            if world.status.phase.terminal:
                assert world.live_jobs() == []
                return
            for job in world.live_jobs():
                if world.jobs[job]["spec"]["runPolicy"]["suspend"]:
                    world.suspend_job(job, False)
                    world.start(job)
                else:
                    world.succeed(job)
        raise AssertionError(f"no end: {world.status.document()} {stamp(world.now)}")


Anything.TestCase.settings = settings(max_examples=60, stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestAnything = Anything.TestCase
