"""The single source of truth: what a run is (`AlignmentRun`), what each stage takes, what a stage process is handed.

The CLI, the TorchX components, the custom resource and the docs are made from these models.
"""

from unified_reward.config.cluster import ClusterDefaults, ClusterSpec
from unified_reward.config.load import load_document, parse_document, validate
from unified_reward.config.placement import Placement, placement, read_defaults
from unified_reward.config.run import AlignmentRun, PolicyKind, PolicySpec, RunSpec, TrackingSpec
from unified_reward.config.spec import ArtifactRef, StageSpec
from unified_reward.config.stages import (
    STAGE_CONFIGS,
    DpoTrainConfig,
    GenerateConfig,
    Grader,
    ImportConfig,
    PolicyEvalConfig,
    RewardEvalConfig,
    RewardTrainConfig,
    ScoreConfig,
    Stage,
    StageConfig,
    TrainLoopConfig,
)

__all__ = [
    "STAGE_CONFIGS",
    "AlignmentRun",
    "ArtifactRef",
    "ClusterDefaults",
    "ClusterSpec",
    "DpoTrainConfig",
    "GenerateConfig",
    "Grader",
    "ImportConfig",
    "Placement",
    "PolicyEvalConfig",
    "PolicyKind",
    "PolicySpec",
    "RewardEvalConfig",
    "RewardTrainConfig",
    "RunSpec",
    "ScoreConfig",
    "Stage",
    "StageConfig",
    "StageSpec",
    "TrackingSpec",
    "TrainLoopConfig",
    "load_document",
    "parse_document",
    "placement",
    "read_defaults",
    "validate",
]
