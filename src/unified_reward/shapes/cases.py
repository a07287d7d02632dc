"""Judge cases as facts: what is shown, what is claimed of it, and the exact verdict. No pixels yet.

A case's scenes, and the scene its caption names, are all of one split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unified_reward.records import Choice, Modality, Mode, Subject, Task
from unified_reward.shapes import language, truth
from unified_reward.shapes.language import Question
from unified_reward.shapes.scenes import SHORT_FACTS, Clip, Scene, changed, clips_of, pick, scenes_of

# Of understanding cases: judged is a whole caption, else the answer to a question about one fact.
DESCRIPTION_SHARE = 0.6
EITHER_SHARE = 0.1  # of questions about one fact: it offers two values
SHORT_SHARE = 0.5  # of image generation cases: the caption is a short one
# How close the two things of a pair are: the fewer wrong facts of one, and how many more the other has.
BETTER_WRONG, BETTER_WEIGHTS = (0, 1, 2), (0.55, 0.3, 0.15)
GAPS, GAP_WEIGHTS = (1, 2, 3), (0.6, 0.28, 0.12)


@dataclass(frozen=True)
class Case:
    """prompt: question or caption. asked: facts that count. seen: the scene or clip of each medium.

    answers, claims: understanding only, each answer and the facts it states. wrong: wrong facts of each thing judged.
    """

    task: Task
    prompt: str
    asked: tuple[str, ...]
    seen: list[Scene | Clip]
    answers: list[str]
    claims: list[dict[str, str]]
    wrong: list[int]
    wanted: dict[str, str] = field(default_factory=dict)  # generation only: the facts the caption names

    @property
    def choice(self) -> Choice | None:
        """Which thing is better; None for a point task."""
        if len(self.wrong) == 1:
            return None
        return Choice.FIRST if self.wrong[0] < self.wrong[1] else Choice.SECOND

    @property
    def score(self) -> float | None:
        """5 to 1; None for a pair task."""
        return truth.score_of(self.wrong[0], len(self.asked)) if len(self.wrong) == 1 else None

    @property
    def rationale(self) -> str:
        """The check list."""
        seen = [item.facts() for item in self.seen]
        if self.claims:
            return language.check_texts(seen[0], self.claims, self.asked)
        return language.check_media(seen, self.wanted, self.asked)

    def fact_grades(self) -> dict[str, str]:
        """Fact -> "right" or "wrong" for each thing judged, joined by "/"."""
        pairs = [(self.seen[0].facts(), c) for c in self.claims] or [(s.facts(), self.wanted) for s in self.seen]
        grades = {}
        for fact in self.asked:
            grades[fact] = "/".join("right" if a[fact] == b.get(fact) else "wrong" for a, b in pairs)
        return grades


def make_case(task: Task, split: str, rng: np.random.Generator) -> Case:
    """A case of a judge task on scenes of `split`. Pairs never tie."""
    pool = _pool(task.modality, split)
    build = _understanding if task.subject is Subject.UNDERSTANDING else _generation
    return build(task, pool, rng)


def _understanding(task: Task, pool: Sequence[Scene | Clip], rng: np.random.Generator) -> Case:
    item = pick(pool, rng)
    facts = item.facts()
    question = _question(facts, rng)
    wrong = _wrong_counts(task.mode, len(question.asked), rng)
    claims = [_claim(facts, question, count, rng) for count in wrong]
    answers = [language.answer(question, claim) for claim in claims]
    return Case(task, question.text, question.asked, [item], answers, claims, wrong)


def _question(facts: Mapping[str, str], rng: np.random.Generator) -> Question:
    if rng.random() < DESCRIPTION_SHARE:
        return language.describe(facts)
    fact = pick(list(facts), rng)
    return language.ask_either(fact, facts, rng) if rng.random() < EITHER_SHARE else language.ask(fact)


def _claim(facts: Mapping[str, str], question: Question, wrong: int, rng: np.random.Generator) -> dict[str, str]:
    claim = changed(facts, rng.permutation(question.asked)[:wrong].tolist(), rng)
    if question.text in language.QUESTIONS.values() or len(question.asked) > 1 or not wrong:
        return claim
    (fact,) = question.asked  # a wrong answer to "is it a or b?" is the other one offered
    offered = truth.stated_values(question.text, fact)
    return claim | {fact: next(v for v in offered if v != facts[fact])}


def _generation(task: Task, pool: Sequence[Scene | Clip], rng: np.random.Generator) -> Case:
    """Things seen are drawn from the pool by how many of the caption's facts they get wrong."""
    while True:
        wanted = pick(pool, rng).facts()
        if "size" in wanted and rng.random() < SHORT_SHARE:
            wanted = language.short(wanted)
        asked = tuple(wanted)
        distances = _distances(pool, wanted)
        wrong = _wrong_counts(task.mode, len(asked), rng)
        choices = [np.flatnonzero(distances == count) for count in wrong]
        if all(len(c) for c in choices):
            seen = [_pick(pool, c, len(asked) == len(SHORT_FACTS), rng) for c in choices]
            return Case(task, language.caption(wanted), asked, seen, [], [], wrong, wanted)


def _pick(
    pool: Sequence[Scene | Clip], indices: NDArray[np.int64], is_short: bool, rng: np.random.Generator
) -> Scene | Clip:
    """One of them; for a short caption half of the time a large shape in the center, as an image policy draws it."""
    items = [pool[int(i)] for i in indices]
    if is_short and rng.random() < 0.5:
        items = [s for s in items if isinstance(s, Scene) and (s.size, s.position) == ("large", "center")] or items
    return pick(items, rng)


def _wrong_counts(mode: Mode, asked: int, rng: np.random.Generator) -> list[int]:
    if mode is Mode.POINT:
        return [int(rng.integers(0, min(asked, 4) + 1))]
    while True:
        better = int(rng.choice(BETTER_WRONG, p=BETTER_WEIGHTS))
        worse = better + int(rng.choice(GAPS, p=GAP_WEIGHTS))
        if worse <= asked:
            pair = [better, worse]
            return pair if rng.random() < 0.5 else pair[::-1]


@cache
def _pool(modality: Modality, split: str) -> tuple[Scene, ...] | tuple[Clip, ...]:
    return scenes_of(split) if modality is Modality.IMAGE else clips_of(split)


def _distances(pool: Sequence[Scene | Clip], wanted: Mapping[str, str]) -> NDArray[np.int64]:
    """[len(pool)]: how many of the wanted facts each scene gets wrong."""
    table = _table(tuple(pool), tuple(wanted))
    distances: NDArray[np.int64] = (table != np.array(list(wanted.values()))).sum(1)
    return distances


@cache
def _table(pool: tuple[Scene | Clip, ...], facts: tuple[str, ...]) -> NDArray[np.str_]:
    return np.array([[item.facts()[fact] for fact in facts] for item in pool])
