"""Further attempts of jobs that no AlignmentRun owns."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from torchx.specs import AppState

from operators.alignmentrun.cache import ALONE, Cache
from operators.alignmentrun.standalone import (
    GATHERED,
    SUPERSEDED_BY,
    NextStep,
    further_attempt,
    next_step,
)
from unified_reward.launch.job_status import CANCELLED_AT, RETRIES, JobState, job_state
from unified_reward.launch.pytorchjob import API_VERSION, APP, ATTEMPT, KIND
from unified_reward.launch.retries import FAILURES, LOST, settled

from .world import START, ended, pod_of, stamp


class App:
    """Jobs as submitted and as the operator goes on with them."""

    def __init__(self, retries: str = "preempted=2,memory=1,crashed=0", nodes: int = 1) -> None:
        labels = {"app.kubernetes.io/managed-by": "unified-reward", APP: "j", ATTEMPT: "1"}
        env = [{"name": "UR_JOB", "value": "j"}, {"name": "UR_ATTEMPT", "value": "1"},
               {"name": "UR_MASTER", "value": "j-worker-0:23456"}, {"name": "KEPT", "value": "j"}]  # fmt: skip
        self.now = START
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, list[dict[str, Any]]] = {}
        self.add({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": "j", "namespace": "ns", "labels": labels, "annotations": {RETRIES: retries}},
            "spec": {
                "runPolicy": {"suspend": False, "ttlSecondsAfterFinished": 100},
                "elasticPolicy": {"rdzvId": "j", "minReplicas": 1},
                "pytorchReplicaSpecs": {"Worker": {
                    "replicas": nodes,
                    "template": {"metadata": {"labels": dict(labels)},
                                 "spec": {"containers": [{"name": "pytorch", "image": "i", "env": env}]}},
                }},
            },
        })  # fmt: skip
        del self.jobs["j"]["spec"]["elasticPolicy"]

    def add(self, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        job["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": stamp(self.now)}
        self.jobs[name] = job

    def cache(self) -> Cache:
        cache = Cache()
        for job in self.jobs.values():
            cache.put_job(job)
        for pods in self.pods.values():
            for pod in pods:
                cache.put_pod(pod)
        return cache

    def step(self) -> NextStep:
        cache = self.cache()
        jobs = cache.jobs_for(f"{ALONE}j")
        return next_step(
            jobs, {job["metadata"]["name"]: cache.pods_for(job["metadata"]["name"]) for job in jobs}, self.now
        )

    def act(self) -> NextStep:
        step = self.step()
        for name, change in step.note:
            self.jobs[name]["metadata"].setdefault("annotations", {}).update(change["metadata"]["annotations"])
            policy = self.jobs[name]["spec"]["runPolicy"]
            for key, value in change.get("spec", {}).get("runPolicy", {}).items():
                policy[key] = value
        if step.retry:
            first, latest, attempt = step.retry
            whole = self.jobs[latest["metadata"]["name"]]
            self.add(further_attempt(first, whole, attempt, step.failures or {}))
        for name in step.gone:
            self.jobs.clear() if name == "j" else self.jobs.pop(name)
        return step

    def settle(self) -> None:
        for _ in range(10):
            if self.act() == self.step() or not (self.step().note or self.step().retry or self.step().gone):
                return
        raise AssertionError("it does not come to rest")

    def fail(self, job: str, code: int, **more: Any) -> None:
        self.pods[job] = [ended(pod_of(self.jobs[job], 0, self.now), code, self.now, **more)]
        conditions = [{"type": "Failed", "status": "True", "lastTransitionTime": stamp(self.now)}]
        self.jobs[job]["status"] = {"conditions": conditions}


@pytest.mark.parametrize(("code", "attempts"), [(143, 3), (137, 2), (1, 1), (2, 1)])
def test_attempts_are_bounded_by_their_cause(code: int, attempts: int) -> None:
    app = App()
    for number in range(1, 6):
        name = "j" if number == 1 else f"j-a{number}"
        if name not in app.jobs:
            break
        app.fail(name, code)
        app.settle()
        app.now += 3600
        app.settle()
    assert list(app.jobs) == ["j", "j-a2", "j-a3"][:attempts]


def seen(app: App, name: str) -> JobState:
    """As `torchx status` and `--wait` see a job."""
    pods = app.pods.get(name, [])
    return settled(job_state(app.jobs[name], pods), app.jobs[name], pods, app.now)


@pytest.mark.parametrize("codes", [(2,), (1,), (143, 2), (137, 137), (143, 137, 1), (143, 143, 143), (137, 143, 137)])
def test_a_job_counts_as_failed_when_the_operator_lets_it_be_and_not_before(codes: tuple[int, ...]) -> None:
    app = App()
    for number, code in enumerate(codes, start=1):
        name = "j" if number == 1 else f"j-a{number}"
        app.fail(name, code)
        before = seen(app, name)
        app.now += 20  # its backoff
        app.settle()
        follows = f"j-a{number + 1}" in app.jobs
        assert before.state is (AppState.PENDING if follows else AppState.FAILED)
        assert (f"attempt {number + 1} follows" in before.message) is follows
    assert not follows
    assert len(app.jobs) == len(codes)


def test_a_job_that_nobody_tries_again_has_failed_in_the_end() -> None:
    app = App(nodes=2)
    app.fail("j", 143)
    going = pod_of(app.jobs["j"], 1, app.now)
    going["metadata"]["deletionTimestamp"] = stamp(app.now + 60)
    app.pods["j"].append(going)  # the operator waits for it
    app.now += 200
    assert seen(app, "j").state is AppState.PENDING
    app.now += 200
    assert seen(app, "j").state is AppState.FAILED
    assert seen(app, "j").message.endswith("no operator has tried it again")
    app.now -= 400
    app.jobs["j"]["metadata"]["annotations"][CANCELLED_AT] = stamp(app.now)
    assert seen(app, "j").state is AppState.FAILED


def test_a_lost_gang_with_no_retry_left_has_failed_though_its_job_is_only_suspended() -> None:
    for retries, state in (("preempted=1", AppState.PENDING), ("preempted=0", AppState.FAILED)):
        app = App(retries, nodes=2)
        app.jobs["j"]["metadata"]["annotations"][LOST] = "j-worker-1 was deleted"
        app.jobs["j"]["spec"]["runPolicy"]["suspend"] = True
        suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": stamp(app.now)}
        app.jobs["j"]["status"] = {"conditions": [suspended]}
        assert seen(app, "j").state is state
        assert "j-worker-1 was deleted" in seen(app, "j").message
        app.now += 20
        app.settle()
        assert ("j-a2" in app.jobs) is (state is AppState.PENDING)


def test_causes_are_counted_each_for_itself_over_the_attempts() -> None:
    app = App()
    for name, code in (("j", 143), ("j-a2", 137), ("j-a3", 143), ("j-a4", 137)):
        app.fail(name, code)
        app.now += 3600
        app.settle()
    assert list(app.jobs) == ["j", "j-a2", "j-a3", "j-a4"]
    ttls = [job["spec"]["runPolicy"]["ttlSecondsAfterFinished"] for job in app.jobs.values()]
    assert ttls == [None, None, None, 100]  # the last one's counts: when it has gone, all go
    assert app.jobs["j-a4"]["metadata"]["annotations"][FAILURES] == "preempted=2,memory=1"


def test_a_further_attempt_is_the_same_work_under_its_own_name() -> None:
    app = App()
    app.fail("j", 143)
    app.now += 60
    before = copy.deepcopy(app.jobs["j"]["spec"]["pytorchReplicaSpecs"])
    app.settle()
    job = app.jobs["j-a2"]
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    env = {each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
    assert env == {"UR_JOB": "j-a2", "UR_ATTEMPT": "2", "UR_MASTER": "j-a2-worker-0:23456", "KEPT": "j"}
    assert job["metadata"]["labels"][APP] == template["metadata"]["labels"][APP] == "j"
    assert job["metadata"]["labels"][ATTEMPT] == template["metadata"]["labels"][ATTEMPT] == "2"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "uid-j"
    assert app.jobs["j"]["spec"]["pytorchReplicaSpecs"] == before
    assert app.jobs["j"]["metadata"]["annotations"][SUPERSEDED_BY] == "j-a2"
    assert app.jobs["j"]["spec"]["runPolicy"]["ttlSecondsAfterFinished"] is None


def test_an_attempt_waits_for_its_backoff_and_for_pods_that_are_still_saving() -> None:
    app = App()
    app.fail("j", 143)
    assert app.step() == NextStep(next_look=app.now + 5)
    app.pods["j"].append(pod_of(app.jobs["j"], 1, app.now))
    app.now += 60
    assert app.step().retry is None
    app.pods["j"].pop()
    assert app.step().retry is not None


@pytest.mark.parametrize("retries", ["", "preempted=many", "sometimes=3"])
def test_nothing_is_tried_again_that_nobody_asked_for(retries: str) -> None:
    app = App(retries)
    app.fail("j", 143)
    app.now += 60
    assert app.step() == NextStep()


def test_a_cancelled_or_succeeded_job_stays_so() -> None:
    app = App()
    app.jobs["j"]["metadata"]["annotations"][CANCELLED_AT] = "now"
    app.fail("j", 143)
    app.now += 60
    assert app.step() == NextStep()
    other = App()
    other.jobs["j"]["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    assert other.step() == NextStep()


def test_when_the_last_attempt_is_deleted_the_first_goes_too_and_nothing_starts() -> None:
    app = App()
    app.fail("j", 143)
    app.now += 60
    app.settle()
    del app.jobs["j-a2"]
    assert app.step() == NextStep(gone=("j",))


def test_a_gang_that_lost_a_pod_is_stopped_and_tried_again() -> None:
    app = App(nodes=2)
    app.pods["j"] = [pod_of(app.jobs["j"], index, app.now) for index in range(2)]
    app.settle()
    assert app.jobs["j"]["metadata"]["annotations"][GATHERED] == stamp(app.now)
    app.pods["j"].pop()
    app.settle()
    assert app.jobs["j"]["spec"]["runPolicy"]["suspend"]
    assert "1 of 2" in app.jobs["j"]["metadata"]["annotations"][LOST]
    assert "j-a2" not in app.jobs
    app.pods["j"] = []
    app.now += 60
    app.settle()
    assert app.jobs["j-a2"]["metadata"]["annotations"][FAILURES] == "preempted=1"
    assert GATHERED not in app.jobs["j-a2"]["metadata"]["annotations"]
    assert not app.jobs["j-a2"]["spec"]["runPolicy"]["suspend"]


def test_the_reason_of_a_retry_is_told() -> None:
    app = App("crashed=1")
    app.fail("j", 1, message=json.dumps({"code": 1, "error": "KeyError: 'x'"}))
    app.now += 60
    assert "KeyError: 'x'" in app.step().said
