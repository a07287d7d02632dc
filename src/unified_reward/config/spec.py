"""What a stage process is handed: everything it may depend on, in one JSON document."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from unified_reward.config.model import Model
from unified_reward.config.run import PolicyKind, TrackingSpec
from unified_reward.config.stages import STAGE_CONFIGS, Stage, StageConfig


class ArtifactRef(Model):
    """A committed output: the prefix it stands under in the store, and the sha256 of its manifest."""

    prefix: str = Field(min_length=1)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class StageSpec(Model):
    """One execution of one stage.

    key: names the output, `stages/<stage>/<key>/`. inputs: pinned by digest. policy_*: only for per-policy stages;
    policy_base is a model reference (`builtin:`, a directory or `store:PREFIX`). work_dir: scratch on this machine
    that survives a restart. parent_key: names the tracking run of the whole AlignmentRun.
    """

    stage: Stage
    run: str
    store: str
    key: str = Field(pattern=r"^[0-9a-f]{8,64}$")
    config: dict[str, Any]
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict)
    seed: int = 0
    policy: str = ""
    policy_kind: PolicyKind | None = None
    policy_base: str = ""
    work_dir: str
    tracking: TrackingSpec | None = None
    parent_key: str = ""

    def stage_config(self) -> StageConfig:
        return STAGE_CONFIGS[self.stage].model_validate(self.config)

    @property
    def output_prefix(self) -> str:
        return f"stages/{self.stage}/{self.key}"
