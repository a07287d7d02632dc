"""Pure: what is known of a run's stages -> what to do next. Both executors (this machine, the cluster) drive it.

Nothing here does I/O or reads a clock, so every rule is a table of values in the tests:
- a stage starts only when all it needs are done; at most one attempt of a stage is alive;
- a finished run stays finished; attempts only count up;
- a retry is bounded by its cause: what a person must mend is never retried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unified_reward.launch.causes import Cause


class State(StrEnum):
    """Of a stage."""

    WAITING = "Waiting"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class RunState(StrEnum):
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True)
class Limits:
    """slots: processes at once. retries: further attempts after failures of each cause. backoff: seconds, doubled each time."""

    slots: int
    retries: Mapping[Cause, int]
    backoff_seconds: float = 1.0

    @classmethod
    def default(cls, slots: int) -> Limits:
        return cls(slots, {Cause.USER: 0, Cause.PREEMPTED: 20, Cause.MEMORY: 1, Cause.CRASHED: 1})


@dataclass(frozen=True)
class View:
    """What is known of a stage. processes: slots it takes. committed: its result is in the store.

    failures: causes of the attempts that ended without one, in order. last_ended: when the last of them did.
    earlier: attempts before those, which no longer count against it because a person asked to try again.
    """

    id: str
    needs: frozenset[str]
    processes: int
    state: State
    committed: bool = False
    failures: tuple[Cause, ...] = ()
    last_ended: float = 0.0
    earlier: int = 0

    @property
    def attempt(self) -> int:
        """The number of the attempt that runs or comes next."""
        return self.earlier + len(self.failures) + 1


@dataclass(frozen=True)
class Action:
    kind: ActionKind
    node: str
    attempt: int = 1


class ActionKind(StrEnum):
    REUSE = "reuse"  # its result is there: mark it done
    LAUNCH = "launch"
    STOP = "stop"
    FAIL = "fail"  # no further attempt


@dataclass(frozen=True)
class Decision:
    actions: tuple[Action, ...]
    state: RunState
    next_look: float | None = None  # seconds since the epoch at which waiting for a backoff ends


def decide(
    views: Sequence[View], limits: Limits, *, now: float, cancelled: bool = False, suspended: bool = False
) -> Decision:
    """The next actions. Given in the same order, the same views give the same decision.

    suspended: what runs is stopped and goes on later as the same attempt; results that are there still count.
    """
    by_id = {view.id: view for view in views}
    if cancelled:
        ended = all(v.state is State.DONE for v in views)
        return Decision(_stops(views), RunState.SUCCEEDED if ended else RunState.CANCELLED)
    actions: list[Action] = []
    free = limits.slots - sum(v.processes for v in views if v.state is State.RUNNING)
    failed = {v.id for v in views if v.state is State.FAILED}
    next_look: float | None = None
    for view in views:
        if view.state is not State.WAITING or any(by_id[need].state is not State.DONE for need in view.needs):
            continue
        if view.committed:
            actions.append(Action(ActionKind.REUSE, view.id))
            continue
        if not _may_retry(view, limits):
            actions.append(Action(ActionKind.FAIL, view.id))
            failed.add(view.id)
            continue
        if suspended:
            continue
        ready_at = view.last_ended + _backoff(view, limits)
        if ready_at > now:
            next_look = min(ready_at, next_look) if next_look else ready_at
        elif failed:
            continue  # let what runs finish; start nothing new for a run that has failed
        elif min(view.processes, limits.slots) <= free:
            free -= view.processes
            actions.append(Action(ActionKind.LAUNCH, view.id, view.attempt))
    if suspended:
        actions += _stops(views)
        state = RunState.RUNNING if any(a.kind is ActionKind.REUSE for a in actions) else _state(views, failed, actions)
        return Decision(tuple(actions), RunState.SUSPENDED if state is RunState.RUNNING else state, None)
    return Decision(tuple(actions), _state(views, failed, actions), next_look)


def _stops(views: Sequence[View]) -> tuple[Action, ...]:
    return tuple(Action(ActionKind.STOP, v.id, v.attempt) for v in views if v.state is State.RUNNING)


def _state(views: Sequence[View], failed: set[str], actions: Sequence[Action]) -> RunState:
    if all(v.state is State.DONE for v in views):
        return RunState.SUCCEEDED
    busy = any(v.state is State.RUNNING for v in views) or any(
        a.kind in (ActionKind.LAUNCH, ActionKind.REUSE) for a in actions
    )
    return RunState.FAILED if failed and not busy else RunState.RUNNING


def _may_retry(view: View, limits: Limits) -> bool:
    return all(view.failures.count(cause) <= limits.retries[cause] for cause in set(view.failures))


def _backoff(view: View, limits: Limits) -> float:
    return limits.backoff_seconds * 2 ** min(len(view.failures) - 1, 6) if view.failures else 0.0
