"""policy-eval: the policy before and after alignment on held-out prompts, against their truth or in a judge's opinion.

Both sides are asked the same: VLMs answer greedily, image policies draw from the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unified_reward import progress
from unified_reward.config import Grader, PolicyEvalConfig, PolicyKind
from unified_reward.data.media import Pixels
from unified_reward.errors import UserError
from unified_reward.evaluation.policy_metrics import policy_metrics
from unified_reward.records import Prompt
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.figures import log_before_after
from unified_reward.stages.generate import prompts_name
from unified_reward.stages.grading import grade_images, grade_texts, is_graded
from unified_reward.stages.media import MediaReader
from unified_reward.stages.opinion import DRAWN, SHOWN, check_judge, drawn_candidates, judged, written_candidates
from unified_reward.stages.reward_eval import flat
from unified_reward.store import Dataset, MediaWriter


def run(context: StageContext) -> StageResult:
    config = context.config(PolicyEvalConfig)
    data = context.dataset(prompts_name(context), Prompt)
    prompts = _held_out(data, config)
    if config.grader is Grader.JUDGE:
        check_judge(context, config, prompts)
    measure = _images if context.spec.policy_kind is PolicyKind.DIFFUSION else _texts
    result = measure(context, config, data, prompts)
    context.track.metrics(flat(result.metrics))
    context.track.table("examples", result.report["examples"])
    if context.spec.policy_kind is PolicyKind.DIFFUSION:
        log_before_after(context.track, result.report["examples"], MediaReader(data))
    return result


def _held_out(data: Dataset[Prompt], config: PolicyEvalConfig) -> list[Prompt]:
    tests = [prompt for prompt in data.records() if prompt.split == "test"]
    if not tests:
        raise UserError(
            field="policyEval", value=0, why="the data have no test prompt", fix="Import some with split test."
        )
    prompts = tests if config.grader is Grader.JUDGE else [prompt for prompt in tests if is_graded(prompt)]
    if not prompts:
        raise UserError(field="policyEval.grader", value=config.grader, why="no test prompt has a known truth to compare with",
                        fix="Use judge.")  # fmt: skip
    return prompts


def _models(context: StageContext) -> dict[str, Path]:
    return {"before": context.base(context.spec.policy_base), "after": context.model("policy")}


def _texts(
    context: StageContext, config: PolicyEvalConfig, data: Dataset[Prompt], prompts: Sequence[Prompt]
) -> StageResult:
    answers = _answers(context, config, prompts, MediaReader(data))
    if config.grader is Grader.JUDGE:
        return judged(context, config, data, prompts, written_candidates(context, prompts, answers))
    graded = {side: grade_texts(prompts, own) for side, own in answers.items()}
    examples = [
        {"prompt": p.text, "media": list(p.media), "truth": p.reference_answer, **{s: answers[s][i] for s in answers},
         **{f"{s}_right": graded[s][i].right for s in graded}}
        for i, p in enumerate(prompts[:SHOWN])
    ]  # fmt: skip
    metrics = policy_metrics(graded["before"], graded["after"], "greedy answers with every asked fact right")
    return StageResult(metrics=metrics, report={"examples": examples})


def _answers(
    context: StageContext, config: PolicyEvalConfig, prompts: Sequence[Prompt], media: MediaReader
) -> dict[str, list[str]]:
    """What each side answers to each prompt."""
    from unified_reward.generation.vlm import greedy_answers
    from unified_reward.models.vlm import load_vlm

    answers, models = {}, _models(context)
    for number, (side, directory) in enumerate(models.items()):
        vlm = load_vlm(directory, context.dtype, context.dist.device)
        answers[side] = greedy_answers(vlm, prompts, media, max_new_tokens=config.max_new_tokens, batch=config.batch)
        progress.report(number + 1, len(models), "models")
    return answers


def _images(
    context: StageContext, config: PolicyEvalConfig, data: Dataset[Prompt], prompts: Sequence[Prompt]
) -> StageResult:
    images, each = _drawings(context, config, prompts), config.images_per_prompt
    if config.grader is Grader.JUDGE:
        return judged(context, config, data, prompts, drawn_candidates(context, prompts, images, each))
    graded = {side: grade_images(prompts, own, each) for side, own in images.items()}
    shown = _stored(context, images, each)
    examples = [
        {
            "prompt": p.text,
            **{s: shown[s][i] for s in shown},
            **{f"{s}_right": [g.right for g in graded[s][i * each : i * each + min(each, DRAWN)]] for s in graded},
        }
        for i, p in enumerate(prompts[:SHOWN])
    ]
    metrics = policy_metrics(graded["before"], graded["after"], "images with every asked fact right")
    return StageResult(metrics=metrics, report={"examples": examples})


def _drawings(context: StageContext, config: PolicyEvalConfig, prompts: Sequence[Prompt]) -> dict[str, list[Pixels]]:
    """What each side draws, `images_per_prompt` for each prompt."""
    from unified_reward.generation.diffusion import draw_for_prompts
    from unified_reward.models.diffusion import load_image_policy
    from unified_reward.models.diffusion_sampler import DiffusionSampler

    sampler = DiffusionSampler(config.sampler_steps, config.guidance, config.batch)
    images, models = {}, _models(context)
    for number, (side, directory) in enumerate(models.items()):
        policy = load_image_policy(directory, context.dtype, context.dist.device)
        images[side] = draw_for_prompts(policy, prompts, config.images_per_prompt, sampler, seed=context.spec.seed)
        progress.report(number + 1, len(models), "models")
    return images


def _stored(context: StageContext, images: Mapping[str, Sequence[Pixels]], each: int) -> dict[str, list[list[str]]]:
    """Digests of the first DRAWN images of each prompt, once they are in the store."""
    from unified_reward.generation.diffusion import png

    media = MediaWriter(context.store)
    shown = {
        side: [[media.add(png(one)) for one in own[i : i + min(each, DRAWN)]] for i in range(0, len(own), each)]
        for side, own in images.items()
    }
    media.flush()
    media.close()
    return shown
