"""A cluster small enough for a test: one run, its jobs and their pods, and what a training-operator and a kubelet do."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

from operators.alignmentrun.cache import slim_job, slim_pod
from operators.alignmentrun.outcome import Outcome, Seen
from operators.alignmentrun.reconcile import reconcile
from operators.alignmentrun.status import worth_writing
from unified_reward.config import ClusterDefaults
from unified_reward.pipeline.resource import ResourceStatus

START = 1_800_000_000.0
DEFAULTS = ClusterDefaults()
POLICY = {"name": "vlm", "kind": "vlm", "base": "builtin:shapes/vlm_policy"}
IMPORT, TRAIN, EVAL = "r-import-a1", "r-reward-train-a1", "r-reward-eval-a1"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def document(name: str = "r", **spec: Any) -> dict[str, Any]:
    """A judge of two nodes, as the API server has it."""
    return {
        "apiVersion": "unifiedreward.dev/v1alpha1",
        "kind": "AlignmentRun",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": 1, "annotations": {}},
        "spec": {"rewardTrain": {"processes": 2, "nodes": 2}, **spec},
    }


def pod_of(job: dict[str, Any], index: int, created: float, phase: str = "Running", **more: Any) -> dict[str, Any]:
    name = f"{job['metadata']['name']}-worker-{index}"
    labels = {**job["metadata"].get("labels", {}), "training.kubeflow.org/replica-index": str(index)}
    labels["training.kubeflow.org/job-name"] = job["metadata"]["name"]
    state: dict[str, Any] = {"running": {"startedAt": stamp(created)}} if phase == "Running" else {}
    return {
        "metadata": {"name": name, "uid": f"{name}-{created}", "labels": labels, "creationTimestamp": stamp(created)},
        "spec": {
            "containers": [{"name": "pytorch", "image": "trainer:1", "resources": {"limits": {"memory": "2048Mi"}}}]
        },
        "status": {"phase": phase, "containerStatuses": [{"name": "pytorch", "state": state}], **more},
    }


def ended(pod: dict[str, Any], code: int, when: float, **more: Any) -> dict[str, Any]:
    """The same pod, terminated. more: reason of the container, message it left."""
    pod = copy.deepcopy(pod)
    terminated = {"exitCode": code, "finishedAt": stamp(when), **more}
    pod["status"] |= {"phase": "Failed" if code else "Succeeded"}
    pod["status"]["containerStatuses"] = [{"name": "pytorch", "state": {"terminated": terminated}}]
    return pod


class World:
    """What is there. A test changes it and lets the operator `settle`."""

    def __init__(self, run: dict[str, Any] | None = None, defaults: ClusterDefaults = DEFAULTS) -> None:
        self.run = run or document()
        self.defaults = defaults
        self.now = START
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, list[dict[str, Any]]] = {}
        self.made: list[str] = []
        self.events: list[str] = []
        self.writes = 0
        self.gone = False

    # --- the operator's side

    def seen(self, **more: Any) -> Seen:
        jobs = [slim_job(job) for job in self.jobs.values()]
        pods = {job: [slim_pod(pod) for pod in pods] for job, pods in self.pods.items()}
        return Seen(copy.deepcopy(self.run), jobs, pods, **more)

    def outcome(self, **more: Any) -> Outcome:
        return reconcile(self.seen(**more), self.defaults, self.now)

    def apply(self, outcome: Outcome, *, status_is_lost: bool = False) -> bool:
        """Whether anything was written. Lost: the operator was killed when the jobs were made."""
        wrote = False
        for manifest in outcome.apply:
            name = manifest["metadata"]["name"]
            assert name not in self.jobs, f"{name} is made twice"
            job = json.loads(json.dumps(manifest))
            job["metadata"] |= {
                "uid": f"{name}-{len(self.made)}",
                "creationTimestamp": stamp(self.now),
                "resourceVersion": "1",
            }
            self.jobs[name] = job
            self.made.append(name)
            wrote = True
        for name, suspended in outcome.suspend:
            self.suspend_job(name, suspended)
            wrote = True
        before = ResourceStatus.model_validate(self.run.get("status") or {})
        if status_is_lost:
            return True
        if worth_writing(before, outcome.status, self.now):
            self.run["status"] = json.loads(json.dumps(outcome.status.document()))
            self.events += [event.reason for event in outcome.events]
            wrote = True
        for name in outcome.delete:
            self.delete_job(name)
            wrote = True
        self.gone = self.gone or outcome.gone
        self.writes += wrote
        return wrote

    def settle(self, rounds: int = 20) -> ResourceStatus:
        for _ in range(rounds):
            if not self.apply(self.outcome()):
                return self.status
        raise AssertionError("the operator does not come to rest")

    @property
    def status(self) -> ResourceStatus:
        return ResourceStatus.model_validate(self.run.get("status") or {})

    def record(self, name: str) -> Any:
        return next(record for record in self.status.stages if record.name == name)

    # --- the cluster's side

    def live_jobs(self) -> list[str]:
        return [name for name, job in self.jobs.items() if not self.condition(name, "Succeeded", "Failed")]

    def condition(self, job: str, *kinds: str) -> bool:
        conditions = self.jobs[job].get("status", {}).get("conditions", [])
        return any(each["type"] in kinds and each["status"] == "True" for each in conditions)

    def say(self, job: str, kind: str) -> None:
        status = self.jobs[job].setdefault("status", {})
        status.setdefault("startTime", stamp(self.now))
        status.setdefault("conditions", []).append(
            {"type": kind, "status": "True", "lastTransitionTime": stamp(self.now)}
        )
        if kind == "Succeeded":
            status["completionTime"] = stamp(self.now)

    def nodes(self, job: str) -> int:
        return int(self.jobs[job]["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"])

    def start(self, job: str, phase: str = "Running", **more: Any) -> None:
        self.pods[job] = [pod_of(self.jobs[job], index, self.now, phase, **more) for index in range(self.nodes(job))]

    def succeed(self, job: str, **result: Any) -> None:
        message = json.dumps({"code": 0, "seconds": 3.0, "result": {"key": f"key-{job}", **result}})
        pods = self.pods.get(job) or [pod_of(self.jobs[job], index, self.now) for index in range(self.nodes(job))]
        self.pods[job] = [ended(pod, 0, self.now, message=message) for pod in pods]
        self.say(job, "Succeeded")

    def fail(self, job: str, code: int = 1, **more: Any) -> None:
        """Its first pod has failed, and the others are told to end, as cleanPodPolicy asks."""
        pods = self.pods.get(job) or [pod_of(self.jobs[job], index, self.now) for index in range(self.nodes(job))]
        self.pods[job] = [ended(pods[0], code, self.now, **more), *self._told_to_end(pods[1:])]
        self.say(job, "Failed")

    def delete_job(self, job: str) -> None:
        """Its pods are told to end, and are there a while longer."""
        del self.jobs[job]
        self.pods[job] = self._told_to_end(self.pods.get(job, []))

    def _told_to_end(self, pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**pod, "metadata": {**pod["metadata"], "deletionTimestamp": stamp(self.now + 60)}} for pod in pods]

    def bury(self, job: str) -> None:
        """What was told to end has ended."""
        self.pods[job] = [pod for pod in self.pods.get(job, []) if "deletionTimestamp" not in pod["metadata"]]

    def suspend_job(self, job: str, suspended: bool) -> None:
        self.jobs[job]["spec"]["runPolicy"]["suspend"] = suspended
        status = self.jobs[job].setdefault("status", {})
        status["conditions"] = [{"type": "Suspended", "status": str(suspended), "lastTransitionTime": stamp(self.now)}]
        if suspended:
            self.pods[job] = []
        else:
            status["startTime"] = stamp(self.now)


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
