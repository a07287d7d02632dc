"""Answers and pictures against what is known to be true of the prompt (`Prompt.truth`)."""

from __future__ import annotations

from collections.abc import Sequence

from unified_reward.data.media import Pixels
from unified_reward.evaluation.policy_metrics import Graded
from unified_reward.records import Prompt
from unified_reward.shapes.truth import answer_facts, grade_image

RIGHT = "share_right"  # validation metric: share of answers or pictures with every asked fact right


def is_graded(prompt: Prompt) -> bool:
    """Whether the truth about this prompt is known."""
    return bool(prompt.truth)


def grade_texts(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Graded]:
    """answers[i] to prompts[i]."""
    graded = []
    for prompt, answer in zip(prompts, answers, strict=True):
        facts = answer_facts(prompt.truth, answer)
        graded.append(Graded(prompt.id, all(facts.values()), facts))
    return graded


def grade_images(prompts: Sequence[Prompt], images: Sequence[Pixels], each: int) -> list[Graded]:
    """images: `each` of them per prompt, in the order of the prompts."""
    graded = []
    for number, image in enumerate(images):
        prompt = prompts[number // each]
        facts = grade_image(prompt, image)
        graded.append(Graded(prompt.id, all(facts.values()), facts))
    return graded
