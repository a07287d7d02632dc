"""The document, an `AlignmentRun`: the same on a laptop (`unified-reward run`) and on a cluster (`kubectl apply`)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from unified_reward.config.cluster import ClusterSpec
from unified_reward.config.engines import EngineName
from unified_reward.config.forms import RunName
from unified_reward.config.model import Model, fault
from unified_reward.config.stages import (
    DpoTrainConfig,
    GenerateConfig,
    Grader,
    ImportConfig,
    PairWay,
    PolicyEvalConfig,
    RewardEvalConfig,
    RewardTrainConfig,
    ScoreConfig,
)


class PolicyKind(StrEnum):
    VLM = "vlm"
    DIFFUSION = "diffusion"


SHAPES = "shapes"
PROMPT_FIELDS = {PolicyKind.VLM: "vlm_prompts", PolicyKind.DIFFUSION: "image_prompts"}


class TrackingSpec(Model):
    """Where MLflow is. Without a URI: SQLite and local files beside the store."""

    uri: str = Field("", description="MLflow tracking URI; empty = a file here, on a cluster the installation's")
    experiment: str = Field("unified-reward", min_length=1, description="MLflow experiment")


class Sweep(Model):
    """Repeats of a policy that differ in seed and in the way pairs are made: an ablation in one document."""

    seeds: list[int] = Field(
        default_factory=lambda: [0],
        min_length=1,
        max_length=64,
        description="a repeat for each, in place of the policy's seed",
    )
    ways: list[PairWay] = Field(
        default_factory=list,
        max_length=4,
        description="a repeat for each, as score.way; empty = the way named under score",
    )


class PolicySpec(Model):
    """A model to align: what it starts from, and its four stages."""

    name: RunName = Field(description="of the policy, in stages, tables and files")
    kind: PolicyKind = Field(description="vlm answers questions in words, diffusion draws pictures")
    base: str = Field(min_length=1, description="model to start from: builtin:NAME, a directory, or store:PREFIX")
    seed: int = Field(0, description="added to spec.seed for this policy's stages")
    group: str = Field("", description="set by a sweep: policies of one group are summed up together")
    generate: GenerateConfig = Field(default_factory=GenerateConfig)
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    dpo_train: DpoTrainConfig = Field(default_factory=DpoTrainConfig)
    policy_eval: PolicyEvalConfig = Field(default_factory=PolicyEvalConfig)
    sweep: Sweep | None = Field(None, description="repeat the policy under several seeds or ways; empty = once")

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.kind is PolicyKind.DIFFUSION and self.generate.engine is EngineName.VLLM:
            raise fault("generate.engine", "vllm", "this policy draws images, and vLLM writes text", "Leave it out.")
        return self


class RunSpec(Model):
    """The seven stages of the method, what they work on, and, on a cluster, where and whether they run."""

    seed: int = Field(0, ge=0, description="seed of everything that is drawn")
    suspend: bool = Field(False, description="cluster: stop what runs, with a checkpoint; false goes on from there")
    cancel: bool = Field(False, description="cluster: end the run for good")
    ttl_seconds_after_finished: int = Field(
        0, ge=0, description="cluster: seconds after its end at which this resource goes, data stays; 0 = never"
    )
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)
    store: str = Field(
        "", description="file:///DIR or s3://BUCKET/PREFIX; empty = the directory here, on a cluster the installation's"
    )
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    import_: ImportConfig = Field(default_factory=ImportConfig, alias="import")
    reward_train: RewardTrainConfig = Field(default_factory=RewardTrainConfig)
    reward_eval: RewardEvalConfig = Field(default_factory=RewardEvalConfig)
    policies: list[PolicySpec] = Field(
        default_factory=list, max_length=64, description="models to align; empty = the run ends with its judge"
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [p.name for p in self.policies]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise fault("policies", twice[0], "two entries have this name", "Give each policy a name of its own.")
        return self

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        """Every policy is asked something, and nothing counts on a truth that its prompts do not tell."""
        for place, policy in enumerate(self.policies):
            field = PROMPT_FIELDS[policy.kind]
            if self.import_.source != SHAPES and not getattr(self.import_, field):
                why = f"policy {policy.name} ({policy.kind}) would be asked nothing: source is {self.import_.source}"
                raise fault(f"import.{field}", "[]", why, "Name files of prompts (docs/data.md), or remove the policy.")
            if not self.truth_known(policy.kind):
                _check_truth(f"policies.{place}", policy)
        return self

    def truth_known(self, kind: PolicyKind) -> bool:
        """Whether facts are known that an answer to this kind's prompts must hold: only the shapes world tells them."""
        return not getattr(self.import_, PROMPT_FIELDS[kind])

    def expanded_policies(self) -> list[PolicySpec]:
        """The policies with every sweep written out, one policy for each seed and way."""
        return [variant for policy in self.policies for variant in _variants(policy)]


class Metadata(Model):
    """What the run is called."""

    name: RunName = Field(description="of the run; run again under the same name, it goes on where it was")
    namespace: str = Field("", description="cluster: where it runs; empty = as the command or the kubeconfig says")
    labels: dict[str, str] = Field(default_factory=dict, description="cluster: for your own selections; not read here")
    annotations: dict[str, str] = Field(default_factory=dict, description="cluster: for your own notes; not read here")


class AlignmentRun(Model):
    """One run of the whole method, from data to aligned policies."""

    api_version: Literal["unifiedreward.dev/v1alpha1"] = Field(
        "unifiedreward.dev/v1alpha1", description="of this layout of fields"
    )
    kind: Literal["AlignmentRun"] = Field("AlignmentRun", description="what the document is")
    metadata: Metadata
    spec: RunSpec = Field(default_factory=RunSpec)

    def document(self) -> dict[str, Any]:
        """The run as it would be written in YAML."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=False)


def _check_truth(path: str, policy: PolicySpec) -> None:
    if policy.policy_eval.grader is Grader.TRUTH:
        why = "prompts from files tell no facts to grade by"
        raise fault(f"{path}.policy_eval.grader", Grader.TRUTH, why, "Use judge, or leave it out.")
    if policy.dpo_train.validate_every:
        why = "validation grades answers by known facts, and prompts from files tell none"
        raise fault(
            f"{path}.dpo_train.validate_every", policy.dpo_train.validate_every, why, "Use 0 (and select: last)."
        )


def _variants(policy: PolicySpec) -> list[PolicySpec]:
    if policy.sweep is None:
        return [policy]
    variants = []
    for way in policy.sweep.ways or [policy.score.way]:
        for seed in policy.sweep.seeds:
            label = re.sub(r"[^a-z0-9]", "-", way.value)
            variants.append(policy.model_copy(update={
                "name": f"{policy.name}-{label}-s{seed}",
                "group": f"{policy.name}/{way.value}",
                "seed": seed,
                "score": policy.score.model_copy(update={"way": way}),
                "sweep": None,
            }))  # fmt: skip
    return variants
