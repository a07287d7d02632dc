"""The words of the world: captions, questions, answers, and the check lists a judge writes before its verdict.

Everything a model is to say starts with a space, so that a word is one token wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unified_reward.shapes.scenes import CLIP_FACTS, SCENE_FACTS, SHORT_FACTS, VALUES, pick

DESCRIBE_SCENE = "describe the picture."
DESCRIBE_CLIP = "describe the clip."
QUESTIONS: Mapping[str, str] = {
    "size": "what size is it?",
    "color": "what color is it?",
    "shape": "what shape is it?",
    "position": "where is it?",
    "background": "what color is the background?",
    "move": "which way does it move?",
}
EITHER: Mapping[str, str] = {
    "size": "is it {a} or {b}?",
    "color": "is it {a} or {b}?",
    "shape": "is it a {a} or a {b}?",
    "position": "is it at the {a} or the {b}?",
    "background": "is the background {a} or {b}?",
    "move": "does it move {a} or {b}?",
}


@dataclass(frozen=True)
class Question:
    """text: as asked. asked: the facts a right answer must get right, in the order a check list names them."""

    text: str
    asked: tuple[str, ...]


def caption(facts: Mapping[str, str]) -> str:
    """A full caption of a scene or a clip, or a short one: what the facts' names call for."""
    what = f"{facts['color']} {facts['shape']}"
    article = "an" if facts["color"] == "orange" else "a"
    where = f"on a {facts['background']} background"
    if "move" in facts:
        return f"{article} {what} moving {facts['move']} {where}"
    if "position" in facts:
        return f"a {facts['size']} {what} at the {facts['position']} {where}"
    return f"{article} {what} {where}"


def short(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts that a short caption names."""
    return {name: facts[name] for name in SHORT_FACTS}


def describe(facts: Mapping[str, str]) -> Question:
    """The request for a full caption; its answer is `caption(facts)`."""
    if "move" in facts:
        return Question(DESCRIBE_CLIP, CLIP_FACTS)
    return Question(DESCRIBE_SCENE, SCENE_FACTS)


def ask(fact: str) -> Question:
    return Question(QUESTIONS[fact], (fact,))


def ask_either(fact: str, facts: Mapping[str, str], rng: np.random.Generator) -> Question:
    """A question that offers the true value and another one, in random order."""
    others = [v for v in VALUES[fact] if v != facts[fact]]
    pair = [facts[fact], pick(others, rng)]
    rng.shuffle(pair)
    return Question(EITHER[fact].format(a=pair[0], b=pair[1]), (fact,))


def answer(question: Question, facts: Mapping[str, str]) -> str:
    """The answer a speaker gives who believes `facts`."""
    return facts[question.asked[0]] if len(question.asked) == 1 else caption(facts)


def scene_in_words(facts: Mapping[str, str]) -> str:
    """A scene as bare words, for exercises without pictures."""
    return " ".join(facts.values())


def check_texts(seen: Mapping[str, str], claims: Sequence[Mapping[str, str]], asked: Sequence[str]) -> str:
    """One thing seen, several texts about it: each asked fact as seen, then yes or no for each text.

    " large yes no red yes yes ." for claims with the facts they state.
    """
    words = []
    for fact in asked:
        words.append(seen[fact])
        words += ["yes" if claim.get(fact) == seen[fact] else "no" for claim in claims]
    return "".join(f" {w}" for w in [*words, "."])


def check_media(seen: Sequence[Mapping[str, str]], wanted: Mapping[str, str], asked: Sequence[str]) -> str:
    """One caption, one or two things seen: for each thing its facts as seen, with yes or no against the caption.

    " large yes red no ." or, numbered, " 1 large yes red no 2 small no red yes .".
    """
    words = []
    for number, facts in enumerate(seen, start=1):
        if len(seen) > 1:
            words.append(str(number))
        for fact in asked:
            words += [facts[fact], "yes" if facts[fact] == wanted[fact] else "no"]
    return "".join(f" {w}" for w in [*words, "."])
