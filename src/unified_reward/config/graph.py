"""The stages of a run, and for each input which stage's output it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from unified_reward.config.run import AlignmentRun, PolicyKind, PolicySpec
from unified_reward.config.stages import Grader, PolicyEvalConfig, Stage, StageConfig


@dataclass(frozen=True)
class Source:
    """An output: of which node, under which name."""

    node: str
    output: str


@dataclass(frozen=True)
class Node:
    """One stage of one run, or of one policy of it. id: `reward-train`, `score/vlm`."""

    stage: Stage
    config: StageConfig
    seed: int
    policy: PolicySpec | None = None
    inputs: dict[str, Source] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.policy.name}" if self.policy else self.stage.value

    @property
    def needs(self) -> set[str]:
        return {source.node for source in self.inputs.values()}


def build_graph(run: AlignmentRun) -> dict[str, Node]:
    """All nodes by id, each after those it needs."""
    spec = run.spec
    records = {"judge_records": Source(Stage.IMPORT, "judge_records")}
    judge = {"judge": Source(Stage.REWARD_TRAIN, "judge")}
    nodes = [
        Node(
            Stage.IMPORT, spec.import_, spec.seed, models={"folder": folder} if (folder := spec.import_.folder) else {}
        ),
        Node(Stage.REWARD_TRAIN, spec.reward_train, spec.seed, inputs=records, models={"base": spec.reward_train.base}),
        Node(Stage.REWARD_EVAL, spec.reward_eval, spec.seed, inputs={**records, **judge}),
    ]
    for policy in spec.expanded_policies():
        nodes += _policy_nodes(policy, spec.seed + policy.seed, truth_known=spec.truth_known(policy.kind))
    return {node.id: node for node in nodes}


def by_urgency(nodes: dict[str, Node]) -> list[Node]:
    """The nodes, those first that the longest chain of others waits for; else in their order."""
    chain: dict[str, int] = {}
    for node in reversed(nodes.values()):
        chain[node.id] = 1 + max((chain[other.id] for other in nodes.values() if node.id in other.needs), default=0)
    return sorted(nodes.values(), key=lambda node: -chain[node.id])


def _policy_nodes(policy: PolicySpec, seed: int, *, truth_known: bool) -> list[Node]:
    prompts_name = "prompts_diffusion" if policy.kind is PolicyKind.DIFFUSION else "prompts_vlm"
    prompts = {prompts_name: Source(Stage.IMPORT, prompts_name)}
    candidates = {"candidates": Source(f"{Stage.GENERATE}/{policy.name}", "candidates")}
    pairs = {"pairs": Source(f"{Stage.SCORE}/{policy.name}", "pairs")}
    aligned = {"policy": Source(f"{Stage.DPO_TRAIN}/{policy.name}", "policy")}
    judge = {"judge": Source(Stage.REWARD_TRAIN, "judge")}
    base = {"policy_base": policy.base}
    measure = _grader_named(policy.policy_eval, truth_known=truth_known)
    own = judge if measure.grader is Grader.JUDGE and not measure.judge else {}
    other = {"judge": measure.judge} if measure.judge else {}
    return [
        Node(Stage.GENERATE, policy.generate, seed, policy, prompts, base),
        Node(Stage.SCORE, policy.score, seed, policy, {**prompts, **candidates, **judge}),
        Node(Stage.DPO_TRAIN, policy.dpo_train, seed, policy, {**prompts, **candidates, **pairs}, base),
        Node(Stage.POLICY_EVAL, measure, seed, policy, {**prompts, **aligned, **own}, {**base, **other}),
    ]


def _grader_named(config: PolicyEvalConfig, *, truth_known: bool) -> PolicyEvalConfig:
    """`auto` as what it stands for in this run, so that the stage's config alone says what it reads."""
    if config.grader is not Grader.AUTO:
        return config
    grader = Grader.TRUTH if truth_known and not config.judge else Grader.JUDGE
    return config.model_copy(update={"grader": grader})
