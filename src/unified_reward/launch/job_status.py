"""What a job is doing and, where it stands still, why: from the objects of the cluster to plain answers. No client.

The first reason found is told, from the nearest to the job outwards: how its ranks ended, what keeps a pod from starting,
why there is no pod, what a queue waits for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torchx.specs import AppState, Resource, Role
from torchx.specs.api import NONE

from unified_reward.launch.ending import Ending, read_ending
from unified_reward.launch.pytorchjob import ATTEMPT, CONTAINER, INDEX_LABEL, QUEUE_LABEL, STAGE

Object = Mapping[str, Any]
CANCELLED_AT, CANCELLED_BY = "unifiedreward.dev/cancelled-at", "unifiedreward.dev/cancelled-by"
RETRIES = "unifiedreward.dev/retries"  # preempted=20,memory=1,crashed=0: what the operator may start again
USER, MEMORY, PREEMPTED, CRASHED = "user", "memory", "preempted", "crashed"
# A container that waits for one of these starts by itself; all others need someone.
STARTING = {"ContainerCreating", "PodInitializing"}
ADVICE = {
    "ErrImagePull": "image pull", "ImagePullBackOff": "image pull", "InvalidImageName": "image name",
    "ErrImageNeverPull": "image is not on the node", "CreateContainerConfigError": "missing Secret or ConfigMap",
}  # fmt: skip


@dataclass(frozen=True)
class Replica:
    """One node of a job. message: why it waits or how it ended. ending: what its entry left. restarts: in place."""

    index: int
    state: AppState
    host: str = ""
    message: str = ""
    cause: str = ""
    code: int | None = None
    ended: float = 0.0
    ending: Ending | None = None
    restarts: int = 0


@dataclass(frozen=True)
class JobState:
    """message: one line, "" when there is nothing to say. first: the replica that failed first."""

    state: AppState
    message: str
    replicas: tuple[Replica, ...]
    attempt: int = 1
    cause: str = ""
    first: Replica | None = None


def job_state(
    job: Object, pods: Sequence[Object], events: Sequence[Object] = (), workload: Object | None = None
) -> JobState:
    """job: a PyTorchJob. pods: those of the job. events: of the job and of its pods. workload: Kueue's, where it has one."""
    conditions = _conditions(job)
    count = int(worker(job).get("replicas", 1))
    by_index = {index_of(pod): pod for pod in sorted(pods, key=_created)}
    ended = next((state for name, state in _FINAL if conditions.get(name)), None)
    if annotation(job, CANCELLED_AT):
        ended = ended or AppState.CANCELLED
    replicas = tuple(
        replica(by_index[index], events) if index in by_index else Replica(index, ended or AppState.PENDING)
        for index in range(count)
    )
    attempt = int((job["metadata"].get("labels") or {}).get(ATTEMPT, "1"))
    first = first_failed(replicas)
    cause = first.cause if first else ""
    if ended is not None:
        message = _ended_message(job, ended, first)
        return JobState(ended, message, replicas, attempt, cause if ended is AppState.FAILED else "", first)
    if conditions.get("Suspended") or (job["spec"].get("runPolicy") or {}).get("suspend"):
        return JobState(AppState.PENDING, _queued(job, workload), replicas, attempt)
    waiting = [one for one in replicas if one.state is AppState.PENDING and one.message]
    running = [one for one in replicas if one.state is AppState.RUNNING]
    message = f"worker-{waiting[0].index}: {waiting[0].message}" if waiting else ""
    if not by_index:
        message = _no_pods(job, events)
    elif message and running:
        message = f"{len(running)} of {count} pods run; {message}"
    if first and not message:
        message = f"worker-{first.index} failed: {first.message}"
    state = AppState.RUNNING if running else AppState.PENDING
    return JobState(state, message, replicas, attempt, cause, first)


def replica(pod: Object, events: Sequence[Object] = ()) -> Replica:
    """The node that a pod is."""
    status = pod.get("status") or {}
    index, host, phase = index_of(pod), (pod.get("spec") or {}).get("nodeName", ""), status.get("phase", "Pending")
    container = container_status(pod)
    restarts = int(container.get("restartCount", 0))
    terminated = (container.get("state") or {}).get("terminated") or {}
    if phase == "Succeeded":
        ending = read_ending(terminated.get("message", ""))
        return Replica(
            index, AppState.SUCCEEDED, host, "", "", 0, _seconds(terminated.get("finishedAt")), ending, restarts
        )
    if phase == "Failed" or terminated:
        return _failed(pod, terminated, index, host, restarts)
    if phase == "Running" and "running" in (container.get("state") or {}):
        return Replica(index, AppState.RUNNING, host, restarts=restarts)
    return Replica(index, AppState.PENDING, host, blocking_reason(pod, events), restarts=restarts)


def blocking_reason(pod: Object, events: Sequence[Object] = ()) -> str:
    """Why a pod does not run yet, "" when it is just starting."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {_line(condition.get('message', ''))}"
    waiting = (container_status(pod).get("state") or {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason and reason not in STARTING:
        last = (container_status(pod).get("lastState") or {}).get("terminated") or {}
        after = f" after exit code {last['exitCode']}" if reason == "CrashLoopBackOff" and last else ""
        said = ADVICE.get(reason)
        return f"{reason}{after}{f' ({said})' if said else ''}: {_line(waiting.get('message', ''))}".rstrip(": ")
    warning = _last_warning(events, pod["metadata"]["name"])  # a volume that cannot be mounted, no network
    return f"{warning['reason']}: {_line(warning.get('message', ''))}" if warning else ""


def first_failed(replicas: Sequence[Replica]) -> Replica | None:
    """The one whose failure the others followed: the earliest that was not just stopped."""
    failed = [one for one in replicas if one.state is AppState.FAILED]
    return min(failed, key=lambda one: (one.cause == PREEMPTED and one.code == 143, one.ended, one.index), default=None)


def structured_error(one: Replica) -> str:
    """The JSON that `torchx status` shows of a replica that failed: code, time, and the traceback of its first failed rank."""
    if one.state is not AppState.FAILED:
        return str(NONE)
    text = one.message
    if one.ending and one.ending.tail and one.cause != USER:
        rank = f"rank {one.ending.rank} " if one.ending.rank >= 0 else ""
        text = f"{one.message}\n{rank}said last:\n{one.ending.tail}"
    message = {"message": text, "errorCode": one.code or "", "extraInfo": {"timestamp": str(int(one.ended))}}
    return json.dumps({"message": message})


def role_of(job: Object) -> Role:
    """The TorchX role that a job is, as submitted."""
    spec = worker(job)
    container = main_container(job)
    limits = (container.get("resources") or {}).get("limits") or {}
    gpu = sum(int(value) for name, value in limits.items() if "/" in name and str(value).isdigit())
    resource = Resource(cpu=int(float(limits.get("cpu", 0))), gpu=gpu, memMB=_mebibytes(str(limits.get("memory", "0"))))
    return Role(
        name=role_name(job), image=container["image"], entrypoint=(container.get("command") or [""])[0],
        args=[*(container.get("command") or [])[1:], *(container.get("args") or [])],
        env={one["name"]: one["value"] for one in container.get("env") or [] if "value" in one},
        num_replicas=int(spec.get("replicas", 1)), resource=resource,
        min_replicas=(job["spec"].get("elasticPolicy") or {}).get("minReplicas"),
    )  # fmt: skip


def role_name(job: Object) -> str:
    return str((job["metadata"].get("labels") or {}).get(STAGE) or "worker")


def worker(job: Object) -> Object:
    """The replica spec of our jobs; a master's where there is nothing else."""
    specs: Object = job["spec"].get("pytorchReplicaSpecs") or {}
    return specs.get("Worker") or specs.get("Master") or {}


def main_container(job: Object) -> Object:
    containers = worker(job).get("template", {}).get("spec", {}).get("containers") or [{"name": CONTAINER, "image": ""}]
    found: Object = next((one for one in containers if one["name"] == CONTAINER), containers[0])
    return found


def annotation(resource: Object, name: str) -> str:
    return str((resource["metadata"].get("annotations") or {}).get(name, ""))


def container_status(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found: Object = next((one for one in statuses if one["name"] == CONTAINER), statuses[0] if statuses else {})
    return found


def index_of(pod: Object) -> int:
    return int((pod["metadata"].get("labels") or {}).get(INDEX_LABEL, "0"))


def is_ended(job: Object) -> bool:
    """Whether nothing will be started for it any more."""
    conditions = _conditions(job)
    return bool(conditions.get("Succeeded") or conditions.get("Failed") or annotation(job, CANCELLED_AT))


_FINAL = (("Failed", AppState.FAILED), ("Succeeded", AppState.SUCCEEDED))


def _failed(pod: Object, terminated: Object, index: int, host: str, restarts: int) -> Replica:
    status = pod.get("status") or {}
    ending = read_ending(terminated.get("message", ""))
    code = terminated.get("exitCode")
    when = _seconds(terminated.get("finishedAt")) or (ending.ended if ending else 0.0)
    disrupted = next(
        (c for c in status.get("conditions") or [] if c["type"] == "DisruptionTarget" and c["status"] == "True"), None
    )
    if terminated.get("reason") == "OOMKilled" or code == 137:
        out = terminated.get("reason") == "OOMKilled"
        cause, message = (
            MEMORY,
            ("OOMKilled: it had " if out else "killed (exit code 137), most likely for memory: it had ") + _limit(pod),
        )
        if disrupted or status.get("reason") == "Evicted":
            cause, message = PREEMPTED, _stopped(status, disrupted)
    elif disrupted or status.get("reason") in (
        "Evicted",
        "Preempting",
        "NodeLost",
        "Shutdown",
        "NodeShutdown",
        "Terminated",
    ):
        cause, message = PREEMPTED, _stopped(status, disrupted)
    elif code == 143:
        cause, message = PREEMPTED, "stopped by SIGTERM (exit code 143)"
    elif code == 2:
        cause, message = USER, ending.error if ending else _last_line(terminated)
    else:
        said = ending.error if ending else _last_line(terminated) or _line(status.get("message", ""))
        cause, message = CRASHED, f"exit code {code}: {said}" if code is not None else said or "its pod failed"
    return Replica(index, AppState.FAILED, host, message, cause, code, when, ending, restarts)


def _stopped(status: Object, disrupted: Object | None) -> str:
    reason = status.get("reason") or (disrupted or {}).get("reason", "")
    said = _line(status.get("message") or (disrupted or {}).get("message", ""))
    return f"{reason}: {said}".rstrip(": ")


def _ended_message(job: Object, ended: AppState, first: Replica | None) -> str:
    if ended is AppState.CANCELLED:
        who = annotation(job, CANCELLED_BY)
        return f"cancelled{f' by {who}' if who else ''} at {annotation(job, CANCELLED_AT)}"
    if ended is AppState.SUCCEEDED:
        return ""
    if first:
        return f"worker-{first.index} failed: {first.message}"
    conditions = (job.get("status") or {}).get("conditions") or []
    said = next((c.get("message", "") for c in conditions if c["type"] == "Failed"), "")
    return _line(said) or "it failed and its pods are gone; see its log"


def _queued(job: Object, workload: Object | None) -> str:
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL, "")
    if not queue:
        return "suspended; it goes on when spec.runPolicy.suspend is false"
    if workload is None:
        return f"queued in {queue}: no Kueue Workload for it yet (does the queue exist, and does Kueue manage PyTorchJobs?)"
    for condition in (workload.get("status") or {}).get("conditions") or []:
        if condition["type"] in ("QuotaReserved", "Admitted") and condition["status"] == "False":
            return f"queued in {queue}: {_line(condition.get('message', ''))}"
    return f"queued in {queue}: Kueue has not looked at it yet"


def _no_pods(job: Object, events: Sequence[Object]) -> str:
    warning = _last_warning(events, job["metadata"]["name"])
    if warning:
        return f"pods are not created: {_line(warning.get('message', ''))}"
    return "waits for the training-operator to create its pods"


def _last_warning(events: Sequence[Object], name: str) -> Object | None:
    mine = [e for e in events if (e.get("involvedObject") or {}).get("name") == name and e.get("type") == "Warning"]
    return max(mine, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "", default=None)


def _conditions(job: Object) -> dict[str, bool]:
    return {c["type"]: c["status"] == "True" for c in (job.get("status") or {}).get("conditions") or []}


def _limit(pod: Object) -> str:
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    one = next((c for c in containers if c.get("name") == CONTAINER), containers[0])
    limit = ((one.get("resources") or {}).get("limits") or {}).get("memory", "")
    return f"{limit} of memory; ask for more (memory)" if limit else "no limit of its own: the node ran out of memory"


def _last_line(terminated: Object) -> str:
    lines = [line.strip() for line in str(terminated.get("message", "")).splitlines() if line.strip()]
    return lines[-1] if lines else str(terminated.get("reason", ""))


def _line(text: str) -> str:
    return " ".join(str(text).split())


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else 0.0


def _mebibytes(quantity: str) -> int:
    factors = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024, "Ti": 1024 * 1024}
    number, unit = (quantity[:-2], quantity[-2:]) if quantity[-2:] in factors else (quantity, "")
    return int(float(number) * factors.get(unit, 1 / (1024 * 1024)))
