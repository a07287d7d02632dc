"""The world as data: judge records of all eight tasks with exact labels, and prompts for the two policies.

Everything is a function of (split, count, seed). Pictures are PNG, clips lossless animated PNG.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from unified_reward.records import JudgeRecord, Modality, Prompt, Subject, Task
from unified_reward.shapes import language
from unified_reward.shapes.cases import Case, make_case
from unified_reward.shapes.render import Look, Pixels, any_look, clean_look, render_clip, render_scene
from unified_reward.shapes.scenes import SHORT_FACTS, SPLITS, Clip, Scene, pick, scenes_of, short_triples

SOURCE = "shapes"
FRAME_MS = 500
ROUGH_SHARE = 0.5  # of pictures a judge sees: as rough as a small diffusion model's
CAPTION_SHARE = 0.35  # of the VLM policy's prompts: "describe the picture."
# Clips are harder than pictures (fewer scenes, more tokens), and pairs than scores: they get more of the records.
TASK_SHARES: Mapping[Task, float] = {
    Task.IMAGE_UNDERSTANDING_PAIR: 0.18, Task.IMAGE_GENERATION_PAIR: 0.22,
    Task.VIDEO_UNDERSTANDING_PAIR: 0.16, Task.VIDEO_GENERATION_PAIR: 0.16,
    Task.IMAGE_UNDERSTANDING_POINT: 0.07, Task.IMAGE_GENERATION_POINT: 0.07,
    Task.VIDEO_UNDERSTANDING_POINT: 0.07, Task.VIDEO_GENERATION_POINT: 0.07,
}  # fmt: skip

Media = dict[str, bytes]


def judge_records(
    split: str, count: int, seed: int, shares: Mapping[Task, float] = TASK_SHARES
) -> Iterator[tuple[JudgeRecord, Media]]:
    """`count` records with the media they name (digest -> bytes). shares: of the tasks; they are scaled to sum to one.

    The two things of a pair stand in random order; rationales are written for that order.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), 1])
    tasks, weights = list(shares), np.array(list(shares.values()))
    for number, drawn in enumerate(rng.choice(len(tasks), size=count, p=weights / weights.sum())):
        case = make_case(tasks[drawn], split, rng)
        media = [encode_media(render(item, any_look(rng, ROUGH_SHARE))) for item in case.seen]
        yield _record(case, f"{SOURCE}-{split}-{seed}-{number:06d}", split, list(map(digest_of, media))), _named(media)


def policy_prompts(split: str, count: int, seed: int) -> Iterator[tuple[Prompt, Media]]:
    """Questions about drawn pictures, and requests for a caption; `truth` holds the asked facts."""
    rng = np.random.default_rng([seed, SPLITS.index(split), 2])
    pool = scenes_of(split)
    for number in range(count):
        scene = pick(pool, rng)
        facts = scene.facts()
        question = policy_question(facts, rng)
        media = encode_media(render(scene, clean_look(rng)))
        prompt = Prompt(
            id=f"{SOURCE}-{split}-{seed}-ask-{number:06d}", split=split, modality=Modality.IMAGE,
            subject=Subject.UNDERSTANDING, text=question.text, media=[digest_of(media)],
            reference_answer=language.answer(question, facts), truth={f: facts[f] for f in question.asked},
        )  # fmt: skip
        yield prompt, _named([media])


def policy_question(facts: Mapping[str, str], rng: np.random.Generator) -> language.Question:
    """What the VLM policy is asked about a scene: a caption, or one fact in open form."""
    if rng.random() < CAPTION_SHARE:
        return language.describe(facts)
    return language.ask(pick(list(facts), rng))


def image_prompts(split: str) -> list[Prompt]:
    """The short captions of a split, for the image policy: 48 train, 12 validation, 12 test."""
    prompts = []
    for triple in short_triples(split):
        facts = dict(zip(SHORT_FACTS, triple, strict=True))
        prompts.append(Prompt(
            id=f"{SOURCE}-{split}-draw-{'-'.join(triple)}", split=split, modality=Modality.IMAGE,
            subject=Subject.GENERATION, text=language.caption(facts), truth=facts,
        ))  # fmt: skip
    return prompts


def render(item: Scene | Clip, look: Look) -> Pixels:
    """uint8 [32, 32, 3] of a scene, [4, 32, 32, 3] of a clip."""
    return render_scene(item, look) if isinstance(item, Scene) else render_clip(item, look)


def encode_media(pixels: Pixels) -> bytes:
    """Lossless bytes: PNG of [H, W, 3], animated PNG of [T, H, W, 3]."""
    buffer = io.BytesIO()
    frames = [Image.fromarray(f) for f in (pixels[None] if pixels.ndim == 3 else pixels)]
    if len(frames) == 1:
        frames[0].save(buffer, format="PNG", compress_level=1)
    else:
        frames[0].save(
            buffer, format="PNG", compress_level=1, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
        )
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _named(media: list[bytes]) -> Media:
    return {digest_of(data): data for data in media}


def _record(case: Case, record_id: str, split: str, media: list[str]) -> JudgeRecord:
    record = JudgeRecord(
        id=record_id, task=case.task, split=split, source=SOURCE, prompt=case.prompt, media=media, answers=case.answers,
        choice=case.choice, rationale=case.rationale, facts=case.fact_grades(),
    )  # fmt: skip
    if case.score is None:
        return record
    return replace(record, score=case.score, score_min=1.0, score_max=5.0)
