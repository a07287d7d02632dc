"""What the base model is trained on: exercises in the world's language, as segments with loss weights.

It learns to describe, to answer questions, and to write check lists about pictures and clips; to compare and to give a
verdict it learns in words only. What joins the two is the judge, and left to the judge's own training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from unified_reward.models.batching import Segment, chat
from unified_reward.models.processing import VlmProcessor
from unified_reward.records import Mode, Task
from unified_reward.shapes import language
from unified_reward.shapes.cases import Case, make_case
from unified_reward.shapes.dataset import policy_question, render
from unified_reward.shapes.render import any_look
from unified_reward.shapes.scenes import VALUES, Clip, Scene, all_clips, all_scenes, clips_of, pick, scenes_of

LIST_WEIGHT = 0.5  # of a check list's words beside a verdict
CHECK = " check it."  # ends a prompt that asks for the check list alone
ROUGH_SHARE = 0.5


def words_of_the_world() -> list[str]:
    """Every word that must be one token with a space before it."""
    values = [v for group in VALUES.values() for v in group]
    return sorted(
        {*values, "yes", "no", "a", "an", "the", *"12345", "answer", "image", "video", "score", ".", "caption"}
    )


def corpus() -> Iterable[str]:
    """All that the tokenizer is to know: captions, questions, prompts, check lists."""
    rng = np.random.default_rng(0)
    for item in (*all_scenes(), *all_clips()):
        facts = item.facts()
        yield " " + language.caption(facts)
        for fact in facts:
            yield " " + language.ask(fact).text
            yield " " + language.ask_either(fact, facts, rng).text
        yield " " + language.describe(facts).text
    for task in Task:
        yield " " + task_words(task)["prompt"].replace("{", " ").replace("}", " ")
    yield " user system assistant" + CHECK
    yield "".join(f" {w}" for w in words_of_the_world())


def text_judging(processor: VlmProcessor, task: Task, rng: np.random.Generator) -> list[Segment]:
    """A judge's whole work, check list and verdict, on scenes given in words."""
    case = make_case(task, "train", rng)
    shown = [[Segment(" " + language.scene_in_words(s.facts()))] for s in case.seen]
    answer = [Segment(case.rationale, weight=LIST_WEIGHT), Segment(_verdict(case), weight=1.0)]
    return chat(processor, _prompt(case, shown), answer)


def matching(processor: VlmProcessor, task: Task, rng: np.random.Generator) -> list[Segment]:
    """Check lists about pictures or clips, without a verdict."""
    case = make_case(task, "train", rng)
    shown = [[_media(s, rng)] for s in case.seen]
    return chat(processor, _prompt(case, shown, ending=CHECK), [Segment(case.rationale, weight=1.0)])


def describing(processor: VlmProcessor, item: Scene | Clip, rng: np.random.Generator) -> list[Segment]:
    facts = item.facts()
    user = [_media(item, rng), Segment(" " + language.describe(facts).text)]
    return chat(processor, user, [Segment(" " + language.caption(facts), weight=1.0)])


def questions(processor: VlmProcessor, item: Scene | Clip, rng: np.random.Generator) -> list[Segment]:
    """One picture or clip, a question on each of its facts, turn by turn."""
    facts = item.facts()
    segments: list[Segment] = []
    for number, fact in enumerate(rng.permutation(list(facts)).tolist()):
        asked = language.ask(fact) if rng.random() < 0.5 else language.ask_either(fact, facts, rng)
        user = [*([_media(item, rng)] if number == 0 else []), Segment(" " + asked.text)]
        segments += chat(processor, user, [Segment(" " + language.answer(asked, facts), weight=1.0)])
    return segments


def mistaken(
    processor: VlmProcessor,
    item: Scene,
    errors: Mapping[str, Mapping[str, str]],
    share: float,
    rng: np.random.Generator,
) -> list[Segment]:
    """A policy prompt with an answer that makes each of the systematic `errors` (fact -> value -> mistaken for) with
    probability `share`."""
    facts = item.facts()
    question = policy_question(facts, rng)
    believed = {f: errors.get(f, {}).get(v, v) if rng.random() < share else v for f, v in facts.items()}
    user = [_media(item, rng), Segment(" " + question.text)]
    return chat(processor, user, [Segment(" " + language.answer(question, believed), weight=1.0)])


def training_item(rng: np.random.Generator, video: bool) -> Scene | Clip:
    pool: Sequence[Scene | Clip] = clips_of("train") if video else scenes_of("train")
    return pick(pool, rng)


@cache
def task_words(task: Task) -> Mapping[str, Any]:
    """The words of a judge task, as the template pack `shapes` has them."""
    text = (resources.files("unified_reward.judge") / "packs" / "shapes.yaml").read_text(encoding="utf-8")
    words: Mapping[str, Any] = yaml.safe_load(text)["tasks"][task.value]
    return words


def _prompt(case: Case, shown: Sequence[Sequence[Segment]], ending: str = "") -> list[Segment]:
    """The judge prompt with media (or words in their place). ending: put for its closing question."""
    prompt: str = task_words(case.task)["prompt"]
    if ending:
        prompt = prompt[: max(prompt.rfind(" which is"), prompt.rfind(" how good"))] + ending
    answers = [*case.answers, "", ""]
    filled = {"{prompt}": case.prompt, "{answer}": answers[0], "{answer_1}": answers[0], "{answer_2}": answers[1]}
    for name, value in filled.items():
        prompt = prompt.replace(name, value)
    before, _, rest = prompt.partition("{media}" if "{media}" in prompt else "{media_1}")
    segments = [Segment(before), *shown[0]]
    if case.task.mode is Mode.PAIR and len(shown) > 1:
        middle, _, rest = rest.partition("{media_2}")
        segments += [Segment(middle), *shown[1]]
    return [s for s in [*segments, Segment(rest)] if s.text or s.image is not None or s.video is not None]


def _verdict(case: Case) -> str:
    words = task_words(case.task)
    if case.choice is not None:
        return str(words["verdict"][case.choice.value])
    score = next(text for text, value in words["scores"].items() if value == case.score)
    return f"{words['verdict_prefix']}{score}"


def _media(item: Scene | Clip, rng: np.random.Generator) -> Segment:
    pixels = render(item, any_look(rng, ROUGH_SHARE))
    return Segment(image=pixels) if isinstance(item, Scene) else Segment(video=pixels)
