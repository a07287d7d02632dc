"""Pure: what a pod says of itself, from the object that the API server has. The operator and `torchx status` read it here.

A pod is one node of a job. Of its containers the one that runs the stage counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unified_reward.errors import EXIT_AWAY
from unified_reward.launch.causes import Cause, cause_of
from unified_reward.launch.ending import Ending, read_ending
from unified_reward.launch.pytorchjob import CONTAINER, INDEX_LABEL
from unified_reward.launch.times import epoch_seconds

Resource = Mapping[str, Any]
OOM_KILLED, DEADLINE_EXCEEDED, DISRUPTED = "OOMKilled", "DeadlineExceeded", "Disrupted"
# status.reason of a pod that the cluster took away, or that a node would not take in
TAKEN_AWAY = {
    "Evicted",
    "Preempting",
    "NodeLost",
    "NodeShutdown",
    "Shutdown",
    "Terminated",
    "NodeAffinity",
    "UnexpectedAdmissionError",
}
STATUS_UNKNOWN = "ContainerStatusUnknown"
STORE_AWAY = "StoreUnavailable"  # by the process's own word, as its exit code has it
# What kubelet and containerd say of a container that they lost: its exit code (137, 255) is then made up.
LOST = {STATUS_UNKNOWN, "Unknown"}
STARTING = {"ContainerCreating", "PodInitializing"}  # a container that waits for one of these starts by itself
# One that waits for one of these waits for a person, who looks at this.
MENDABLE = {
    "ErrImagePull": "image pull",
    "ImagePullBackOff": "image pull",
    "InvalidImageName": "image name",
    "ErrImageNeverPull": "image is not on the node",
    "CreateContainerConfigError": "missing Secret or ConfigMap",
    "CreateContainerError": "its spec",
}


@dataclass(frozen=True)
class Waiting:
    """What keeps a pod from running."""

    reason: str
    message: str

    @property
    def mendable(self) -> bool:
        """Whether only a person can make it start."""
        return self.reason in MENDABLE


@dataclass(frozen=True)
class PodFailure:
    """Why a pod ended without a result.

    reason: the cluster's word for it, "" where only the exit code tells. said: one line of the cluster or of the process,
    "" when neither said any. code: None when no container ran. ended: seconds since the epoch, 0 = not known.
    """

    pod: str
    index: int
    cause: Cause
    reason: str = ""
    said: str = ""
    code: int | None = None
    ended: float = 0.0
    ending: Ending | None = None

    @property
    def own_words(self) -> str:
        """What the process said of its end, "" when it was killed."""
        return self.ending.error if self.ending else ""


def failure(pod: Resource) -> PodFailure:
    """Of a pod that has failed."""
    ended = terminated(pod)
    ending = read_ending(ended.get("message") or "")
    code = (ending.code if ending else 0) or ended.get("exitCode")
    when = (ending.ended if ending else 0.0) or epoch_seconds(ended.get("finishedAt"))
    cause, reason, said = _why(pod, ended, ending, code)
    return PodFailure(name(pod), node_index(pod), cause, reason, one_line(said), code, when, ending)


def first_failure(failures: Iterable[PodFailure]) -> PodFailure:
    """The one that the others followed: what nobody but the cluster can tell goes first, then a user's mistake, then what
    ended first. The others were stopped, or lost their peer."""
    return min(failures, key=lambda each: (_weight(each), each.ended, each.index))


def waiting(pod: Resource) -> Waiting | None:
    """What keeps it from running, None when it is just starting, or runs."""
    for condition in conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Waiting(condition.get("reason") or "Unschedulable", one_line(condition.get("message")))
    state = container_state(pod).get("waiting") or {}
    reason = state.get("reason") or ""
    return Waiting(reason, one_line(state.get("message"))) if reason and reason not in STARTING else None


def container_status(pod: Resource) -> Resource:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    found: Resource = next((each for each in statuses if each.get("name") == CONTAINER), statuses[0])
    return found


def container_state(pod: Resource) -> Resource:
    """`waiting`, `running` or `terminated`, and what is known of it."""
    return container_status(pod).get("state") or {}


def terminated(pod: Resource) -> Resource:
    return container_state(pod).get("terminated") or {}


def container(pod: Resource) -> Resource:
    """As asked for in the spec."""
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    found: Resource = next((each for each in containers if each.get("name") == CONTAINER), containers[0])
    return found


def memory_limit(pod: Resource) -> str:
    """As in 8Gi; "" without one."""
    return str(((container(pod).get("resources") or {}).get("limits") or {}).get("memory") or "")


def conditions(resource: Resource) -> list[Resource]:
    return (resource.get("status") or {}).get("conditions") or []


def phase(pod: Resource) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def node_index(pod: Resource) -> int:
    """Which node of the job it is."""
    return int((pod["metadata"].get("labels") or {}).get(INDEX_LABEL) or 0)


def is_going(resource: Resource) -> bool:
    return bool(resource["metadata"].get("deletionTimestamp"))


def name(resource: Resource) -> str:
    return str(resource["metadata"]["name"])


def last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _why(pod: Resource, ended: Resource, ending: Ending | None, code: int | None) -> tuple[Cause, str, str]:
    status = pod.get("status") or {}
    reason, message = status.get("reason") or "", status.get("message") or ""
    disruption = next((c for c in conditions(pod) if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)
    if ended.get("reason") == OOM_KILLED:
        return Cause.MEMORY, OOM_KILLED, ""
    if reason in TAKEN_AWAY:
        return Cause.PREEMPTED, reason, message
    if disruption is not None:
        by_whom = ": ".join(filter(None, (disruption.get("reason"), disruption.get("message"))))
        return Cause.PREEMPTED, reason or DISRUPTED, message or by_whom
    if reason == DEADLINE_EXCEEDED:
        return Cause.USER, reason, message
    if not ended:  # no node ran it to an end
        return Cause.PREEMPTED, reason, message
    if ended.get("reason") in LOST and ending is None:
        return Cause.PREEMPTED, STATUS_UNKNOWN, "its node lost track of it, as when it restarts"
    if ending is not None and ending.code == 0:  # killed while its log was archived
        return Cause.PREEMPTED, "", "it was killed when its work was done"
    said = ending.error if ending and ending.error else last_line(ended.get("message"))
    return cause_of(code), STORE_AWAY if code == EXIT_AWAY else "", said


def _weight(each: PodFailure) -> int:
    if each.reason:
        return 0 if each.cause is Cause.MEMORY else 1
    return 2 if each.cause is Cause.USER else 3
