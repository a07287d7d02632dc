"""What a decision rests on (`Seen`), what it asks to be written (`Outcome`), and between them one `Turn` of deciding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unified_reward.config import AlignmentRun
from unified_reward.launch.pods import Resource
from unified_reward.launch.pytorchjob import ATTEMPT, NODE, node_label
from unified_reward.launch.times import rfc3339
from unified_reward.pipeline.resource import ResourceStatus, StageProgress, Tracking

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """All that a decision rests on. jobs: of this run, by its UID. pods: by job name. progress: by job name.

    refused: by job name, why the API server did not take it. tracking: what is known of the run in MLflow;
    tracking_error: why it does not answer, "" when it does, None when it was not asked.
    installation: why what the installation's admin wrote last is not used, "" = it is.
    """

    run: Resource
    jobs: Sequence[Resource] = ()
    pods: Mapping[str, Sequence[Resource]] = field(default_factory=dict)
    progress: Mapping[str, StageProgress] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    tracking: Tracking | None = None
    tracking_error: str | None = None
    installation: str = ""


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


@dataclass
class Turn:
    """One reconciliation of an accepted run: what is given, and what has been asked for so far.

    now, deadlines: seconds since the epoch. ahead: results of later stages that a job has found in the store, by node.
    """

    seen: Seen
    before: ResourceStatus
    document: AlignmentRun
    now: float
    apply: list[Manifest] = field(default_factory=list)
    suspend: list[tuple[str, bool]] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    ahead: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._jobs: dict[str, dict[int, Resource]] = {}
        for job in self.seen.jobs:
            labels = job["metadata"].get("labels", {})
            if NODE in labels and str(labels.get(ATTEMPT)).isdigit():
                self._jobs.setdefault(labels[NODE], {})[int(labels[ATTEMPT])] = job

    @property
    def moment(self) -> str:
        return rfc3339(self.now)

    def attempts(self, node: str) -> Mapping[int, Resource]:
        """The jobs of a stage that are there, by attempt."""
        return self._jobs.get(node_label(node), {})

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append(Event(reason, message, warning))

    def outcome(self, status: ResourceStatus) -> Outcome:
        return Outcome(
            status=status,
            apply=tuple(self.apply),
            suspend=tuple(self.suspend),
            delete=tuple(dict.fromkeys(self.delete)),
            events=_merged(self.events),
            next_look=min(self.deadlines, default=None),
        )


def _merged(events: Sequence[Event]) -> tuple[Event, ...]:
    """One of each kind at most: what happens at once is told at once, under the name of what came last."""
    kinds = [[event for event in events if event.warning is warning] for warning in (False, True)]
    return tuple(
        replace(several[-1], message="; ".join(event.message for event in several)) for several in kinds if several
    )
