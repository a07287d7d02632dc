"""Pure: the records of a run's stages -> the status that a person reads, its conditions, and whether to write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operators.alignmentrun import records
from operators.alignmentrun.outcome import Seen, Turn
from unified_reward.launch.pods import Resource
from unified_reward.launch.times import epoch_seconds, rfc3339
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.resource import (
    RETRY_AT,
    Condition,
    ConditionType,
    Phase,
    ResourceStatus,
    StageRecord,
    bounded,
)

INVALID, INSTALLATION = "InvalidSpec", "InstallationInvalid"
PHASES = {
    RunState.RUNNING: Phase.RUNNING,
    RunState.SUSPENDED: Phase.SUSPENDED,
    RunState.SUCCEEDED: Phase.SUCCEEDED,
    RunState.FAILED: Phase.FAILED,
    RunState.CANCELLED: Phase.CANCELLED,
}


def run_status(turn: Turn, state: RunState, stages: Mapping[str, StageRecord]) -> ResourceStatus:
    """Tells the transitions of the run as a whole as well."""
    before = turn.before
    known = [records.cancelled(record) if state is RunState.CANCELLED else record for record in stages.values()]
    running = [record for record in known if record.state is State.RUNNING]
    failed = [record for record in known if record.state is State.FAILED]
    worst_first = [*failed, *running, *known]
    held = next((record for record in worst_first if record.reason and record.state is not State.DONE), None)
    phase = PHASES[state]
    reason = held.reason if held and phase is not Phase.SUCCEEDED else ""
    message = f"{held.name}: {held.message}"[: records.LONGEST_LINE] if held and reason else ""
    _tell(turn, phase, message)
    status = ResourceStatus(
        observed_generation=generation(turn.seen.run),
        phase=phase,
        stage=", ".join(record.name for record in running)[: records.LONGEST_WORD]
        or (failed[0].name if failed else ""),
        progress=progress_of(known),
        reason=reason,
        message=message,
        started=before.started or turn.moment,
        ended=turn.moment if phase.terminal else "",
        retried=retry_at(turn.seen.run) or before.retried,
        stages=known,
        tracking=turn.seen.tracking or before.tracking,
    )
    return bounded(with_conditions(status, before, turn.seen, turn.now))


def generation(run: Resource) -> int:
    return int(run["metadata"].get("generation", 0))


def retry_at(run: Resource) -> str:
    """When a person last asked for another try, "" = never."""
    return str((run["metadata"].get("annotations") or {}).get(RETRY_AT, ""))[: records.LONGEST_WORD]


def with_conditions(status: ResourceStatus, before: ResourceStatus, seen: Seen, now: float) -> ResourceStatus:
    """Of an MLflow that was not asked, what was said before stands."""
    tracking_error = seen.tracking_error
    phase, invalid = status.phase, status.reason == INVALID
    suspended = phase is Phase.SUSPENDED
    while_it_runs, at_its_end = ("", status.message) if phase.terminal else (status.message, "")
    word, why = "Valid", ""
    if invalid:
        word, why = INVALID, status.message
    elif seen.installation and not phase.terminal:
        word, why = INSTALLATION, seen.installation
    wanted: list[tuple[ConditionType, bool, str, str]] = [
        (ConditionType.ACCEPTED, not invalid, word, why),
        (ConditionType.SUSPENDED, suspended, "Suspended" if suspended else "NotSuspended", ""),
        (ConditionType.PROGRESSING, phase is Phase.RUNNING, status.reason or phase.value, while_it_runs),
        (ConditionType.SUCCEEDED, phase is Phase.SUCCEEDED, phase.value, ""),
        (ConditionType.FAILED, phase in (Phase.FAILED, Phase.CANCELLED), phase.value, at_its_end),
    ]
    if tracking_error is not None:
        word = "Unavailable" if tracking_error else "Available"
        wanted.append((ConditionType.TRACKING, not tracking_error, word, tracking_error))
    conditions = [_condition(each, before, status.observed_generation, now) for each in wanted]
    said = before.condition(ConditionType.TRACKING)
    if tracking_error is None and said is not None:
        conditions.append(said.model_copy(update={"observed_generation": status.observed_generation}))
    return status.model_copy(update={"conditions": conditions})


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


def _tell(turn: Turn, phase: Phase, message: str) -> None:
    if phase.terminal and not turn.before.phase.terminal:
        told = any(event.warning for event in turn.events)
        said = {Phase.SUCCEEDED: "all stages are done", Phase.CANCELLED: "as asked"}
        text = said.get(phase, "no further attempt" if told else message)
        turn.tell(f"Run{phase.value}", text, warning=phase is Phase.FAILED)
    if phase is Phase.SUSPENDED and turn.before.phase is not Phase.SUSPENDED:
        turn.tell("RunSuspended", "what ran was told to save and stop")


def _condition(
    wanted: tuple[ConditionType, bool, str, str], before: ResourceStatus, observed: int, now: float
) -> Condition:
    kind, true, reason, message = wanted
    old = before.condition(kind)
    value = "True" if true else "False"
    since = old.last_transition_time if old and old.status == value else rfc3339(now)
    said = {"type": kind, "status": value, "reason": reason, "message": message[: records.LONGEST_LINE]}
    return Condition.model_validate({**said, "last_transition_time": since, "observed_generation": observed})


def progress_of(stages: Sequence[StageRecord]) -> str:
    done = sum(record.state is State.DONE for record in stages)
    percents = [f"{record.progress.percent}%" for record in stages if record.state is State.RUNNING and record.progress]
    return f"{done}/{len(stages)}" + (f" ({', '.join(percents[:4])})" if percents else "")


def _without_progress(status: ResourceStatus) -> ResourceStatus:
    stages = [record.model_copy(update={"progress": None}) for record in status.stages]
    return status.model_copy(update={"stages": stages, "progress": status.progress.partition(" ")[0]})
