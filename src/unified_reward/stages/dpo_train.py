"""dpo-train: align the policy with the judge's pairs (paper, eq. 3 for VLMs, eq. 4 for diffusion models)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fsdp_utils.precision import parse_dtype
from unified_reward import progress
from unified_reward.config import ArtifactRef, DpoTrainConfig, PolicyKind
from unified_reward.config.stages import Selection, Trains
from unified_reward.data.media import UNLIMITED
from unified_reward.errors import UserError
from unified_reward.records import Candidate, PreferencePair, Prompt
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.generate import CANDIDATES, prompts_name
from unified_reward.stages.grading import RIGHT, grade_images, grade_texts, is_graded
from unified_reward.stages.media import MediaReader
from unified_reward.stages.trained import curves, export_image_policy, export_vlm, summary, train_stage
from unified_reward.training.loop import Metrics, TrainResult
from unified_reward.training.objective import Objective

POLICY = "policy"
Validate = Callable[[int], Metrics]


def run(context: StageContext) -> StageResult:
    config = context.config(DpoTrainConfig)
    pairs = [row for row in context.dataset("pairs", PreferencePair).records() if not row.dropped]
    if len(pairs) < config.global_batch:
        raise UserError(
            field="dpoTrain.globalBatch", value=config.global_batch, why=f"only {len(pairs)} preference pairs were kept",
            fix="Lower it, ask more prompts or candidates, or loosen score.minMargin.",
        )  # fmt: skip
    align = _align_images if context.spec.policy_kind is PolicyKind.DIFFUSION else _align_vlm
    result, reference = align(context, config, pairs)
    return StageResult(
        outputs={POLICY: reference} if reference else {},
        metrics={"pairs": len(pairs), **summary(result)},
        report={"curves": curves(result)},
    )


def _align_vlm(
    context: StageContext, config: DpoTrainConfig, pairs: Sequence[PreferencePair]
) -> tuple[TrainResult, ArtifactRef | None]:
    from unified_reward.generation.vlm import greedy_answers, prompt_segments
    from unified_reward.models.vlm import load_vlm
    from unified_reward.training.dpo import DpoObjective
    from unified_reward.training.packing import answer_tree
    from unified_reward.training.parallel import prepare_vlm
    from unified_reward.training.reference import reference_logprobs

    data = context.dataset(prompts_name(context), Prompt)
    media = MediaReader(data)
    vlm = load_vlm(context.base(context.spec.policy_base), meta=True)
    scorer = prepare_vlm(vlm, config, context.dist, seed=context.spec.seed)
    prompts = {prompt.id: prompt for prompt in data.records()}
    trees = [
        answer_tree(vlm.processor, prompt_segments(prompts[row.prompt_id], media), (row.chosen, row.rejected))
        for row in pairs
    ]
    reference = reference_logprobs(
        scorer, trees, weights_digest=f"{context.base_digest(context.spec.policy_base)}/{config.precision}",
        pad_id=vlm.processor.pad_id, blobs=context.store, prefix="reference", dist=context.dist,
        progress=lambda done, total: progress.report(done, total, "batches", "reference log-probs"),
    )  # fmt: skip
    objective = DpoObjective(
        vlm,
        trees,
        reference,
        context.dist,
        beta=config.beta,
        loss=config.loss,
        label_smoothing=config.label_smoothing,
        scorer=scorer,
    )
    asked = _validation_prompts(prompts.values(), config)

    def validate(step: int) -> Metrics:  # noqa: ARG001  (the loop's signature)
        own = asked[context.dist.rank :: context.dist.world_size]
        answers = greedy_answers(vlm, own, media, max_new_tokens=config.validation_tokens, batch=256)
        return _share(context, [graded.right for graded in grade_texts(own, answers)])

    result = _train(context, config, objective, len(pairs), validate if asked else None)
    return result, export_vlm(context, POLICY, vlm, scorer, meta={"base": context.spec.policy_base})


def _align_images(
    context: StageContext, config: DpoTrainConfig, pairs: Sequence[PreferencePair]
) -> tuple[TrainResult, ArtifactRef | None]:
    from unified_reward.generation.diffusion import draw_for_prompts
    from unified_reward.models.diffusion import load_image_policy
    from unified_reward.models.diffusion_sampler import DiffusionSampler
    from unified_reward.training.diffusion_dpo import DiffusionDpo, ImagePair
    from unified_reward.training.parallel import flat, parallelise

    if config.trains is not Trains.ALL:
        raise UserError(field="dpoTrain.trains", value=config.trains, why="a diffusion policy is trained whole",
                        fix="Use all.")  # fmt: skip
    base = context.base(context.spec.policy_base)
    policy = load_image_policy(base, device=context.dist.device)
    prompts = {prompt.id: prompt for prompt in context.dataset(prompts_name(context), Prompt).records()}
    drawn = MediaReader(context.dataset(CANDIDATES, Candidate), UNLIMITED)  # at the size they were drawn in
    images = [ImagePair(prompts[r.prompt_id].text, r.chosen, r.rejected) for r in pairs]
    objective = DiffusionDpo(
        policy, images, drawn, config.beta, noise_from=config.noise_from, noise_levels=config.noise_levels,
        compute=parse_dtype(config.precision),
    )  # fmt: skip
    units = objective.shard_units()
    # The policy casts its own inputs: in bfloat16 a timestep of 999 would become 1000.
    parallelise(objective.root, units=units, layers=flat(units), config=config, dist=context.dist, cast_inputs=False)
    asked = _validation_prompts(prompts.values(), config)
    sampler = DiffusionSampler(steps=config.validation_steps)

    def validate(step: int) -> Metrics:  # noqa: ARG001  (the loop's signature)
        own = asked[context.dist.rank :: context.dist.world_size]
        pictures = draw_for_prompts(policy, own, config.validation_images, sampler, seed=context.spec.seed)
        return _share(context, [graded.right for graded in grade_images(own, pictures, config.validation_images)])

    result = _train(context, config, objective, len(pairs), validate if asked else None)
    return result, export_image_policy(context, POLICY, policy, base, meta={"base": context.spec.policy_base})


def _train(
    context: StageContext, config: DpoTrainConfig, objective: Objective, count: int, validate: Validate | None
) -> TrainResult:
    select_by = RIGHT if config.select is Selection.BEST else ""
    return train_stage(context, config, objective, dataset_size=count, validate=validate, select_by=select_by)


def _validation_prompts(prompts: Iterable[Prompt], config: DpoTrainConfig) -> list[Prompt]:
    """Prompts of the validation split whose answers can be graded, never those of the test split."""
    graded = [p for p in prompts if p.split == "validation" and is_graded(p)]
    return graded[: config.validation_prompts]


def _share(context: StageContext, right: Sequence[bool]) -> Metrics:
    """The share of right answers over all ranks."""
    parts = context.dist.gather_objects((sum(right), len(right)))
    return {RIGHT: sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts))}
