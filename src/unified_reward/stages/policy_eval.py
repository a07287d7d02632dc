"""policy-eval: the policy before and after alignment, against the known truth of held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_reward import progress
from unified_reward.config import PolicyEvalConfig, PolicyKind
from unified_reward.errors import UserError
from unified_reward.evaluation.policy_metrics import Graded, policy_metrics
from unified_reward.records import Prompt
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.figures import log_before_after
from unified_reward.stages.generate import prompts_name
from unified_reward.stages.grading import grade_images, grade_texts, is_graded
from unified_reward.stages.media import MediaReader
from unified_reward.stages.reward_eval import flat
from unified_reward.store import MediaWriter

SHOWN = 24
DRAWN = 4  # pictures shown of each caption


def run(context: StageContext) -> StageResult:
    config = context.config(PolicyEvalConfig)
    data = context.dataset(prompts_name(context), Prompt)
    prompts = [p for p in data.records() if p.split == "test" and is_graded(p)]
    if not prompts:
        raise UserError(field="policyEval", value=0, why="no test prompt has a known truth to compare with",
                        fix="Import prompts with a test split and known facts.")  # fmt: skip
    directories = {"before": context.base(context.spec.policy_base), "after": context.model("policy")}
    if context.spec.policy_kind is PolicyKind.DIFFUSION:
        metrics, examples = _images(context, config, prompts, directories)
    else:
        metrics, examples = _texts(config, prompts, MediaReader(data), directories)
    context.track.metrics(flat(metrics))
    context.track.table("examples", examples)
    if context.spec.policy_kind is PolicyKind.DIFFUSION:
        log_before_after(context.track, examples, MediaReader(data))
    return StageResult(metrics=metrics, report={"examples": examples})


def _texts(
    config: PolicyEvalConfig, prompts: Sequence[Prompt], media: MediaReader, directories: dict[str, Path]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from unified_reward.generation.vlm import greedy_answers
    from unified_reward.models.vlm import load_vlm

    answers, graded = {}, {}
    for number, (side, directory) in enumerate(directories.items()):
        vlm = load_vlm(directory)
        answers[side] = greedy_answers(vlm, prompts, media, max_new_tokens=config.max_new_tokens, batch=config.batch)
        graded[side] = grade_texts(prompts, answers[side])
        progress.report(number + 1, len(directories), "models")
    examples = [
        {"prompt": p.text, "media": list(p.media), "truth": p.reference_answer, **{s: answers[s][i] for s in answers},
         **{f"{s}_right": graded[s][i].right for s in graded}}
        for i, p in enumerate(prompts[:SHOWN])
    ]  # fmt: skip
    return policy_metrics(graded["before"], graded["after"], "greedy answers with every asked fact right"), examples


def _images(
    context: StageContext, config: PolicyEvalConfig, prompts: Sequence[Prompt], directories: dict[str, Path]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from unified_reward.generation.diffusion import draw_for_prompts, png
    from unified_reward.models.diffusion import inference_dtype, load_image_policy
    from unified_reward.models.diffusion_sampler import DiffusionSampler

    each = config.images_per_prompt
    sampler = DiffusionSampler(config.sampler_steps, config.guidance, config.batch)
    graded: dict[str, list[Graded]] = {}
    shown: dict[str, list[list[str]]] = {}
    media = MediaWriter(context.store)
    for number, (side, directory) in enumerate(directories.items()):
        policy = load_image_policy(directory, inference_dtype(context.dist.device), context.dist.device)
        images = draw_for_prompts(policy, prompts, each, sampler, seed=context.spec.seed)
        graded[side] = grade_images(prompts, images, each)
        starts = range(0, len(images), each)
        shown[side] = [[media.add(png(image)) for image in images[i : i + min(each, DRAWN)]] for i in starts]
        progress.report(number + 1, len(directories), "models")
    media.flush()
    media.close()
    examples = [
        {
            "prompt": p.text,
            **{s: shown[s][i] for s in shown},
            **{f"{s}_right": [g.right for g in graded[s][i * each : i * each + min(each, DRAWN)]] for s in graded},
        }
        for i, p in enumerate(prompts[:SHOWN])
    ]
    return policy_metrics(graded["before"], graded["after"], "images with every asked fact right"), examples
