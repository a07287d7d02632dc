"""Pure: a job and its pods, as the API server has them -> what is going on there, in one word and one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unified_reward.launch.causes import Cause
from unified_reward.launch.ending import Ending, read_ending
from unified_reward.launch.job_status import is_suspended, queue_of, true_conditions
from unified_reward.launch.pods import (
    DEADLINE_EXCEEDED,
    OOM_KILLED,
    PodFailure,
    Resource,
    container,
    first_failure,
    is_going,
    memory_limit,
    name,
    node_index,
    phase,
    terminated,
    waiting,
)
from unified_reward.launch.pods import failure as pod_failure
from unified_reward.launch.retries import UNREACHABLE_SECONDS
from unified_reward.launch.times import epoch_seconds

UNSEEN = "NotTakenUp"
PULLS = ("ErrImagePull", "ImagePullBackOff")  # the kubelet says the one and the other by turns


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
    gathered: when the last pod of a whole gang was made (of an elastic one: of the fewest it takes), "" while they do not all
    run. lost: a pod has gone, or is
    going, while its peers need it. has_run: as many nodes as it takes have run since it was started; a pod that is
    missing then was lost. ending: of node 0, when it has one.
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
    has_run: bool = False
    ending: Ending | None = None


def observe(
    job: Resource | None, pods: Sequence[Resource], nodes: int, now: float = 0.0, gathered: str = "", fewest: int = 0
) -> Observed:
    """What the attempt of `nodes` nodes is doing. job: None when it is gone, with pods that may remain.

    gathered: what an earlier look said of it; a pod made later takes the place of one that was lost. fewest: nodes with which
    an elastic one goes on, 0 = it takes all.
    """
    alive = [pod for pod in pods if phase(pod) in ("Pending", "Running", "Unknown")]
    overdue = [epoch_seconds(pod["metadata"].get("deletionTimestamp")) + UNREACHABLE_SECONDS for pod in alive]
    live = [pod for pod, when in zip(alive, overdue, strict=True) if not is_going(pod) or now < when]
    settles = min(
        (when for pod, when in zip(alive, overdue, strict=True) if is_going(pod) and now < when), default=None
    )
    if job is None:
        return Observed(live=len(live), settles=settles)
    conditions = true_conditions(job)
    if "Succeeded" in conditions:
        telling = any(node_index(pod) == 0 for pod in live)
        return Observed(succeeded=True, live=len(live), settles=settles, telling=telling, ending=_ending_of_first(pods))
    if "Failed" in conditions:
        return Observed(failure=failure_of(pods), live=len(live), settles=settles)
    waiting, message, mendable = _waiting(job, pods, nodes, suspended="Suspended" in conditions or is_suspended(job))
    whole = gathered or _gathered(pods, nodes, fewest or nodes)
    return Observed(
        live=len(live), settles=settles, waiting=waiting, message=message, mendable=mendable,
        since=str(job.get("status", {}).get("startTime") or ""), gathered=whole, lost=_lost(pods, nodes, gathered),
        has_run=bool(whole) if nodes > 1 else "Running" in conditions,
    )  # fmt: skip


def failure_of(pods: Sequence[Resource]) -> Failure:
    """Why a failed attempt failed."""
    failed = {name(pod): pod for pod in pods if phase(pod) == "Failed"}
    if not failed:
        return Failure(Cause.PREEMPTED, "PodsGone", "its pods are gone, and nothing is left that says why")
    found = first_failure(pod_failure(pod) for pod in failed.values())
    code = -1 if found.code is None else found.code
    return Failure(found.cause, found.reason or found.cause.value, _told(found, memory_limit(failed[found.pod])), code)


def _told(found: PodFailure, limit: str) -> str:
    if found.reason == OOM_KILLED and limit:
        return f"{found.pod} took more than its {limit} of memory: set the stage's memory, or lower its batch"
    if found.reason == OOM_KILLED:
        return f"{found.pod} has no memory limit, and its node ran out of memory"
    if found.reason == DEADLINE_EXCEEDED:
        return f"{found.pod} ran longer than cluster.deadlineSeconds"
    line = found.said[:900] or found.reason or (f"exit code {found.code}" if found.code else "it has not run")
    if found.cause is Cause.MEMORY and not found.own_words:
        line = f"{line} (a process of {found.pod} was killed; its memory limit is {limit or 'its node'})"
    return f"{found.pod}: {line}"


def _waiting(job: Resource, pods: Sequence[Resource], nodes: int, *, suspended: bool) -> tuple[str, str, bool]:
    if suspended:
        queue = queue_of(job)
        if queue:
            return "Queued", f"the queue {queue} has not admitted it yet", False
        return "Suspended", "it is suspended", False
    for pod in pods:
        held = waiting(pod)
        if held is not None:
            image = f" (image {container(pod).get('image', '')})" if held.mendable else ""
            return held.reason, f"{name(pod)}: {held.message or held.reason}{image}", held.mendable
    if not pods and not job.get("status", {}).get("conditions"):
        return UNSEEN, "the training-operator has not looked at it yet; does it run, and has it much to do?", False
    if len(pods) < nodes:
        return (
            "PodsMissing",
            f"{len(pods)} of {nodes} pods exist; a quota or a policy may refuse them (kubectl describe the job)",
            False,
        )
    return "", "", False


def _gathered(pods: Sequence[Resource], nodes: int, fewest: int) -> str:
    """Before all of a gang run, a pod may still be made again: the others wait for it at the rendezvous."""
    running = [pod for pod in pods if phase(pod) == "Running" and not is_going(pod)]
    if nodes == 1 or len(running) < fewest or (fewest == nodes and len(running) < len(pods)):
        return ""
    return max(str(pod["metadata"]["creationTimestamp"]) for pod in running)


def _lost(pods: Sequence[Resource], nodes: int, gathered: str) -> str:
    """The ranks of a gang that has once run cannot meet a second time. Where one failed, the job's own end tells more."""
    if nodes == 1 or not gathered or any(phase(pod) == "Failed" for pod in pods):
        return ""
    for pod in pods:
        if is_going(pod) and phase(pod) != "Succeeded":
            return f"{name(pod)} was deleted or evicted"
        if str(pod["metadata"]["creationTimestamp"]) > gathered:
            return f"{name(pod)} was lost and made again"
    return f"{nodes - len(pods)} of {nodes} pods have gone" if len(pods) < nodes else ""


def _ending_of_first(pods: Sequence[Resource]) -> Ending | None:
    first = next((pod for pod in pods if node_index(pod) == 0), None)
    return None if first is None else read_ending(terminated(first).get("message") or "")
