"""Pure: how the record of a stage changes. Each function gives the record that comes after; none asks why."""

from __future__ import annotations

from collections.abc import Iterable

from operators.alignmentrun.observe import Failure
from unified_reward.launch.ending import Ending, read_ending
from unified_reward.launch.pods import Resource, terminated
from unified_reward.pipeline.decide import State
from unified_reward.pipeline.resource import LastFailure, StageRecord, Stopped

LONGEST_WORD, LONGEST_LINE, MOST_METRICS = 253, 1024, 16  # as the CRD has them
SILENT = {"reason": "", "message": "", "progress": None}


def begun(record: StageRecord, attempt: int, job: str, launched: str, *, earlier: int) -> StageRecord:
    """Its attempt's job is there."""
    new = {"state": State.RUNNING, "attempt": attempt, "job": job, "launched": launched, "earlier": earlier}
    return record.model_copy(update={**new, **SILENT, "started": "", "ended": "", "stopped": Stopped.NO})


def cleared(record: StageRecord) -> StageRecord:
    """Nothing of it runs, so nothing is told of how it runs."""
    return record.model_copy(update={**SILENT, "started": ""})


def held(record: StageRecord, reason: str, message: str, stopped: Stopped = Stopped.NO) -> StageRecord:
    """It does not go on, and this is why."""
    told = {"reason": reason[:LONGEST_WORD], "message": message[:LONGEST_LINE], "stopped": stopped}
    return record.model_copy(update=told)


def waiting_again(record: StageRecord) -> StageRecord:
    """After a suspension that took the job away: no failure, and the next attempt has a number of its own."""
    again = {"state": State.WAITING, "earlier": record.earlier + 1, "stopped": Stopped.NO}
    return cleared(record).model_copy(update=again)


def forgiven(record: StageRecord) -> StageRecord:
    """Its failures no longer count; the number of an attempt that runs stays."""
    if record.state is State.DONE:
        return record
    if record.state is State.RUNNING:
        return record.model_copy(update={"earlier": record.attempt - 1, "failures": {}})
    again = {"state": State.WAITING, "earlier": record.attempt, "failures": {}}
    return record.model_copy(update={**again, "reason": "", "message": "", "ended": ""})


def reused(record: StageRecord, moment: str) -> StageRecord:
    """Its result was in the store before any job of it."""
    done = {"state": State.DONE, "reused": True, "reason": "", "message": "", "ended": moment}
    return record.model_copy(update=done)


def charged(record: StageRecord, pods: Iterable[Resource]) -> StageRecord:
    """With the cost of an attempt that has ended, by those of its pods that are there to tell."""
    endings = (read_ending(terminated(pod).get("message") or "") for pod in pods)
    told = [ending for ending in endings if ending is not None]
    cost = {
        "cpu_seconds": round(record.cpu_seconds + sum(each.cpu_seconds for each in told), 2),
        "peak_memory_bytes": max(record.peak_memory_bytes, sum(each.peak_rss_bytes for each in told)),
    }
    return record.model_copy(update=cost)


def succeeded(record: StageRecord, job: Resource, ending: Ending | None, moment: str) -> StageRecord:
    """ending: of the job's first node, where its pod is still there to tell."""
    result = ending.result if ending else {}
    measured = dict(result.get("metrics") or {}).items()
    numbers = {name: float(value) for name, value in measured if isinstance(value, int | float)}
    done = {
        "state": State.DONE,
        "key": str(result.get("key", ""))[:LONGEST_WORD],
        "reused": bool(result.get("reused", False)),
        "seconds": float(result.get("seconds", 0.0)) or (ending.seconds if ending else 0.0),
        "metrics": dict(list(numbers.items())[:MOST_METRICS]),
        "started": str(job.get("status", {}).get("startTime") or record.started),
        "ended": str(job.get("status", {}).get("completionTime") or moment),
        "stopped": Stopped.NO,
    }
    return record.model_copy(update={**SILENT, **done})


def failed(record: StageRecord, failure: Failure, moment: str) -> StageRecord:
    """Whether another attempt follows is not decided here."""
    cause = failure.cause.value
    reason, message = failure.reason[:LONGEST_WORD], failure.message[:LONGEST_LINE]
    last = LastFailure(
        cause=failure.cause, reason=reason, exit_code=failure.exit_code, message=message, attempt=record.attempt, time=moment
    )  # fmt: skip
    ended = {
        "state": State.WAITING,
        "failures": {**record.failures, cause: record.failures.get(cause, 0) + 1},
        "last_failure": last,
        "ended": moment,
        "stopped": Stopped.NO,
    }
    return record.model_copy(update={**SILENT, **ended, "reason": reason, "message": message})


def cancelled(record: StageRecord) -> StageRecord:
    if record.state in (State.DONE, State.FAILED):
        return record
    return record.model_copy(update={**SILENT, "state": State.CANCELLED, "key": ""})
