"""Pure: a job and its pods, as the API server has them -> what is going on there, in one word and one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from unified_reward.launch.causes import Cause, cause_of
from unified_reward.launch.ending import Ending, read_ending
from unified_reward.launch.pytorchjob import CONTAINER, INDEX_LABEL, QUEUE_LABEL

Resource = Mapping[str, Any]
PREEMPTIONS = {
    "Evicted",
    "Preempting",
    "NodeLost",
    "NodeShutdown",
    "Shutdown",
    "Terminated",
    "NodeAffinity",
    "UnexpectedAdmissionError",
}
MENDABLE = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
}
UNSEEN = "NotTakenUp"
PULLS = ("ErrImagePull", "ImagePullBackOff")  # the kubelet says the one and the other by turns
UNREACHABLE_SECONDS = 120.0  # a pod that should have gone so long ago is on a node that answers nobody


@dataclass(frozen=True)
class Failure:
    cause: Cause
    reason: str
    message: str
    exit_code: int = -1


@dataclass(frozen=True)
class Observed:
    """One attempt.

    live: pods that may still run. settles: seconds since the epoch at which one of them counts as gone with its node.
    telling: node 0 has ended by what the job says and not yet by what is known of its pod. waiting: why it has not
    started, a word and a line; since when its pods could start, "" = not known. mendable: only a person can make it start.
    gathered: when the last pod of a whole gang was made, "" while they do not all run. lost: a pod has gone, or is
    going, while its peers need it. ending: of node 0, when it has one.
    """

    succeeded: bool = False
    failure: Failure | None = None
    live: int = 0
    settles: float | None = None
    telling: bool = False
    waiting: str = ""
    message: str = ""
    since: str = ""
    mendable: bool = False
    gathered: str = ""
    lost: str = ""
    ending: Ending | None = None


def observe(
    job: Resource | None, pods: Sequence[Resource], nodes: int, now: float = 0.0, gathered: str = ""
) -> Observed:
    """What the attempt of `nodes` nodes is doing. job: None when it is gone, with pods that may remain.

    gathered: what an earlier look said of it; a pod made later takes the place of one that was lost.
    """
    alive = [pod for pod in pods if phase(pod) in ("Pending", "Running", "Unknown")]
    overdue = [_seconds(pod["metadata"].get("deletionTimestamp", "")) + UNREACHABLE_SECONDS for pod in alive]
    live = [pod for pod, when in zip(alive, overdue, strict=True) if not _is_going(pod) or now < when]
    settles = min(
        (when for pod, when in zip(alive, overdue, strict=True) if _is_going(pod) and now < when), default=None
    )
    if job is None:
        return Observed(live=len(live), settles=settles)
    conditions = {each["type"] for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"}
    if "Succeeded" in conditions:
        telling = any(_is_first(pod) for pod in live)
        return Observed(succeeded=True, live=len(live), settles=settles, telling=telling, ending=_ending_of_first(pods))
    if "Failed" in conditions:
        return Observed(failure=failure_of(pods), live=len(live), settles=settles)
    waiting, message, mendable = _waiting(job, pods, nodes, suspended="Suspended" in conditions)
    return Observed(
        live=len(live), settles=settles, waiting=waiting, message=message, mendable=mendable,
        since=str(job.get("status", {}).get("startTime") or ""), gathered=gathered or _gathered(pods, nodes),
        lost=_lost(pods, nodes, gathered),
    )  # fmt: skip


def failure_of(pods: Sequence[Resource]) -> Failure:
    """Why a failed attempt failed: what nobody but the cluster can tell goes first, then a user's mistake, then the first
    that ended. The others were stopped, or lost their peer."""
    found = [said for said in (_pod_failure(pod) for pod in pods if phase(pod) == "Failed") if said is not None]
    if not found:
        return Failure(Cause.PREEMPTED, "PodsGone", "its pods are gone, and nothing is left that says why")
    return min(found, key=lambda said: (said.weight, said.ended)).failure


@dataclass(frozen=True)
class _Said:
    """Of one pod. weight: the lower, the nearer to the root. ended: seconds since the epoch."""

    weight: int
    ended: float
    failure: Failure


def _pod_failure(pod: Resource) -> _Said | None:
    status = pod.get("status", {})
    state = container_state(pod).get("terminated") or {}
    ending = read_ending(state.get("message", ""))
    ended = ending.ended if ending and ending.ended else _seconds(str(state.get("finishedAt") or ""))
    code = ending.code if ending else int(state.get("exitCode", 1 if state else -1))
    if state.get("reason") == "OOMKilled":
        message = (
            f"{name(pod)} took more than its {memory_limit(pod)} of memory: set the stage's memory, or lower its batch"
        )
        return _Said(0, ended, Failure(Cause.MEMORY, "OOMKilled", message, code))
    if status.get("reason") in PREEMPTIONS or _disrupted(pod):
        reason = status.get("reason") or "Disrupted"
        return _Said(
            1, ended, Failure(Cause.PREEMPTED, reason, f"{name(pod)}: {status.get('message') or reason}", code)
        )
    if status.get("reason") == "DeadlineExceeded":
        message = f"{name(pod)} ran longer than cluster.deadlineSeconds"
        return _Said(1, ended, Failure(Cause.USER, "DeadlineExceeded", message, code))
    if not state:
        return None
    cause = cause_of(code)
    line = ending.error if ending and ending.error else _last_line(state.get("message", "")) or f"exit code {code}"
    if cause is Cause.MEMORY:
        line = f"{line} (a process of {name(pod)} was killed; its memory limit is {memory_limit(pod)})"
    return _Said(2 if cause is Cause.USER else 3, ended, Failure(cause, cause.value, f"{name(pod)}: {line}", code))


def _waiting(job: Resource, pods: Sequence[Resource], nodes: int, *, suspended: bool) -> tuple[str, str, bool]:
    if suspended or job["spec"].get("runPolicy", {}).get("suspend"):
        if queue(job):
            return "Queued", f"the queue {queue(job)} has not admitted it yet", False
        return "Suspended", "it is suspended", False
    for pod in pods:
        state = container_state(pod).get("waiting") or {}
        if state.get("reason") in MENDABLE:
            return (
                state["reason"],
                f"{name(pod)}: {state.get('message') or state['reason']} (image {_image(pod)})",
                True,
            )
        for condition in pod.get("status", {}).get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return condition.get("reason", "Unschedulable"), f"{name(pod)}: {condition.get('message', '')}", False
    if not pods and not job.get("status", {}).get("conditions"):
        return UNSEEN, "the training-operator has not looked at it yet; does it run, and has it much to do?", False
    if len(pods) < nodes:
        return (
            "PodsMissing",
            f"{len(pods)} of {nodes} pods exist; a quota or a policy may refuse them (kubectl describe the job)",
            False,
        )
    return "", "", False


def _gathered(pods: Sequence[Resource], nodes: int) -> str:
    """Before all of a gang run, a pod may still be made again: the others wait for it at the rendezvous."""
    if nodes == 1 or len(pods) < nodes or any(phase(pod) != "Running" or _is_going(pod) for pod in pods):
        return ""
    return max(str(pod["metadata"]["creationTimestamp"]) for pod in pods)


def _lost(pods: Sequence[Resource], nodes: int, gathered: str) -> str:
    """The ranks of a gang that has once run cannot meet a second time. Where one failed, the job's own end tells more."""
    if nodes == 1 or not gathered or any(phase(pod) == "Failed" for pod in pods):
        return ""
    for pod in pods:
        if _is_going(pod) and phase(pod) != "Succeeded":
            return f"{name(pod)} was deleted or evicted"
        if str(pod["metadata"]["creationTimestamp"]) > gathered:
            return f"{name(pod)} was lost and made again"
    return f"{nodes - len(pods)} of {nodes} pods have gone" if len(pods) < nodes else ""


def _ending_of_first(pods: Sequence[Resource]) -> Ending | None:
    for pod in pods:
        if _is_first(pod):
            return read_ending((container_state(pod).get("terminated") or {}).get("message", ""))
    return None


def _is_first(pod: Resource) -> bool:
    return bool(pod["metadata"].get("labels", {}).get(INDEX_LABEL) == "0")


def _is_going(pod: Resource) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def container_state(pod: Resource) -> dict[str, Any]:
    """Of the container `pytorch`."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    found = next((each for each in statuses if each.get("name") == CONTAINER), statuses[0])
    state: dict[str, Any] = found.get("state") or {}
    return state


def phase(pod: Resource) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def name(resource: Resource) -> str:
    return str(resource["metadata"]["name"])


def queue(job: Resource) -> str:
    return str(job["metadata"].get("labels", {}).get(QUEUE_LABEL, ""))


def memory_limit(pod: Resource) -> str:
    return str(pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "unlimited"))


def _image(pod: Resource) -> str:
    return str(pod["spec"]["containers"][0].get("image", ""))


def _disrupted(pod: Resource) -> bool:
    return any(
        each["type"] == "DisruptionTarget" and each["status"] == "True"
        for each in pod.get("status", {}).get("conditions", [])
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:900] if lines else ""


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0
