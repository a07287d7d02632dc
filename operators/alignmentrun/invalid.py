"""Pure: a run whose document is not valid -> what to write. It may have been when it began, under another version of the operator:
then what runs goes on to its end, nothing new starts, and the run has ended when all that has. Cancelled, it ends at once."""

from __future__ import annotations

from collections.abc import Sequence

from operators.alignmentrun import records
from operators.alignmentrun.observe import Failure, Observed, observe
from operators.alignmentrun.outcome import Event, Outcome, Seen
from operators.alignmentrun.status import INVALID, generation, progress_of, retry_at, with_conditions
from unified_reward.launch.causes import Cause
from unified_reward.launch.job_status import has_ended, is_suspended
from unified_reward.launch.pods import Resource, is_going, name
from unified_reward.launch.times import rfc3339
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import ConditionType, Phase, ResourceStatus, StageRecord, bounded


def of_invalid(seen: Seen, before: ResourceStatus, why: str, now: float) -> Outcome:
    """why: what is wrong with the document, for a person."""
    cancel = (seen.run.get("spec") or {}).get("cancel") is True
    looks = {record.name: _look(seen, record, now) for record in before.stages if record.state is State.RUNNING}
    stages = [
        _after(record, *looks[record.name], seen, cancel=cancel, now=now) if record.name in looks else record
        for record in before.stages
    ]
    going_on = [job for job in seen.jobs if not has_ended(job)]
    phase = _phase(stages, alive=bool(going_on), cancel=cancel)
    if phase is Phase.CANCELLED:
        stages = [records.cancelled(record) for record in stages]
    succeeded = phase is Phase.SUCCEEDED
    status = before.model_copy(
        update={
            "observed_generation": generation(seen.run),
            "phase": phase,
            "stage": ", ".join(record.name for record in stages if record.state is State.RUNNING)[
                : records.LONGEST_WORD
            ],
            "progress": progress_of(stages) if stages else "",
            "reason": "" if succeeded else INVALID,
            "message": "" if succeeded else why[: records.LONGEST_LINE],
            "started": before.started or rfc3339(now),
            "ended": rfc3339(now) if phase.terminal else "",
            "retried": retry_at(seen.run) or before.retried,
            "stages": stages,
            "tracking": seen.tracking or before.tracking,
        }
    )
    return Outcome(
        status=bounded(with_conditions(status, before, seen, now)),
        delete=tuple(name(job) for job in going_on if not is_going(job) and (cancel or is_suspended(job))),
        events=_told(before, status, why),
        next_look=min((look.settles for _, look in looks.values() if look.settles), default=None),
    )


def _look(seen: Seen, record: StageRecord, now: float) -> tuple[Resource | None, Observed]:
    job = next((each for each in seen.jobs if name(each) == record.job), None)
    nodes = int(job["spec"].get("nodes", 1)) if job else 1
    return job, observe(job, seen.pods.get(record.job, ()), nodes, now, record.started)


def _after(
    record: StageRecord, job: Resource | None, look: Observed, seen: Seen, *, cancel: bool, now: float
) -> StageRecord:
    """Of a stage that ran. A failure is its last: a further attempt would be something new."""
    pods = seen.pods.get(record.job, ())
    if job is not None and look.succeeded:
        done = records.succeeded(records.charged(record, pods), job, look.ending, rfc3339(now))
        return record if look.telling else done
    failure = look.failure
    if job is None:
        failure = Failure(Cause.PREEMPTED, "JobDeleted", f"the job {record.job} was deleted")
    if failure is None or look.live:
        return record.model_copy(update={"progress": seen.progress.get(record.job) or record.progress})
    if job is None and cancel:
        return records.cancelled(record)
    spent = records.charged(record, pods) if job is not None else record
    return records.failed(spent, failure, rfc3339(now)).model_copy(update={"state": State.FAILED})


def _phase(stages: Sequence[StageRecord], *, alive: bool, cancel: bool) -> Phase:
    if alive or any(record.state is State.RUNNING for record in stages):
        return Phase.RUNNING
    if stages and all(record.state is State.DONE for record in stages):
        return Phase.SUCCEEDED
    return Phase.CANCELLED if stages and cancel else Phase.FAILED


def _told(before: ResourceStatus, status: ResourceStatus, why: str) -> tuple[Event, ...]:
    accepted = before.condition(ConditionType.ACCEPTED)
    if accepted is None or accepted.status != "False" or status.retried != before.retried:
        return (Event(INVALID, why[:950], True),)
    if status.phase.terminal and not before.phase.terminal:
        return (Event(f"Run{status.phase.value}", why[:950], status.phase is Phase.FAILED),)
    return ()
