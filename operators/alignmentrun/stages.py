"""Pure: what has happened to a stage since it was last looked at -> its record as it stands now."""

from __future__ import annotations

from collections.abc import Mapping

from operators.alignmentrun import records
from operators.alignmentrun.observe import PULLS, UNSEEN, Failure, Observed, observe
from operators.alignmentrun.outcome import Turn
from unified_reward.config.graph import Node
from unified_reward.launch.causes import Cause
from unified_reward.launch.job_status import CANCELLED_AT, CANCELLED_BY, annotation, is_suspended, queue_of
from unified_reward.launch.pods import Resource, is_going, name
from unified_reward.launch.times import epoch_seconds
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import StageRecord, Stopped

# What a job waits for is told when it still waits then: most pods start at once, and hundreds of new jobs keep the
# training-operator busy for minutes.
SETTLING_SECONDS, UNSEEN_SECONDS = 5.0, 300.0


def advanced(turn: Turn, node: Node, record: StageRecord) -> StageRecord:
    attempts = turn.attempts(node.id)
    record = _looked_at(turn, node, record, attempts)
    newest = max(attempts, default=0)
    if newest <= record.attempt or record.state not in (State.WAITING, State.RUNNING):
        return record
    if record.state is State.RUNNING and record.attempt in attempts:
        turn.delete.append(record.job)
    adopted = _adopted(turn, record, newest, attempts[newest])  # it was made, but the status was not written
    return _looked_at(turn, node, adopted, attempts)


def with_ahead(turn: Turn, record: StageRecord) -> StageRecord:
    """A result that is in the store already; kept in the status while what the stage needs is not done yet."""
    key = turn.ahead.get(record.name, "")
    return record.model_copy(update={"key": key}) if key and record.state is State.WAITING else record


def tell_retry(turn: Turn, record: StageRecord, attempt: int) -> None:
    if record.failures and record.last_failure:
        turn.tell("StageRetrying", f"{record.name}, attempt {attempt} after {record.last_failure.cause.value}")


def _looked_at(turn: Turn, node: Node, record: StageRecord, attempts: Mapping[int, Resource]) -> StageRecord:
    if record.state is not State.RUNNING:
        return record
    job = attempts.get(record.attempt)
    pods, sizes = turn.seen.pods.get(record.job, ()), node.config
    seen = observe(job, pods, sizes.nodes, turn.now, record.started, sizes.min_nodes or 0)
    if seen.settles:
        turn.deadlines.append(seen.settles)
    if job is None:
        return _without_job(turn, record, seen)
    if seen.succeeded:
        return record if seen.telling else _succeeded(turn, records.charged(record, pods), job, seen)
    if seen.failure is not None:
        return record if seen.live else _failed(turn, records.charged(record, pods), seen.failure)
    if is_going(job) or turn.document.spec.cancel:
        return record
    if annotation(job, CANCELLED_AT):
        return record if seen.live else _failed(turn, record, _cancelled(job))
    if turn.document.spec.suspend:
        return records.cleared(record)
    return _going(turn, node, record, job, seen)


def _adopted(turn: Turn, record: StageRecord, attempt: int, job: Resource) -> StageRecord:
    tell_retry(turn, record, attempt)
    launched = job["metadata"].get("creationTimestamp", turn.moment)
    return records.begun(record, attempt, name(job), launched, earlier=attempt - 1 - sum(record.failures.values()))


def _without_job(turn: Turn, record: StageRecord, seen: Observed) -> StageRecord:
    if seen.live:
        return record  # its pods are saving; a next attempt would meet them at the checkpoint
    if turn.document.spec.cancel:
        return record.model_copy(update={"state": State.CANCELLED, "progress": None})
    if record.stopped is Stopped.SUSPENDED:
        return records.waiting_again(record)
    if record.stopped is Stopped.LOST:
        return _failed(turn, record, Failure(Cause.PREEMPTED, "PodLost", record.message))
    if record.stopped is Stopped.CANNOT_START:
        return _failed(turn, record, Failure(Cause.USER, record.reason or "CannotStart", record.message))
    return _failed(turn, record, Failure(Cause.PREEMPTED, "JobDeleted", f"the job {record.job} was deleted"))


def _succeeded(turn: Turn, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
    found = dict(seen.ending.result.get("ahead") or {}) if seen.ending else {}
    turn.ahead |= {str(node): str(key)[: records.LONGEST_WORD] for node, key in found.items()}
    done = records.succeeded(record, job, seen.ending, turn.moment)
    turn.tell("StageReused" if done.reused else "StageSucceeded", f"{record.name} done in {done.seconds:.0f} s")
    return done


def _failed(turn: Turn, record: StageRecord, failure: Failure) -> StageRecord:
    told = f"{record.name}, attempt {record.attempt}, {failure.cause.value}: {failure.message}"
    turn.tell("StageFailed", told[:950], warning=True)
    return records.failed(record, failure, turn.moment)


def _cancelled(job: Resource) -> Failure:
    """By `torchx cancel`: a person's word, so no further attempt follows. The job stays, suspended, and says the same."""
    who = annotation(job, CANCELLED_BY)
    told = f"{name(job)} was cancelled{f' by {who}' if who else ''} at {annotation(job, CANCELLED_AT)} (torchx cancel)"
    return Failure(Cause.USER, "StageCancelled", told)


def _going(turn: Turn, node: Node, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
    if is_suspended(job) and not queue_of(job):
        turn.suspend.append((record.job, False))
        return records.cleared(record).model_copy(update={"launched": turn.moment})
    if record.stopped is Stopped.LOST or (seen.lost and not node.config.min_nodes):
        turn.delete.append(record.job)
        message = record.message if record.stopped is Stopped.LOST else seen.lost
        return records.held(record, "PodLost", message, Stopped.LOST)
    record = record.model_copy(update={"started": seen.gathered})
    if seen.waiting:
        return _held_up(turn, record, seen)
    progress = turn.seen.progress.get(record.job) or record.progress
    return records.held(record, "", "").model_copy(update={"progress": progress})


def _held_up(turn: Turn, record: StageRecord, seen: Observed) -> StageRecord:
    """Told a little later, and no longer borne when it takes too long. In a queue it may wait for ever, and so may a job that
    has run: it could start, and it is no mistake of the user's that a node was lost and there is no other."""
    reason, message = seen.waiting, seen.message
    if record.reason in PULLS and seen.waiting in PULLS:
        reason, message = record.reason, record.message
    if seen.waiting in ("Queued", "Suspended"):
        return records.held(records.cleared(record), reason, message)
    since = epoch_seconds(seen.since or record.launched)
    limit = since + turn.document.spec.cluster.start_timeout_seconds
    if not seen.has_run and turn.now >= limit:
        turn.delete.append(record.job)
        return records.held(record, reason, message, Stopped.CANNOT_START)
    if not seen.has_run:
        turn.deadlines.append(limit)
    told_from = since + (UNSEEN_SECONDS if seen.waiting == UNSEEN else SETTLING_SECONDS)
    if not record.reason and not seen.mendable and turn.now < told_from:
        turn.deadlines.append(told_from)
        return record
    return records.held(record, reason, message)
