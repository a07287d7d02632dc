"""Pure: a run, its jobs and their pods -> what to write. No I/O and no clock, so every rule is a table in the tests.

The same inputs give the same outcome, and what an outcome asks for is no longer asked for once it is done: a restart of the
operator, a lost or doubled event, or a write that failed half way change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from operators.alignmentrun.observe import PULLS, UNSEEN, Failure, Observed, observe
from unified_reward.config import AlignmentRun, ClusterDefaults, Placement, placement, validate
from unified_reward.config.graph import Node, build_graph, by_urgency
from unified_reward.errors import UserError
from unified_reward.launch.appdef import node_app
from unified_reward.launch.causes import Cause
from unified_reward.launch.job_status import has_ended, is_suspended, queue_of
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pods import Resource, is_going
from unified_reward.launch.pytorchjob import (
    ATTEMPT,
    NODE,
    JobIdentity,
    defaults_for,
    job_name,
    owner_reference,
    pytorch_job,
)
from unified_reward.launch.times import epoch_seconds, rfc3339
from unified_reward.names import DOCUMENT, PARENT_KEY
from unified_reward.pipeline.decide import ActionKind, Decision, Limits, RunState, State, View, decide
from unified_reward.pipeline.resource import (
    MOST_STAGES,
    RETRY_AT,
    Condition,
    ConditionType,
    LastFailure,
    Phase,
    ResourceStatus,
    StageProgress,
    StageRecord,
    Stopped,
    Tracking,
    bounded,
)

Manifest = dict[str, Any]
UNLIMITED = 10**9
# What a job waits for is told when it still waits then: most pods start at once, and hundreds of new jobs keep the
# training-operator busy for minutes.
SETTLING_SECONDS, UNSEEN_SECONDS = 5.0, 300.0
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

    refused: by job name, why the API server did not take it. tracking: what is known of the run in MLflow;
    tracking_error: why it does not answer, "" when it does, None when it was not asked.
    """

    run: Resource
    jobs: Sequence[Resource] = ()
    pods: Mapping[str, Sequence[Resource]] = field(default_factory=dict)
    progress: Mapping[str, StageProgress] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    tracking: Tracking | None = None
    tracking_error: str | None = None


def reconcile(seen: Seen, defaults: ClusterDefaults, now: float) -> Outcome:
    """What to write now."""
    before = ResourceStatus.model_validate(seen.run.get("status") or {})
    if before.phase.terminal and not (before.phase is Phase.FAILED and _asks_again(seen.run, before)):
        return _after_the_end(seen, before, now)
    try:
        document = _document(seen.run)
    except UserError as error:
        return _refused(seen, before, str(error), now)
    offered = defaults_for(defaults, store=document.spec.store, tracking_uri=document.spec.tracking.uri)
    try:
        place: Placement | str = placement(offered, document.spec.cluster)
    except UserError as error:
        if not before.stages:
            return _refused(seen, before, str(error), now)
        place = str(error)  # the installation has changed: what runs may end, nothing new starts
    return _Round(seen, before, document, place, now).outcome()


class _Round:
    """One reconciliation of an accepted run."""

    def __init__(
        self, seen: Seen, before: ResourceStatus, document: AlignmentRun, place: Placement | str, now: float
    ) -> None:
        self.seen, self.before, self.document, self.place, self.now = seen, before, document, place, now
        self.nodes = build_graph(document)
        self.events: list[Event] = []
        self.deletes: list[str] = []
        self.applies: list[Manifest] = []
        self.suspends: list[tuple[str, bool]] = []
        self.deadlines: list[float] = []
        self.jobs: dict[str, dict[int, Resource]] = {}
        for job in seen.jobs:
            labels = job["metadata"].get("labels", {})
            if NODE in labels and str(labels.get(ATTEMPT)).isdigit():
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
        if _asks_again(self.seen.run, self.before) and not self.document.spec.cancel:
            records = {name: _forgiven(record) for name, record in records.items()}
            self.events.append(Event("Retrying", "the failed stages are tried again, as asked"))
        known = {
            node.id: self._advance(node, records.get(node.id) or StageRecord(name=node.id))
            for node in self.nodes.values()
        }
        known = {node: self._with_ahead(record) for node, record in known.items()}
        decision = self._decided(known)
        for action in decision.actions:
            known[action.node] = self._act(action.kind, action.attempt, known[action.node])
        if decision.next_look:
            self.deadlines.append(decision.next_look)
        status = self._status(self._settled(decision.state, known), known)
        return Outcome(
            status=status,
            apply=tuple(self.applies),
            suspend=tuple(self.suspends),
            delete=tuple(dict.fromkeys(self.deletes)),
            events=_merged(self.events),
            next_look=min(self.deadlines, default=None),
        )

    def _decided(self, records: dict[str, StageRecord]) -> Decision:
        """The decision, after all results that are there have been marked so: one may make the next one count."""
        spec = self.document.spec
        while True:
            views = [self._view(node, records[node.id]) for node in by_urgency(self.nodes)]
            decision = decide(views, self.limits, now=self.now, cancelled=spec.cancel, suspended=spec.suspend)
            reused = [action.node for action in decision.actions if action.kind is ActionKind.REUSE]
            if not reused:
                return decision
            for node in reused:
                done = {"state": State.DONE, "reused": True, "reason": "", "message": "", "ended": rfc3339(self.now)}
                records[node] = records[node].model_copy(update=done)
                self.events.append(
                    Event("CacheHit", f"{node}: its result is in the store, nothing it depends on has changed")
                )

    # --- what has happened to a stage since it was last looked at

    def _advance(self, node: Node, record: StageRecord) -> StageRecord:
        attempts = self.jobs.get(_label(node.id), {})
        record = self._looked_at(node, record, attempts)
        newest = max(attempts, default=0)
        if newest <= record.attempt or record.state not in (State.WAITING, State.RUNNING):
            return record
        if record.state is State.RUNNING and record.attempt in attempts:
            self.deletes.append(record.job)
        adopted = self._adopted(record, newest, attempts[newest])  # it was made, but the status was not written
        return self._looked_at(node, adopted, attempts)

    def _looked_at(self, node: Node, record: StageRecord, attempts: Mapping[int, Resource]) -> StageRecord:
        if record.state is not State.RUNNING:
            return record
        job = attempts.get(record.attempt)
        seen = observe(job, self.seen.pods.get(record.job, ()), node.config.nodes, self.now, record.started)
        if seen.settles:
            self.deadlines.append(seen.settles)
        if job is None:
            return self._without_job(record, seen)
        if seen.succeeded:
            return record if seen.telling else self._succeeded(record, job, seen)
        if seen.failure is not None:
            return record if seen.live else self._failed(record, seen.failure)
        if is_going(job) or self.document.spec.cancel:
            return record
        if self.document.spec.suspend:
            return self._cleared(record)
        return self._going(node, record, job, seen)

    def _tell_retry(self, record: StageRecord, attempt: int) -> None:
        if record.failures and record.last_failure:
            after = record.last_failure.cause.value
            self.events.append(Event("StageRetrying", f"{record.name}, attempt {attempt} after {after}"))

    def _adopted(self, record: StageRecord, attempt: int, job: Resource) -> StageRecord:
        self._tell_retry(record, attempt)
        return record.model_copy(
            update={
                "state": State.RUNNING,
                "attempt": attempt,
                "earlier": attempt - 1 - sum(record.failures.values()),
                "job": job["metadata"]["name"],
                "launched": job["metadata"].get("creationTimestamp", rfc3339(self.now)),
                "started": "",
                "ended": "",
                "reason": "",
                "message": "",
                "stopped": Stopped.NO,
                "progress": None,
            }
        )

    def _without_job(self, record: StageRecord, seen: Observed) -> StageRecord:
        if seen.live:
            return record  # its pods are saving; a next attempt would meet them at the checkpoint
        if self.document.spec.cancel:
            return record.model_copy(update={"state": State.CANCELLED, "progress": None})
        if record.stopped is Stopped.SUSPENDED:
            return self._waiting_again(record)
        if record.stopped is Stopped.LOST:
            return self._failed(record, Failure(Cause.PREEMPTED, "PodLost", record.message))
        if record.stopped is Stopped.CANNOT_START:
            return self._failed(record, Failure(Cause.USER, record.reason or "CannotStart", record.message))
        return self._failed(record, Failure(Cause.PREEMPTED, "JobDeleted", f"the job {record.job} was deleted"))

    def _waiting_again(self, record: StageRecord) -> StageRecord:
        """After a suspension that took the job away: no failure, and the next attempt has a number of its own."""
        return self._cleared(record).model_copy(
            update={"state": State.WAITING, "earlier": record.earlier + 1, "stopped": Stopped.NO}
        )

    def _cleared(self, record: StageRecord) -> StageRecord:
        """Nothing of it runs, so nothing is told of how it runs."""
        return record.model_copy(update={"reason": "", "message": "", "started": "", "progress": None})

    def _succeeded(self, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
        result = seen.ending.result if seen.ending else {}
        self.ahead |= {str(node): str(key)[:253] for node, key in dict(result.get("ahead") or {}).items()}
        seconds = float(result.get("seconds", 0.0)) or (seen.ending.seconds if seen.ending else 0.0)
        numbers = {
            name: float(value)
            for name, value in dict(result.get("metrics") or {}).items()
            if isinstance(value, int | float)
        }
        reused = bool(result.get("reused", False))
        self.events.append(
            Event("StageReused" if reused else "StageSucceeded", f"{record.name} done in {seconds:.0f} s")
        )
        return record.model_copy(
            update={
                "state": State.DONE,
                "key": str(result.get("key", ""))[:253],
                "reused": reused,
                "seconds": seconds,
                "metrics": dict(list(numbers.items())[:16]),
                "reason": "",
                "message": "",
                "stopped": Stopped.NO,
                "progress": None,
                "started": str(job.get("status", {}).get("startTime") or record.started),
                "ended": str(job.get("status", {}).get("completionTime") or rfc3339(self.now)),
            }
        )

    def _with_ahead(self, record: StageRecord) -> StageRecord:
        """Kept in the status while what the stage needs is not done yet."""
        key = self.ahead.get(record.name, "")
        return record.model_copy(update={"key": key}) if key and record.state is State.WAITING else record

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
            reason=failure.reason[:253],
            exit_code=failure.exit_code,
            message=failure.message[:1024],
            attempt=record.attempt,
            time=rfc3339(self.now),
        )
        return record.model_copy(
            update={
                "state": State.WAITING,
                "failures": counts,
                "last_failure": last,
                "ended": rfc3339(self.now),
                "stopped": Stopped.NO,
                "progress": None,
                "reason": failure.reason[:253],
                "message": failure.message[:1024],
            }
        )

    def _going(self, node: Node, record: StageRecord, job: Resource, seen: Observed) -> StageRecord:
        suspended = is_suspended(job)
        if suspended and not queue_of(job):
            self.suspends.append((record.job, False))
            return self._cleared(record).model_copy(update={"launched": rfc3339(self.now)})
        if record.stopped is Stopped.LOST or (seen.lost and not node.config.min_nodes):
            self.deletes.append(record.job)
            message = record.message if record.stopped is Stopped.LOST else seen.lost[:1024]
            return record.model_copy(update={"reason": "PodLost", "message": message, "stopped": Stopped.LOST})
        if seen.waiting:
            return self._held_up(record, seen)
        started = "" if node.config.min_nodes else seen.gathered
        progress = self.seen.progress.get(record.job) or record.progress
        return record.model_copy(
            update={"reason": "", "message": "", "stopped": Stopped.NO, "started": started, "progress": progress}
        )

    def _held_up(self, record: StageRecord, seen: Observed) -> StageRecord:
        """Told a little later, and no longer borne when it takes too long; in a queue it may wait for ever."""
        told: dict[str, Any] = {"reason": seen.waiting[:253], "message": seen.message[:1024], "stopped": Stopped.NO}
        if record.reason in PULLS and seen.waiting in PULLS:
            told |= {"reason": record.reason, "message": record.message}
        if seen.waiting in ("Queued", "Suspended"):
            return self._cleared(record).model_copy(update=told)
        since = epoch_seconds(seen.since or record.launched)
        limit = since + self.document.spec.cluster.start_timeout_seconds
        if self.now >= limit:
            self.deletes.append(record.job)
            return record.model_copy(update={**told, "stopped": Stopped.CANNOT_START})
        self.deadlines.append(limit)
        told_from = since + (UNSEEN_SECONDS if seen.waiting == UNSEEN else SETTLING_SECONDS)
        if not record.reason and not seen.mendable and self.now < told_from:
            self.deadlines.append(told_from)
            return record
        return record.model_copy(update=told)

    # --- what is to be done about it

    def _view(self, node: Node, record: StageRecord) -> View:
        failures = tuple(Cause(cause) for cause, count in sorted(record.failures.items()) for _ in range(count))
        return View(
            id=node.id,
            needs=frozenset(node.needs),
            processes=node.config.processes,
            state=record.state,
            committed=record.state is State.WAITING and bool(record.key),
            failures=failures,
            last_ended=epoch_seconds(record.ended),
            earlier=record.earlier,
        )

    def _act(self, kind: ActionKind, attempt: int, record: StageRecord) -> StageRecord:
        if kind is ActionKind.LAUNCH:
            return self._launch(attempt, record)
        if kind is ActionKind.FAIL:
            return record.model_copy(update={"state": State.FAILED})
        if kind is ActionKind.STOP:
            return self._stop(record)
        return record

    def _stop(self, record: StageRecord) -> StageRecord:
        """Cancelled: the job goes. Suspended: it stays, unless a queue would start it again at once."""
        job = self.jobs.get(_label(record.name), {}).get(record.attempt)
        if job is None or is_going(job) or has_ended(job):
            return record
        if self.document.spec.cancel:
            self.deletes.append(record.job)
        elif queue_of(job):
            self.deletes.append(record.job)
            return record.model_copy(update={"stopped": Stopped.SUSPENDED})
        elif not is_suspended(job):
            self.suspends.append((record.job, True))
        return record

    def _launch(self, attempt: int, record: StageRecord) -> StageRecord:
        run, node = self.document.metadata.name, self.nodes[record.name]
        if isinstance(self.place, str):
            return record.model_copy(
                update={"state": State.FAILED, "reason": "NotOffered", "message": self.place[:1024]}
            )
        name = job_name(run, node.id, attempt)
        metadata = self.seen.run["metadata"]
        env = {
            DOCUMENT: _compact(self.document),
            PARENT_KEY: parent_key(self.seen.run),
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
        if name in self.seen.refused:
            return record.model_copy(update={"reason": "JobRefused", "message": self.seen.refused[name][:1024]})
        self._tell_retry(record, attempt)
        return record.model_copy(
            update={
                "state": State.RUNNING,
                "attempt": attempt,
                "job": name,
                "launched": rfc3339(self.now),
                "started": "",
                "ended": "",
                "reason": "",
                "message": "",
                "stopped": Stopped.NO,
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

    def _status(self, state: RunState, records: Mapping[str, StageRecord]) -> ResourceStatus:
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
            told = any(event.warning for event in self.events)
            said = {Phase.SUCCEEDED: "all stages are done", Phase.CANCELLED: "as asked"}
            text = said.get(phase, "no further attempt" if told else message)
            self.events.append(Event(f"Run{phase.value}", text, phase is Phase.FAILED))
        if phase is Phase.SUSPENDED and self.before.phase is not Phase.SUSPENDED:
            self.events.append(Event("RunSuspended", "what ran was told to save and stop"))
        started = self.before.started or rfc3339(self.now)
        status = ResourceStatus(
            observed_generation=self.seen.run["metadata"].get("generation", 0),
            phase=phase,
            stage=", ".join(record.name for record in running)[:253] or (failed[0].name if failed else ""),
            progress=_progress(stages),
            reason=reason,
            message=message,
            started=started,
            ended=rfc3339(self.now) if phase.terminal else "",
            retried=_retry_at(self.seen.run) or self.before.retried,
            stages=stages,
            tracking=self.seen.tracking or self.before.tracking,
        )
        return bounded(_with_conditions(status, self.before, self.seen.tracking_error, self.now))


def _merged(events: Sequence[Event]) -> tuple[Event, ...]:
    """One of each kind at most: what happens at once is told at once, under the name of what came last."""
    kinds = [[event for event in events if event.warning is warning] for warning in (False, True)]
    return tuple(
        replace(several[-1], message="; ".join(event.message for event in several)) for several in kinds if several
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
    document = validate(AlignmentRun, values)
    count = len(build_graph(document))
    if count > MOST_STAGES:
        raise UserError(
            field="spec.policies", value=f"{count} stages", why=f"a run has at most {MOST_STAGES}",
            fix="Split the policies, or the seeds of a sweep, over several runs.",
        )  # fmt: skip
    return document


def _retry_at(run: Resource) -> str:
    return str((run["metadata"].get("annotations") or {}).get(RETRY_AT, ""))[:253]


def _asks_again(run: Resource, before: ResourceStatus) -> bool:
    return _retry_at(run) not in ("", before.retried)


def _compact(document: AlignmentRun) -> str:
    values = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for name in ("suspend", "cancel", "cluster", "ttlSecondsAfterFinished"):
        values.get("spec", {}).pop(name, None)
    return json.dumps(values, separators=(",", ":"))


def _refused(seen: Seen, before: ResourceStatus, why: str, now: float) -> Outcome:
    """What has been started ends by itself."""
    status = before.model_copy(
        update={
            "observed_generation": seen.run["metadata"].get("generation", 0),
            "phase": Phase.FAILED,
            "reason": "InvalidSpec",
            "message": why[:1024],
            "started": before.started or rfc3339(now),
            "ended": rfc3339(now),
            "retried": _retry_at(seen.run) or before.retried,
        }
    )
    status = _with_conditions(status, before, seen.tracking_error, now)
    return Outcome(status=status, events=(Event("InvalidSpec", why[:950], True),))


def _after_the_end(seen: Seen, before: ResourceStatus, now: float) -> Outcome:
    """Nothing but the page in MLflow and the TTL."""
    status = before.model_copy(
        update={
            "observed_generation": seen.run["metadata"].get("generation", 0),
            "tracking": seen.tracking or before.tracking,
            "retried": _retry_at(seen.run) or before.retried,
        }
    )
    status = _with_conditions(status, before, seen.tracking_error, now)
    ttl = int((seen.run.get("spec") or {}).get("ttlSecondsAfterFinished", 0))
    if not ttl:
        return Outcome(status=status)
    goes = epoch_seconds(before.ended) + ttl
    return Outcome(status=status, gone=now >= goes, next_look=goes)


def _with_conditions(
    status: ResourceStatus, before: ResourceStatus, tracking_error: str | None, now: float
) -> ResourceStatus:
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
    ]
    if tracking_error is not None:
        word = "Unavailable" if tracking_error else "Available"
        wanted.append((ConditionType.TRACKING, not tracking_error, word, tracking_error))
    conditions = [_condition(each, before, status.observed_generation, now) for each in wanted]
    said = before.condition(ConditionType.TRACKING)
    if tracking_error is None and said is not None:
        conditions.append(said.model_copy(update={"observed_generation": status.observed_generation}))
    return status.model_copy(update={"conditions": conditions})


def _condition(
    wanted: tuple[ConditionType, bool, str, str], before: ResourceStatus, generation: int, now: float
) -> Condition:
    kind, true, reason, message = wanted
    old = before.condition(kind)
    value = "True" if true else "False"
    since = old.last_transition_time if old and old.status == value else rfc3339(now)
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
    """Its failures no longer count; the number of an attempt that runs stays."""
    if record.state is State.DONE:
        return record
    if record.state is State.RUNNING:
        return record.model_copy(update={"earlier": record.attempt - 1, "failures": {}})
    again = {
        "state": State.WAITING,
        "earlier": record.attempt,
        "failures": {},
        "reason": "",
        "message": "",
        "ended": "",
    }
    return record.model_copy(update=again)


def _cancelled(record: StageRecord) -> StageRecord:
    if record.state in (State.DONE, State.FAILED):
        return record
    return record.model_copy(
        update={"state": State.CANCELLED, "progress": None, "reason": "", "message": "", "key": ""}
    )


def _label(node: str) -> str:
    return node.replace("/", ".")


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
            or (new != known and now - epoch_seconds(known.updated) >= interval)
        ):
            return True
    return False


def _without_progress(status: ResourceStatus) -> ResourceStatus:
    stages = [record.model_copy(update={"progress": None}) for record in status.stages]
    return status.model_copy(update={"stages": stages, "progress": status.progress.partition(" ")[0]})


__all__ = ["Event", "Outcome", "Seen", "parent_key", "reconcile", "worth_writing"]
