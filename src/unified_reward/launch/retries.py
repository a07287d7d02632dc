"""Pure: whether a job that has failed is tried again. The operator makes further attempts; here is what others may expect of it.

Nobody who asks can see the operator, and it may not run. So an attempt is expected for a while after the last one failed; when
none has come by then, the failure stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torchx.specs import AppState

from unified_reward.launch.causes import Cause, read_counts
from unified_reward.launch.job_status import CANCELLED_AT, RETRIES, JobState, annotation, attempt_of
from unified_reward.launch.pods import Resource, conditions, phase
from unified_reward.launch.pytorchjob import PREFIX
from unified_reward.launch.times import epoch_seconds

FAILURES = f"{PREFIX}/failures"  # of the attempts before, by cause, written as RETRIES is
LOST = f"{PREFIX}/lost"  # a pod of it was lost while the others needed it; it was suspended for that
BACKOFF_SECONDS, LONGEST_BACKOFF = 5.0, 64  # after the first failure, doubled each time; at most so many times as long
UNREACHABLE_SECONDS = 120.0  # a pod that should have gone so long ago is on a node that answers nobody
MARGIN_SECONDS = 90.0  # the operator may be starting again


def settled(state: JobState, job: Resource, pods: Sequence[Resource], now: float) -> JobState:
    """The job's state in view of what follows: pending while a further attempt may come. now: seconds since the epoch."""
    lost = annotation(job, LOST)
    if annotation(job, CANCELLED_AT) or not (
        state.state is AppState.FAILED or (lost and state.state is AppState.PENDING)
    ):
        return state
    failure = state.first.failure if state.first and not lost else None
    message = lost or state.message
    if not is_retried(job, failure.cause if failure else Cause.PREEMPTED):
        return replace(state, state=AppState.FAILED, message=message)
    if now < expected_until(job, pods):
        return replace(state, state=AppState.PENDING, message=f"{message}; attempt {attempt_of(job) + 1} follows")
    return replace(state, state=AppState.FAILED, message=f"{message}; no operator has tried it again")


def is_retried(job: Resource, cause: Cause) -> bool:
    """Whether it may be, after a failure of this cause on top of those before."""
    try:
        limits, counts = read_counts(annotation(job, RETRIES)), _failures(job)
    except (ValueError, KeyError):
        return False
    counts[cause] = counts.get(cause, 0) + 1
    return not job["metadata"].get("deletionTimestamp") and all(
        count <= limits.get(each, 0) for each, count in counts.items()
    )


def expected_until(job: Resource, pods: Sequence[Resource]) -> float:
    """Until when a further attempt may come, seconds since the epoch: it waits for the pods and for its backoff."""
    ends = [
        epoch_seconds(each.get("lastTransitionTime"))
        for each in conditions(job)
        if each["type"] in ("Failed", "Suspended")
    ]
    going = [
        epoch_seconds(pod["metadata"].get("deletionTimestamp")) + UNREACHABLE_SECONDS
        for pod in pods if phase(pod) not in ("Succeeded", "Failed")
    ]  # fmt: skip
    backoff: float = BACKOFF_SECONDS * min(2 ** sum(_failures(job).values()), LONGEST_BACKOFF)
    return max(*ends, *going, 0.0) + backoff + MARGIN_SECONDS


def _failures(job: Mapping[str, object]) -> dict[Cause, int]:
    return read_counts(annotation(job, FAILURES))
