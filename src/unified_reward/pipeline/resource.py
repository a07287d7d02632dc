"""`.status` of the custom resource: written by the operator, read by `kubectl get`, the CLI and the operator after a restart.

The CRD's status schema is made from these models. Nothing here grows without bound: causes are counted, not listed, and
what would not fit into LONGEST_BYTES gives way (`bounded`). A status says what was last decided; what runs is in the jobs.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from unified_reward.config.model import Model
from unified_reward.launch.causes import Cause
from unified_reward.pipeline.decide import State

GROUP, VERSION, KIND, PLURAL, SHORT = "unifiedreward.dev", "v1alpha1", "AlignmentRun", "alignmentruns", "arun"
RETRY_AT = f"{GROUP}/retry-at"  # annotation: a new value tries the failed stages of a failed run again
LONGEST_BYTES = 32 * 1024
MOST_STAGES = 160
Line = Annotated[str, StringConstraints(max_length=1024)]
Word = Annotated[str, StringConstraints(max_length=253)]
Time = Annotated[str, StringConstraints(max_length=32)]


class Phase(StrEnum):
    """One word for a person; programs look at the conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def terminal(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


class ConditionType(StrEnum):
    """Failed is also true of a cancelled run, with the reason Cancelled, so that who waits for either end is told."""

    ACCEPTED = "Accepted"
    SUSPENDED = "Suspended"
    PROGRESSING = "Progressing"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TRACKING = "TrackingReady"


class Part(Model):
    """Of a status. A field that another version wrote is skipped, so that an upgrade or its undoing reads on."""

    model_config = ConfigDict(extra="ignore")


class Condition(Part):
    """As KEP-1623 has it."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Word = Field(min_length=1)
    message: Line = ""
    last_transition_time: Time = ""
    observed_generation: int = 0


class StageProgress(Part):
    """As the stage's first process said it last. percent of its units; seconds left, -1 = unknown."""

    percent: int = Field(ge=0, le=100)
    text: Line = ""
    seconds_left: int = Field(-1, ge=-1)
    updated: Time = ""


class LastFailure(Part):
    """Of the attempt that ended last without a result."""

    cause: Cause
    reason: Word = ""
    exit_code: int = -1
    message: Line = ""
    attempt: int = 0
    time: Time = ""


class Stopped(StrEnum):
    """Why the operator took a job away; said before it does, so that it is known whoever looks next."""

    NO = ""
    LOST = "PodLost"
    CANNOT_START = "CannotStart"
    SUSPENDED = "Suspended"


class StageRecord(Part):
    """One node of the graph. job: of the current or last attempt. key: of its result in the store; of a stage that
    waits, a result that is there already. failures: attempts since the run was last asked to retry, by cause; earlier:
    attempts that do not count. cpu_seconds, peak_memory_bytes: over all attempts, as far as their pods told; memory of
    the largest process of each node, added up, in the attempt that took most. started: of several pods, when the last was
    made of those that then all ran. reason: why it waits or failed, one word; message: the same for a person."""

    name: Word
    state: State = State.WAITING
    attempt: int = 0
    job: Word = ""
    launched: Time = ""
    started: Time = ""
    ended: Time = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    key: Word = ""
    reused: bool = False
    metrics: dict[str, float] = Field(default_factory=dict, max_length=16)
    failures: dict[str, int] = Field(default_factory=dict, max_length=8)
    earlier: int = 0
    last_failure: LastFailure | None = None
    stopped: Stopped = Stopped.NO
    reason: Word = ""
    message: Line = ""
    progress: StageProgress | None = None


class Tracking(Part):
    """The run's page in MLflow. state: the status MLflow was told."""

    experiment_id: Word = ""
    run_id: Word = ""
    url: Line = ""
    state: Word = ""


class ResourceStatus(Part):
    """stage, progress, reason, message: what `kubectl get arun` shows. retried: the retry annotation last acted on."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    stage: Word = ""
    progress: Word = ""
    reason: Word = ""
    message: Line = ""
    started: Time = ""
    ended: Time = ""
    retried: Word = ""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    stages: list[StageRecord] = Field(default_factory=list, max_length=MOST_STAGES)
    tracking: Tracking | None = None

    def condition(self, kind: ConditionType) -> Condition | None:
        return next((each for each in self.conditions if each.type is kind), None)

    def document(self) -> dict[str, Any]:
        """As it stands in the resource: camelCase, without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def bounded(status: ResourceStatus) -> ResourceStatus:
    """The status, without numbers and then without messages of stages where it would be larger than LONGEST_BYTES."""
    lighten: dict[str, Any]
    for lighten in (
        {},
        {"metrics": {}},
        {"metrics": {}, "message": "", "progress": None},
        {"metrics": {}, "message": "", "progress": None, "last_failure": None, "launched": "", "started": ""},
    ):
        stages = [record.model_copy(update=lighten) for record in status.stages]
        lighter = status.model_copy(update={"stages": stages})
        if len(json.dumps(lighter.document())) <= LONGEST_BYTES:
            break
    return lighter
