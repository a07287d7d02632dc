"""Pure: a run, its jobs and their pods -> what to write. No I/O and no clock, so every rule is a table in the tests.

The same inputs give the same outcome, and what an outcome asks for is no longer asked for once it is done: a restart of the
operator, a lost or doubled event, or a write that failed half way change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from operators.alignmentrun.observe import Failure, Observed, Resource, observe, queue
from unified_reward.config import AlignmentRun, ClusterDefaults, placement, validate
from unified_reward.config.graph import Node, build_graph, by_urgency
from unified_reward.errors import UserError
from unified_reward.launch.appdef import node_app
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pytorchjob import (
    ATTEMPT,
    NODE,
    JobIdentity,
    defaults_for,
    job_name,
    owner_reference,
    pytorch_job,
)
from unified_reward.pipeline.decide import ActionKind, Cause, Decision, Limits, RunState, State, View, decide
from unified_reward.pipeline.resource import (
    RETRY_AT,
    Condition,
    ConditionType,
    LastFailure,
    Phase,
    ResourceStatus,
    StageProgress,
    StageRecord,
    Tracking,
    bounded,
)

Manifest = dict[str, Any]
UNLIMITED = 10**9
PHASES = {
    RunState.RUNNING: Phase.RUNNING,
    RunState.SUSPENDED: Phase.SUSPENDED,
    RunState.SUCCEEDED: Phase.SUCCEEDED,
    RunState.FAILED: Phase.FAILED,
    RunState.CANCELLED: Phase.CANCELLED,
}


@dataclass(frozen=True)
class Event:
    """One transition, for `kubectl describe`."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Outcome:
    """apply: jobs to be, by server-side apply. suspend: jobs to set suspended or not. delete: names of jobs.

    next_look: seconds since the epoch at which time alone changes something. gone: the resource has outlived its TTL.
    """

    status: ResourceStatus
    apply: tuple[Manifest, ...] = ()
    suspend: tuple[tuple[str, bool], ...] = ()
    delete: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    next_look: float | None = None
    gone: bool = False


@dataclass(frozen=True)
class Seen:
    """All that a decision rests on. jobs: of this run, by its UID. pods: by job name. progress: by job name.

    tracking: what is known of the run in MLflow; tracking_error: why it does not answer, "" when it does.
    """

    run: Resource
    jobs: Sequence[Resource] = ()
    pods: Mapping[str, Sequence[Resource]] = field(default_factory=dict)
    progress: Mapping[str, StageProgress] = field(default_factory=dict)
    tracking: Tracking | None = None
    tracking_error: str = ""


def reconcile(seen: Seen, defaults: ClusterDefaults, now: float) -> Outcome:
    """What to write now."""
    run = seen.run
    before = ResourceStatus.model_validate(run.get("status") or {})
    if before.phase.terminal and run["metadata"].get("annotations", {}).get(RETRY_AT, "") in ("", before.retried):
        return _after_the_end(seen, before, now)
    try:
        document = _document(run)
        place = placement(
            defaults_for(defaults, store=document.spec.store, tracking_uri=document.spec.tracking.uri),
            document.spec.cluster,
        )
    except UserError as error:
        return _refused(run, before, str(error), now)
    return _Round(seen, before, document, place, now).outcome()


class _Round:
    """One reconciliation of an accepted run."""

    def __init__(self, seen: Seen, before: ResourceStatus, document: AlignmentRun, place: Any, now: float) -> None:
        self.seen, self.before, self.document, self.place, self.now = seen, before, document, place, now
        self.nodes = build_graph(document)
        self.events: list[Event] = []
        self.deletes: list[str] = []
        self.applies: list[Manifest] = []
        self.suspends: list[tuple[str, bool]] = []
        self.deadlines: list[float] = []
        self.reasons: dict[str, tuple[str, str]] = {}
        self.jobs: dict[str, dict[int, Resource]] = {}
        for job in seen.jobs:
            labels = job["metadata"]["labels"]
            self.jobs.setdefault(labels[NODE], {})[int(labels[ATTEMPT])] = job
        retries = document.spec.cluster.retries
        self.limits = Limits(
            UNLIMITED,
            {
                Cause.USER: 0,
                Cause.PREEMPTED: retries.preempted,
                Cause.MEMORY: retries.memory,
                Cause.CRASHED: retries.crashed,
            },
            retries.backoff_seconds,
        )
        self.ahead: dict[str, str] = {}

    def outcome(self) -> Outcome:
        records = {record.name: record for record in self.before.stages}
        retry_at = self.seen.run["metadata"].get("annotations", {}).get(RETRY_AT, "")
        if retry_at and retry_at != self.before.retried:
            records = {name: _forgiven(record) for name, record in records.items()}
            self.events.append(Event("Retrying", "the failed stages are tried again, as asked"))
        now_records = {
            node.id: self._advance(node, records.get(node.id) or StageRecord(name=node.id))
            for node in self.nodes.values()
        }
        spec = self.document.spec
        decision = Decision((), RunState.RUNNING)
        for _ in range(len(self.nodes) + 1):  # marking a result as there may let the next one be there
            views = [self._view(node, now_records[node.id]) for node in by_urgency(self.nodes)]
            decision = decide(views, self.limits, now=self.now, cancelled=spec.cancel, suspended=spec.suspend)
            reused = [action.node for action in decision.actions if action.kind is ActionKind.REUSE]
            for node in reused:
                now_records[node] = now_records[node].model_copy(
                    update={
                        "state": State.DONE,
                        "reused": True,
                        "key": self.ahead.get(node) or now_records[node].key,
                        "reason": "",
                        "message": "",
                    }
                )
                self.events.append(
                    Event("CacheHit", f"{node}: its result is in the store, nothing it depends on has changed")
                )
            if not reused:
                break
        for action in decision.actions:
            now_records[action.node] = self._act(action.kind, action.attempt, now_records[action.node])
        if decision.next_look:
            self.deadlines.append(decision.next_look)
        state = self._settled(decision.state, now_records)
        status = self._status(state, now_records, retry_at)
        return Outcome(
            status=status,
            apply=tuple(self.applies),
            suspend=tuple(self.suspends),
            delete=tuple(dict.fromkeys(self.deletes)),
            events=tuple(self.events),
            next_look=min(self.deadlines, default=None),
        )

    # --- what has happened to a stage since it was last looked at

    def _advance(self, node: Node, record: StageRecord) -> StageRecord:
        attempts = self.jobs.get(_label(node.id), {})
        newest = max(attempts, default=0)
        if record.state in (State.WAITING, State.RUNNING) and newest > record.attempt:
            record = self._adopted(record, newest, attempts[newest])  # it was made, but the status was not written
        if record.state is not State.RUNNING:
            self._note_ahead_of(record)
            return record
        job = attempts.get(record.attempt)
        pods = self.seen.pods.get(record.job, ())
        seen = observe(job, pods, node.config.nodes)
        if job is None:
            return self._without_job(record, seen)
        if seen.succeeded:
            return self._succeeded(record, job, seen)
        if seen.failure is not None:
            return record if seen.live else self._failed(record, seen.failure)
        if job["metadata"].get("deletionTimestamp"):
            return record
        return self._going(node, record, job, seen)

    def _adopted(self, record: StageRecord, attempt: int, job: Resource) -> StageRecord:
        return record.model_copy(
            update={
                "state": State.RUNNING,
                "attempt": attempt,
                "job": job["metadata"]["name"],
                "job_uid": job["metadata"].get("uid", ""),
                "launched": job["metadata"].get("creationTimestamp", _time(self.now)),
            }
        )

    def _without_job(self, record: StageRecord, seen: Observed) -> StageRecord:
        if seen.live:
            return record  # its pods are saving; a next attempt would meet them at the checkpoint
        if self.document.spec.cancel:
            return record.model_copy(update={"state": State.CANCELLED, "progress": None})
        if record.reason in ("PodLost", *_CANNOT_START):
            cause = Cause.PREEMPTED if record.reason == "PodLost" else Cause.USER
            return self._failed(record, Failure(cause, record.reason, record.message))
        return self._failed(record, Failure(Cause.PREEMPTED, "JobDeleted", f"the job {record.job} was deleted"))

    def _succeeded(self, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
        result = seen.ending.result if seen.ending else {}
        self.ahead |= {str(node): str(key) for node, key in dict(result.get("ahead", {})).items()}
        seconds = float(result.get("seconds", 0.0)) or (seen.ending.seconds if seen.ending else 0.0)
        numbers = {
            name: float(value)
            for name, value in dict(result.get("metrics", {})).items()
            if isinstance(value, int | float)
        }
        reused = bool(result.get("reused", False))
        self.events.append(Event("StageReused" if reused else "StageSucceeded", f"{record.name} in {seconds:.0f} s"))
        return record.model_copy(
            update={
                "state": State.DONE,
                "key": str(result.get("key", "")),
                "reused": reused,
                "seconds": seconds,
                "metrics": dict(list(numbers.items())[:16]),
                "reason": "",
                "message": "",
                "progress": None,
                "ended": str(job.get("status", {}).get("completionTime") or _time(self.now)),
            }
        )

    def _note_ahead_of(self, record: StageRecord) -> None:
        """A result named by a stage that was done before this look."""
        if record.state is State.WAITING and record.key:
            self.ahead[record.name] = record.key

    def _failed(self, record: StageRecord, failure: Failure) -> StageRecord:
        counts = {**record.failures, failure.cause.value: record.failures.get(failure.cause.value, 0) + 1}
        self.events.append(
            Event(
                "StageFailed",
                f"{record.name}, attempt {record.attempt}, {failure.cause.value}: {failure.message}"[:950],
                True,
            )
        )
        last = LastFailure(
            cause=failure.cause,
            reason=failure.reason,
            exit_code=failure.exit_code,
            message=failure.message[:1024],
            attempt=record.attempt,
            time=_time(self.now),
        )
        return record.model_copy(
            update={
                "state": State.WAITING,
                "failures": counts,
                "last_failure": last,
                "ended": _time(self.now),
                "progress": None,
                "reason": failure.cause.value,
                "message": failure.message[:1024],
            }
        )

    def _going(self, node: Node, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
        suspended = bool(job["spec"].get("runPolicy", {}).get("suspend"))
        if self.document.spec.suspend or self.document.spec.cancel:
            return record
        if suspended and not queue(job):
            self.suspends.append((record.job, False))
            return record.model_copy(update={"reason": "", "message": ""})
        if seen.lost and not node.config.min_nodes:
            self.deletes.append(record.job)
            return record.model_copy(update={"reason": "PodLost", "message": seen.lost})
        if seen.waiting:
            return self._held_up(record, seen)
        progress = self.seen.progress.get(record.job) or record.progress
        return record.model_copy(update={"reason": "", "message": "", "progress": progress})

    def _held_up(self, record: StageRecord, seen: Observed) -> StageRecord:
        changed = {"reason": seen.waiting, "message": seen.message[:1024]}
        limit = _seconds(record.launched) + self.document.spec.cluster.start_timeout_seconds
        if seen.waiting in ("Queued", "Suspended"):
            return record.model_copy(update=changed)
        if self.now >= limit:
            self.deletes.append(record.job)
            changed["reason"] = "CannotStart" if not seen.mendable else seen.waiting
            return record.model_copy(update=changed)
        self.deadlines.append(limit)
        return record.model_copy(update=changed)

    # --- what is to be done about it

    def _view(self, node: Node, record: StageRecord) -> View:
        failures = tuple(Cause(cause) for cause, count in sorted(record.failures.items()) for _ in range(count))
        return View(
            id=node.id,
            needs=frozenset(node.needs),
            processes=node.config.processes,
            state=record.state,
            committed=node.id in self.ahead,
            failures=failures,
            last_ended=_seconds(record.ended),
            earlier=record.earlier,
        )

    def _act(self, kind: ActionKind, attempt: int, record: StageRecord) -> StageRecord:
        if kind is ActionKind.LAUNCH:
            return self._launch(attempt, record)
        if kind is ActionKind.FAIL:
            return record.model_copy(update={"state": State.FAILED})
        if kind is ActionKind.STOP:
            job = self.jobs.get(_label(record.name), {}).get(record.attempt)
            if job is None:
                return record
            if self.document.spec.cancel:
                self.deletes.append(record.job)
            elif not job["spec"].get("runPolicy", {}).get("suspend"):
                self.suspends.append((record.job, True))
            return record
        return record

    def _launch(self, attempt: int, record: StageRecord) -> StageRecord:
        run, node = self.document.metadata.name, self.nodes[record.name]
        name = job_name(run, node.id, attempt)
        metadata = self.seen.run["metadata"]
        env = {
            "UR_DOCUMENT": _compact(self.document),
            "UR_PARENT_KEY": parent_key(self.seen.run),
            "MLFLOW_EXPERIMENT_NAME": self.document.spec.tracking.experiment,
        }
        identity = JobIdentity(
            name=name,
            namespace=metadata["namespace"],
            app=name.rpartition("-a")[0],
            run=run,
            stage=node.stage.value,
            node=node.id,
            attempt=attempt,
            owner=owner_reference(self.seen.run),
            env=env,
        )
        self.applies.append(pytorch_job(job_plan(node_app(node, run)), self.place, identity))
        again = (
            f" (attempt {attempt} after {record.last_failure.cause.value})"
            if attempt > 1 and record.last_failure
            else ""
        )
        if again:
            self.events.append(Event("StageRetrying", f"{node.id}{again}"))
        return record.model_copy(
            update={
                "state": State.RUNNING,
                "attempt": attempt,
                "job": name,
                "job_uid": "",
                "launched": _time(self.now),
                "started": "",
                "ended": "",
                "reason": "",
                "message": "",
                "progress": None,
            }
        )

    def _settled(self, state: RunState, records: Mapping[str, StageRecord]) -> RunState:
        """An end is one only when nothing runs any more."""
        alive = any(record.state is State.RUNNING for record in records.values())
        if alive and state in (RunState.CANCELLED, RunState.FAILED):
            return RunState.RUNNING
        return state

    # --- what is said of it

    def _status(self, state: RunState, records: Mapping[str, StageRecord], retry_at: str) -> ResourceStatus:
        if state is RunState.CANCELLED:
            records = {name: _cancelled(record) for name, record in records.items()}
        stages = list(records.values())
        running = [record for record in stages if record.state is State.RUNNING]
        failed = [record for record in stages if record.state is State.FAILED]
        held = next(
            (record for record in [*failed, *running, *stages] if record.reason and record.state is not State.DONE),
            None,
        )
        phase = PHASES[state]
        reason = held.reason if held and phase is not Phase.SUCCEEDED else ""
        message = f"{held.name}: {held.message}"[:1024] if held and reason else ""
        if phase.terminal and not self.before.phase.terminal:
            self.events.append(Event(f"Run{phase.value}", message or "all stages are done", phase is Phase.FAILED))
        if phase is Phase.SUSPENDED and self.before.phase is not Phase.SUSPENDED:
            self.events.append(Event("RunSuspended", "what ran was told to save and stop"))
        started = self.before.started or _time(self.now)
        status = ResourceStatus(
            observed_generation=self.seen.run["metadata"].get("generation", 0),
            phase=phase,
            stage=", ".join(record.name for record in running)[:253] or (failed[0].name if failed else ""),
            progress=_progress(stages),
            reason=reason,
            message=message,
            started=started,
            ended=_time(self.now) if phase.terminal else "",
            retried=retry_at,
            stages=stages,
            tracking=self.seen.tracking or self.before.tracking,
        )
        return bounded(_with_conditions(status, self.before, self.seen.tracking_error, self.now))


_CANNOT_START = (
    "CannotStart",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)


def parent_key(run: Resource) -> str:
    """Names the tracking run of this resource; one of the same name made later has its own."""
    return f"{run['metadata']['name']}.{run['metadata']['uid']}"


def _document(run: Resource) -> AlignmentRun:
    metadata = run["metadata"]
    values = {
        "apiVersion": run["apiVersion"],
        "kind": run["kind"],
        "spec": run.get("spec") or {},
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
    return validate(AlignmentRun, values)


def _compact(document: AlignmentRun) -> str:
    values = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for name in ("suspend", "cancel", "cluster", "ttlSecondsAfterFinished"):
        values.get("spec", {}).pop(name, None)
    return json.dumps(values, separators=(",", ":"))


def _refused(run: Resource, before: ResourceStatus, why: str, now: float) -> Outcome:
    status = before.model_copy(
        update={
            "observed_generation": run["metadata"].get("generation", 0),
            "phase": Phase.FAILED,
            "reason": "InvalidSpec",
            "message": why[:1024],
            "started": before.started or _time(now),
            "ended": _time(now),
        }
    )
    return Outcome(status=_with_conditions(status, before, "", now), events=(Event("InvalidSpec", why[:950], True),))


def _after_the_end(seen: Seen, before: ResourceStatus, now: float) -> Outcome:
    """Nothing but the page in MLflow and the TTL."""
    ttl = int((seen.run.get("spec") or {}).get("ttlSecondsAfterFinished", 0))
    status = before
    if seen.tracking and seen.tracking != before.tracking:
        status = before.model_copy(update={"tracking": seen.tracking})
    if seen.tracking_error or (before.condition(ConditionType.TRACKING) or _NO).status != "True":
        status = _with_conditions(status, before, seen.tracking_error, now)
    if not ttl:
        return Outcome(status=status)
    goes = _seconds(before.ended) + ttl
    return Outcome(status=status, gone=now >= goes, next_look=goes)


_NO = Condition(type=ConditionType.TRACKING, status="Unknown", reason="Unknown")


def _with_conditions(status: ResourceStatus, before: ResourceStatus, tracking_error: str, now: float) -> ResourceStatus:
    phase, invalid = status.phase, status.reason == "InvalidSpec"
    ended = phase.terminal
    wanted: list[tuple[ConditionType, bool, str, str]] = [
        (ConditionType.ACCEPTED, not invalid, "InvalidSpec" if invalid else "Valid", status.message if invalid else ""),
        (
            ConditionType.SUSPENDED,
            phase is Phase.SUSPENDED,
            "Suspended" if phase is Phase.SUSPENDED else "NotSuspended",
            "",
        ),
        (
            ConditionType.PROGRESSING,
            phase is Phase.RUNNING,
            status.reason or phase.value,
            status.message if not ended else "",
        ),
        (ConditionType.SUCCEEDED, phase is Phase.SUCCEEDED, phase.value, ""),
        (ConditionType.FAILED, phase in (Phase.FAILED, Phase.CANCELLED), phase.value, status.message if ended else ""),
        (ConditionType.TRACKING, not tracking_error, "Unavailable" if tracking_error else "Available", tracking_error),
    ]
    return status.model_copy(
        update={"conditions": [_condition(each, before, status.observed_generation, now) for each in wanted]}
    )


def _condition(
    wanted: tuple[ConditionType, bool, str, str], before: ResourceStatus, generation: int, now: float
) -> Condition:
    kind, true, reason, message = wanted
    old = before.condition(kind)
    value = "True" if true else "False"
    since = old.last_transition_time if old and old.status == value else _time(now)
    return Condition.model_validate(
        {
            "type": kind,
            "status": value,
            "reason": reason,
            "message": message[:1024],
            "last_transition_time": since,
            "observed_generation": generation,
        }
    )


def _progress(stages: Sequence[StageRecord]) -> str:
    done = sum(record.state is State.DONE for record in stages)
    percents = [f"{record.progress.percent}%" for record in stages if record.state is State.RUNNING and record.progress]
    return f"{done}/{len(stages)}" + (f" ({', '.join(percents[:4])})" if percents else "")


def _forgiven(record: StageRecord) -> StageRecord:
    if record.state is State.DONE:
        return record
    return record.model_copy(
        update={
            "state": State.WAITING,
            "earlier": record.attempt,
            "failures": {},
            "reason": "",
            "message": "",
            "ended": "",
        }
    )


def _cancelled(record: StageRecord) -> StageRecord:
    if record.state in (State.DONE, State.FAILED):
        return record
    return record.model_copy(update={"state": State.CANCELLED, "progress": None, "reason": "", "message": ""})


def _label(node: str) -> str:
    return node.replace("/", ".")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def worth_writing(
    before: ResourceStatus, after: ResourceStatus, now: float, *, step: int = 5, interval: float = 60.0
) -> bool:
    """Whether a person would see the difference: progress counts from `step` points, or after `interval` seconds."""
    if _without_progress(before) != _without_progress(after):
        return True
    old = {record.name: record.progress for record in before.stages}
    for record in after.stages:
        new, known = record.progress, old.get(record.name)
        if new is not None and (
            known is None
            or abs(new.percent - known.percent) >= step
            or (new != known and now - _seconds(known.updated) >= interval)
        ):
            return True
    return False


def _without_progress(status: ResourceStatus) -> ResourceStatus:
    stages = [record.model_copy(update={"progress": None}) for record in status.stages]
    return status.model_copy(update={"stages": stages, "progress": status.progress.partition(" ")[0]})


__all__ = ["Event", "Outcome", "Seen", "parent_key", "reconcile", "replace", "worth_writing"]
