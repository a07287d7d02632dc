"""Pure: a job and its pods, as the API server has them -> what is going on there, in one word and one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unified_reward.launch.ending import Ending, read_ending
from unified_reward.pipeline.decide import Cause, cause_of

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
RECREATED_AFTER = 1  # seconds: the clock of the API server has whole ones


@dataclass(frozen=True)
class Failure:
    cause: Cause
    reason: str
    message: str
    exit_code: int = -1


@dataclass(frozen=True)
class Observed:
    """One attempt. live: pods that may still run. waiting: why it has not started, a word and a line. mendable: only a
    person can make it start. ending: of node 0, when it has one. lost: a pod has gone or is going while its peers need it."""

    succeeded: bool = False
    failure: Failure | None = None
    live: int = 0
    running: bool = False
    waiting: str = ""
    message: str = ""
    mendable: bool = False
    lost: str = ""
    ending: Ending | None = None
    pods: tuple[str, ...] = field(default=())


def observe(job: Resource | None, pods: Sequence[Resource], nodes: int) -> Observed:
    """What the attempt of `nodes` nodes is doing. job: None when it is gone, with pods that may remain."""
    live = [pod for pod in pods if phase(pod) in ("Pending", "Running", "Unknown")]
    names = tuple(name(pod) for pod in live)
    if job is None:
        return Observed(live=len(live), pods=names)
    conditions = {each["type"] for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"}
    if "Succeeded" in conditions:
        return Observed(succeeded=True, live=len(live), ending=_ending_of_first(pods), pods=names)
    if "Failed" in conditions:
        return Observed(failure=failure_of(pods), live=len(live), pods=names)
    lost = _lost(pods, nodes)
    waiting, message, mendable = _waiting(job, pods, nodes)
    running = len([pod for pod in pods if phase(pod) == "Running"]) >= nodes
    return Observed(
        live=len(live), running=running, waiting=waiting, message=message, mendable=mendable, lost=lost, pods=names
    )


def failure_of(pods: Sequence[Resource]) -> Failure:
    """Why a failed attempt failed: what came from outside goes before what its peers then said of it."""
    found = sorted((_pod_failure(pod) for pod in pods if phase(pod) == "Failed"), key=lambda each: each[0])
    failures = [failure for _, failure in found if failure is not None]
    for wanted in (Cause.MEMORY, Cause.PREEMPTED, Cause.USER):
        for failure in failures:
            if failure.cause is wanted:
                return failure
    if failures:
        return failures[0]
    return Failure(Cause.PREEMPTED, "PodsGone", "its pods are gone, and nothing is left that says why")


def _pod_failure(pod: Resource) -> tuple[str, Failure | None]:
    status = pod.get("status", {})
    state = container_state(pod).get("terminated") or {}
    finished = str(state.get("finishedAt", "~"))
    if status.get("reason") in PREEMPTIONS or _disrupted(pod):
        reason = status.get("reason") or "Disrupted"
        return finished, Failure(
            Cause.PREEMPTED, reason, f"{name(pod)}: {status.get('message') or reason}", state.get("exitCode", -1)
        )
    if status.get("reason") == "DeadlineExceeded":
        return finished, Failure(Cause.USER, "DeadlineExceeded", f"{name(pod)} ran longer than cluster.deadlineSeconds")
    if state.get("reason") == "OOMKilled":
        return finished, Failure(
            Cause.MEMORY,
            "OOMKilled",
            f"{name(pod)} took more than its {memory_limit(pod)} of memory: set the stage's memory, or lower its batch",
            state.get("exitCode", 137),
        )
    if not state:
        return finished, None
    ending = read_ending(state.get("message", ""))
    code = ending.code if ending else int(state.get("exitCode", 1))
    cause = cause_of(code)
    line = ending.error if ending and ending.error else _last_line(state.get("message", "")) or f"exit code {code}"
    if cause is Cause.MEMORY:
        line = f"{line} (a process of {name(pod)} was killed; its memory limit is {memory_limit(pod)})"
    return finished, Failure(cause, cause.value, f"{name(pod)}: {line}", code)


def _waiting(job: Resource, pods: Sequence[Resource], nodes: int) -> tuple[str, str, bool]:
    if job["spec"].get("runPolicy", {}).get("suspend"):
        return (
            ("Queued", "Kueue has not admitted it yet", False)
            if queue(job)
            else ("Suspended", "it is suspended", False)
        )
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
    if len(pods) < nodes and any(each.get("type") == "Created" for each in job.get("status", {}).get("conditions", [])):
        return (
            "PodsMissing",
            f"{len(pods)} of {nodes} pods exist; a quota or a policy may refuse them (kubectl describe the job)",
            False,
        )
    return "", "", False


def _lost(pods: Sequence[Resource], nodes: int) -> str:
    """A pod that is going, or that was made again while a peer already ran: the ranks of a gang cannot meet a second time."""
    if nodes == 1:
        return ""
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") and phase(pod) != "Succeeded":
            return f"{name(pod)} was deleted or evicted"
    began = [container_state(pod).get("running", {}).get("startedAt", "") for pod in pods]
    first = min((each for each in began if each), default="")
    for pod in pods:
        if first and pod["metadata"]["creationTimestamp"] > first:
            return f"{name(pod)} was lost and made again"
    return ""


def _ending_of_first(pods: Sequence[Resource]) -> Ending | None:
    for pod in pods:
        if pod["metadata"].get("labels", {}).get("training.kubeflow.org/replica-index") == "0":
            return read_ending((container_state(pod).get("terminated") or {}).get("message", ""))
    return None


def container_state(pod: Resource) -> dict[str, Any]:
    """Of the container `pytorch`."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    state: dict[str, Any] = statuses[0].get("state") or {}
    return state


def phase(pod: Resource) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def name(resource: Resource) -> str:
    return str(resource["metadata"]["name"])


def queue(job: Resource) -> str:
    return str(job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name", ""))


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
