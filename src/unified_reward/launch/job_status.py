"""What a job is doing and, where it stands still, why: from the objects of the cluster to plain answers. No client.

The first reason found is told, from the nearest to the job outwards: how its ranks ended, what keeps a pod from starting,
why there is no pod, what a queue waits for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchx import specs
from torchx.specs import AppState, Role
from torchx.specs.api import NONE

from unified_reward.launch.causes import EXIT_STOPPED, Cause
from unified_reward.launch.pods import (
    MENDABLE,
    OOM_KILLED,
    PodFailure,
    Resource,
    conditions,
    container_state,
    container_status,
    failure,
    first_failure,
    memory_limit,
    name,
    node_index,
    one_line,
    phase,
    terminated,
    waiting,
)
from unified_reward.launch.pytorchjob import ATTEMPT, CONTAINER, PREFIX, QUEUE_LABEL, STAGE

CANCELLED_AT, CANCELLED_BY = f"{PREFIX}/cancelled-at", f"{PREFIX}/cancelled-by"
RETRIES = f"{PREFIX}/retries"  # preempted=20,memory=1,crashed=0: what the operator may start again
FACTORS = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3,
    **{unit: 1e3**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)},
}  # fmt: skip
UNSCHEDULED = "FailedScheduling"
FINAL = (("Failed", AppState.FAILED), ("Succeeded", AppState.SUCCEEDED))


@dataclass(frozen=True)
class Replica:
    """One node of a job. message: why it waits or how it ended. restarts: in place. failure: when it has failed."""

    index: int
    state: AppState
    host: str = ""
    message: str = ""
    restarts: int = 0
    failure: PodFailure | None = None


@dataclass(frozen=True)
class JobState:
    """message: one line, "" when there is nothing to say. first: the replica that failed first."""

    state: AppState
    message: str
    replicas: tuple[Replica, ...]
    attempt: int = 1
    first: Replica | None = None


def job_state(
    job: Resource, pods: Sequence[Resource], events: Sequence[Resource] = (), workload: Resource | None = None
) -> JobState:
    """job: a PyTorchJob. pods: those of the job. events: of the job and of its pods. workload: Kueue's, where it has one."""
    said = true_conditions(job)
    count = int(worker(job).get("replicas", 1))
    by_index = {node_index(pod): pod for pod in sorted(pods, key=_created)}
    ended = next((state for condition, state in FINAL if condition in said), None)
    if annotation(job, CANCELLED_AT):
        ended = ended or AppState.CANCELLED
    replicas = tuple(
        replica(by_index[index], events) if index in by_index else Replica(index, ended or AppState.PENDING)
        for index in range(count)
    )
    attempt, first = attempt_of(job), _first(replicas)
    if ended is not None:
        return JobState(ended, _ended_message(job, ended, first), replicas, attempt, first)
    if "Suspended" in said or is_suspended(job):
        return JobState(AppState.PENDING, _queued(job, workload), replicas, attempt)
    held = [one for one in replicas if one.state is AppState.PENDING and one.message]
    running = [one for one in replicas if one.state is AppState.RUNNING]
    message = "; ".join([*_told_once(held), *(_not_created(job, events) if len(by_index) < count else [])])
    if not by_index and not message:
        message = "waits for the training-operator to create its pods"
    elif message and running:
        message = f"{len(running)} of {count} pods run; {message}"
    if first and not message:
        message = f"worker-{first.index} failed: {first.message}"
    state = AppState.RUNNING if running else AppState.PENDING
    return JobState(state, message, replicas, attempt, first)


def replica(pod: Resource, events: Sequence[Resource] = ()) -> Replica:
    """The node that a pod is."""
    index, host = node_index(pod), str((pod.get("spec") or {}).get("nodeName", ""))
    restarts = int(container_status(pod).get("restartCount", 0))
    if phase(pod) == "Failed" or terminated(pod).get("exitCode"):
        found = failure(pod)
        return Replica(index, AppState.FAILED, host, _failed(pod, found), restarts, found)
    if phase(pod) == "Succeeded" or terminated(pod):
        return Replica(index, AppState.SUCCEEDED, host, restarts=restarts)
    if phase(pod) == "Running" and "running" in container_state(pod):
        return Replica(index, AppState.RUNNING, host, restarts=restarts)
    return Replica(index, AppState.PENDING, host, blocking_reason(pod, events), restarts)


def blocking_reason(pod: Resource, events: Sequence[Resource] = ()) -> str:
    """Why a pod does not run yet, "" when it is just starting."""
    found = waiting(pod)
    if found is None:
        later = [event for event in events if event.get("reason") != UNSCHEDULED]  # it has a node by now
        warning = _last_warning(later, name(pod))  # a volume that cannot be mounted, no network
        return f"{warning['reason']}: {one_line(warning.get('message'))}" if warning else ""
    last = (container_status(pod).get("lastState") or {}).get("terminated") or {}
    after = f" after exit code {last['exitCode']}" if found.reason == "CrashLoopBackOff" and last else ""
    look_at = f" ({MENDABLE[found.reason]})" if found.mendable else ""
    return f"{found.reason}{after}{look_at}: {found.message}".rstrip(": ")


def structured_error(one: Replica) -> str:
    """The JSON that `torchx status` shows of a replica that failed: code, time, and the traceback of its first failed rank."""
    found = one.failure
    if found is None:
        return str(NONE)
    text = one.message
    if found.ending and found.ending.tail and found.cause is not Cause.USER:
        rank = f"rank {found.ending.rank} " if found.ending.rank >= 0 else ""
        text = f"{one.message}\n{rank}said last:\n{found.ending.tail}"
    message = {"message": text, "errorCode": found.code or "", "extraInfo": {"timestamp": str(int(found.ended))}}
    return json.dumps({"message": message})


def role_of(job: Resource) -> Role:
    """The TorchX role that a job is, as submitted."""
    spec = worker(job)
    container = main_container(job)
    limits = (container.get("resources") or {}).get("limits") or {}
    gpu = sum(int(value) for what, value in limits.items() if "/" in what and str(value).isdigit())
    resource = specs.Resource(
        cpu=int(_quantity(limits.get("cpu"))), gpu=gpu, memMB=int(_quantity(limits.get("memory")) / 2**20)
    )
    return Role(
        name=role_name(job), image=container["image"], entrypoint=(container.get("command") or [""])[0],
        args=[*(container.get("command") or [])[1:], *(container.get("args") or [])],
        env={one["name"]: one["value"] for one in container.get("env") or [] if "value" in one},
        num_replicas=int(spec.get("replicas", 1)), resource=resource,
        min_replicas=(job["spec"].get("elasticPolicy") or {}).get("minReplicas"),
    )  # fmt: skip


def role_name(job: Resource) -> str:
    return str((job["metadata"].get("labels") or {}).get(STAGE) or "worker")


def worker(job: Resource) -> Resource:
    """The replica spec of our jobs; a master's where there is nothing else."""
    kinds: Resource = job["spec"].get("pytorchReplicaSpecs") or {}
    return kinds.get("Worker") or kinds.get("Master") or {}


def main_container(job: Resource) -> Resource:
    containers = worker(job).get("template", {}).get("spec", {}).get("containers") or [{"name": CONTAINER, "image": ""}]
    found: Resource = next((one for one in containers if one["name"] == CONTAINER), containers[0])
    return found


def annotation(resource: Resource, key: str) -> str:
    return str((resource["metadata"].get("annotations") or {}).get(key, ""))


def attempt_of(job: Resource) -> int:
    """1 where a job does not say."""
    text = str((job["metadata"].get("labels") or {}).get(ATTEMPT, "1"))
    return int(text) if text.isdigit() else 1


def queue_of(job: Resource) -> str:
    """Kueue's LocalQueue, "" without one."""
    return str((job["metadata"].get("labels") or {}).get(QUEUE_LABEL, ""))


def is_suspended(job: Resource) -> bool:
    return bool((job["spec"].get("runPolicy") or {}).get("suspend"))


def true_conditions(job: Resource) -> set[str]:
    return {each["type"] for each in conditions(job) if each["status"] == "True"}


def has_succeeded(job: Resource) -> bool:
    return "Succeeded" in true_conditions(job)


def has_ended(job: Resource) -> bool:
    return not true_conditions(job).isdisjoint({"Succeeded", "Failed"})


def nothing_follows(job: Resource) -> bool:
    """Whether nothing will be started for it any more: it has ended, or a person ended it."""
    return has_ended(job) or bool(annotation(job, CANCELLED_AT))


def _first(replicas: Sequence[Replica]) -> Replica | None:
    failures = [one.failure for one in replicas if one.failure is not None]
    return replicas[first_failure(failures).index] if failures else None


def _failed(pod: Resource, found: PodFailure) -> str:
    if found.reason == OOM_KILLED:
        return f"{OOM_KILLED}: it had {_limit(pod)}"
    if found.reason:
        return f"{found.reason}: {found.said}".rstrip(": ")
    if found.cause is Cause.MEMORY and not found.own_words:
        return f"killed (exit code {found.code}), most likely for memory: it had {_limit(pod)}"
    if found.cause is Cause.PREEMPTED:
        stopped = f"stopped by SIGTERM (exit code {found.code})"
        return stopped if found.code == EXIT_STOPPED else found.said or "it has not run"
    if found.cause in (Cause.USER, Cause.MEMORY) and found.said:
        return found.said
    return f"exit code {found.code}: {found.said}".rstrip(": ")


def _ended_message(job: Resource, ended: AppState, first: Replica | None) -> str:
    if ended is AppState.CANCELLED:
        who = annotation(job, CANCELLED_BY)
        return f"cancelled{f' by {who}' if who else ''} at {annotation(job, CANCELLED_AT)}"
    if ended is AppState.SUCCEEDED:
        return ""
    if first:
        return f"worker-{first.index} failed: {first.message}"
    said = next((each.get("message") for each in conditions(job) if each["type"] == "Failed"), "")
    return one_line(said) or "it failed and its pods are gone; see its log"


def _queued(job: Resource, workload: Resource | None) -> str:
    queue = queue_of(job)
    if not queue:
        return "suspended; it goes on when spec.runPolicy.suspend is false"
    if workload is None:
        return f"queued in {queue}: no Kueue Workload for it yet (does the queue exist, and does Kueue manage PyTorchJobs?)"
    for condition in conditions(workload):
        if condition["type"] in ("QuotaReserved", "Admitted") and condition["status"] == "False":
            return f"queued in {queue}: {one_line(condition.get('message'))}"
    return f"queued in {queue}: Kueue has not looked at it yet"


def _told_once(held: Sequence[Replica]) -> list[str]:
    """What keeps them, of those kept by the same the first."""
    first = {one.message: one.index for one in reversed(held)}
    return [f"worker-{index}: {message}" for message, index in sorted(first.items(), key=lambda each: each[1])][:3]


def _not_created(job: Resource, events: Sequence[Resource]) -> list[str]:
    """Why a job lacks pods, in a sentence or none."""
    warning = _last_warning(events, name(job))
    return [f"pods are not created: {one_line(warning.get('message'))}"] if warning else []


def _last_warning(events: Sequence[Resource], of: str) -> Resource | None:
    mine = [e for e in events if (e.get("involvedObject") or {}).get("name") == of and e.get("type") == "Warning"]
    return max(mine, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", default=None)


def _limit(pod: Resource) -> str:
    limit = memory_limit(pod)
    return f"{limit} of memory; ask for more (memory)" if limit else "no limit of its own: the node ran out of memory"


def _created(pod: Resource) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _quantity(text: object) -> float:
    """Kubernetes' numbers: 4, 500m, 64Gi, 1e3. 0 for none, and for what is none."""
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]*)?(?:[eE][-+]?[0-9]+)?)([numkKMGTPE]?i?)", str(text or "0"))
    if found is None or found[2] not in FACTORS:
        return 0.0
    return float(found[1]) * FACTORS[found[2]]
