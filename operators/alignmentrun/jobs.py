"""Pure: what is to be done about a stage -> the job to make, to suspend or to delete, and the stage's record after it."""

from __future__ import annotations

import json

from operators.alignmentrun import records
from operators.alignmentrun.outcome import Manifest, Turn
from operators.alignmentrun.stages import tell_retry
from unified_reward.config import AlignmentRun, Placement
from unified_reward.config.graph import Node
from unified_reward.launch.appdef import node_app
from unified_reward.launch.job_status import has_ended, is_suspended, queue_of
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pods import Resource, is_going, name
from unified_reward.launch.pytorchjob import JobIdentity, job_name, owner_reference, pytorch_job
from unified_reward.names import DOCUMENT, PARENT_KEY
from unified_reward.pipeline.decide import Action, ActionKind, State
from unified_reward.pipeline.resource import StageRecord, Stopped


def acted(turn: Turn, action: Action, node: Node, record: StageRecord, place: Placement | str) -> StageRecord:
    """place: where the run's jobs go, or why the installation no longer takes them."""
    if action.kind is ActionKind.LAUNCH:
        return _launched(turn, action.attempt, node, record, place)
    if action.kind is ActionKind.FAIL:
        return record.model_copy(update={"state": State.FAILED})
    if action.kind is ActionKind.STOP:
        return _stopped(turn, record)
    return record


def parent_key(run: Resource) -> str:
    """Names the tracking run of this resource; one of the same name made later has its own."""
    return f"{name(run)}.{run['metadata']['uid']}"


def _launched(turn: Turn, attempt: int, node: Node, record: StageRecord, place: Placement | str) -> StageRecord:
    if isinstance(place, str):
        return records.held(record, "NotOffered", place).model_copy(update={"state": State.FAILED})
    manifest = _job(turn, attempt, node, place)
    job = name(manifest)
    turn.apply.append(manifest)
    if job in turn.seen.refused:
        return records.held(record, "JobRefused", turn.seen.refused[job])
    tell_retry(turn, record, attempt)
    return records.begun(record, attempt, job, turn.moment, earlier=record.earlier)


def _stopped(turn: Turn, record: StageRecord) -> StageRecord:
    """Cancelled: the job goes. Suspended: it stays, unless a queue would start it again at once."""
    job = turn.attempts(record.name).get(record.attempt)
    if job is None or is_going(job) or has_ended(job):
        return record
    if turn.document.spec.cancel:
        turn.delete.append(record.job)
    elif queue_of(job):
        turn.delete.append(record.job)
        return record.model_copy(update={"stopped": Stopped.SUSPENDED})
    elif not is_suspended(job):
        turn.suspend.append((record.job, True))
    return record


def _job(turn: Turn, attempt: int, node: Node, place: Placement) -> Manifest:
    run = turn.document.metadata.name
    job = job_name(run, node.id, attempt)
    env = {
        DOCUMENT: _compact(turn.document),
        PARENT_KEY: parent_key(turn.seen.run),
        "MLFLOW_EXPERIMENT_NAME": turn.document.spec.tracking.experiment,
    }
    identity = JobIdentity(
        name=job, namespace=turn.seen.run["metadata"]["namespace"], app=job.rpartition("-a")[0], run=run,
        stage=node.stage.value, node=node.id, attempt=attempt, owner=owner_reference(turn.seen.run), env=env,
    )  # fmt: skip
    return pytorch_job(job_plan(node_app(node, run)), place, identity)


def _compact(document: AlignmentRun) -> str:
    """Without what says how the run is run: it may change while jobs are, and no job may differ for it."""
    values = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for key in ("suspend", "cancel", "cluster", "ttlSecondsAfterFinished"):
        values.get("spec", {}).pop(key, None)
    return json.dumps(values, separators=(",", ":"))
