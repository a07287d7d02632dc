"""Verdicts read from what an engine says: votes of several samples, one order or both, and probabilities of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from unified_reward.engines import Sampling, Token, Turn, Written
from unified_reward.judge.pack import parse_pack
from unified_reward.judge.query import Query
from unified_reward.judge.spoken import SpokenJudge
from unified_reward.judge.verdict import majority, pair_from_votes
from unified_reward.judge.way import PAPER, Spoken
from unified_reward.judge.weighing import string_logprobs
from unified_reward.records import Choice, Task

PAIR, POINT = Task.IMAGE_GENERATION_PAIR, Task.IMAGE_GENERATION_POINT
FIRST, SECOND, TIE, UNPARSED = Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.UNPARSED
PACK = parse_pack(
    """
name: spoken
version: 1
tasks:
  image_generation_pair:
    prompt: "caption: {prompt} image 1: {media_1} image 2: {media_2}"
    rationale: {stop: "Verdict:", max_tokens: 100}
    verdict: {"1": " Image 1 is better", "2": " Image 2 is better", tie: " Both are equal"}
    text: {marker: "Verdict:"}
  image_generation_point:
    prompt: "caption: {prompt} {media}"
    scores: {" 1": 1, " 2": 2, " 3": 3, " 4": 4}
    text: {aspects: {"Truth:": 3, "Style:": 1}}
""",
    origin="test",
)


class Says:
    """An engine that answers by what it is shown. Not a model: the words are what is tested."""

    control_tokens = ("<end>",)

    def __init__(self, answer: Callable[[Turn, int], Written]) -> None:
        self.answer = answer
        self.asked: list[tuple[Turn, Sampling, int]] = []

    def write(self, turns: Sequence[Turn], sampling: Sampling, seeds: Sequence[int] | None = None) -> list[Written]:
        drawn = list(seeds or [0] * len(turns))
        self.asked += [(turn, sampling, seed) for turn, seed in zip(turns, drawn, strict=True)]
        return [self.answer(turn, seed) for turn, seed in zip(turns, drawn, strict=True)]


def pixels(digest: str) -> NDArray[np.uint8]:
    return np.full((2, 2, 3), int(digest), np.uint8)


def brighter(turn: Turn, _seed: int) -> Written:
    first, second = (int(s.image[0, 0, 0]) for s in turn if s.image is not None)
    return Written(f"Seen. Verdict: Image {1 if first > second else 2} is better")


def test_both_orders_are_asked_and_an_answer_by_place_is_a_tie() -> None:
    honest, by_place = Says(brighter), Says(lambda *_: Written("Verdict: Image 1 is better"))
    query = Query(PAIR, "light <end>", ("9", "5"))
    verdict = SpokenJudge(honest, PACK, pixels).compare([query, query.swapped()])
    assert [v.choice for v in verdict] == [FIRST, SECOND]
    assert [v.p_first for v in verdict] == [1.0, 0.0]
    assert len(honest.asked) == 2
    assert "light < end>" in [segment.text for segment in honest.asked[0][0]]
    assert honest.asked[0][1].max_new_tokens == 132
    placed = SpokenJudge(by_place, PACK, pixels).compare([query])[0]
    assert (placed.choice, placed.p_first, placed.contradictory) == (TIE, 0.5, True)
    assert not verdict[0].contradictory


def test_the_published_way_asks_one_order_and_gives_refusals_to_the_first() -> None:
    engine = Says(lambda *_: Written("I cannot say."))
    verdict = SpokenJudge(engine, PACK, pixels, PAPER).compare([Query(PAIR, "light", ("9", "5"))])[0]
    assert (verdict.choice, verdict.p_first, verdict.p_first_shown_second) == (FIRST, 1.0, None)
    assert len(engine.asked) == 1
    ours = SpokenJudge(engine, PACK, pixels).compare([Query(PAIR, "light", ("9", "5"))])[0]
    assert (ours.choice, ours.p_first) == (UNPARSED, None)


def test_the_majority_of_samples_counts_in_each_order() -> None:
    wavers = Says(lambda _, seed: Written(f"Verdict: Image {1 + seed % 2} is better"))
    way = Spoken(samples=7, temperature=0.7)
    SpokenJudge(wavers, PACK, pixels, way).compare([Query(PAIR, "light", ("9", "5"))])
    assert len(wavers.asked) == 14
    assert len({seed for _, _, seed in wavers.asked}) == 14
    first = [seed for _, _, seed in wavers.asked]
    SpokenJudge(wavers, PACK, pixels, way).compare([Query(PAIR, "light", ("9", "5"))])
    assert [seed for _, _, seed in wavers.asked[14:]] == first


@pytest.mark.parametrize(
    ("shown", "swapped", "choice", "p_first"),
    [
        ([FIRST, FIRST, SECOND], [SECOND, SECOND, FIRST], FIRST, 2 / 3),
        ([FIRST, FIRST, SECOND], [FIRST, FIRST, SECOND], TIE, 1 / 2),
        ([FIRST, UNPARSED, UNPARSED], [SECOND, SECOND, UNPARSED], FIRST, 1.0),
        ([UNPARSED, UNPARSED], [SECOND, SECOND], UNPARSED, None),
        ([FIRST, SECOND], [], TIE, 1 / 2),
        ([TIE, TIE, FIRST], [], TIE, 2 / 3),
    ],
)
def test_votes(shown: list[Choice], swapped: list[Choice], choice: Choice, p_first: float | None) -> None:
    verdict = pair_from_votes(shown, swapped)
    assert verdict.choice is choice
    assert verdict.p_first == (None if p_first is None else pytest.approx(p_first))


def test_majority() -> None:
    assert majority([]) is UNPARSED
    assert majority([UNPARSED, UNPARSED, SECOND]) is SECOND
    assert majority([FIRST, SECOND, TIE]) is TIE


def test_aspects_are_read_and_averaged_by_weight() -> None:
    answers = iter([Written("Truth: 4\nStyle: 2"), Written("Truth: 2\nStyle: 2"), Written("Truth: 9\nStyle: 1")])
    engine = Says(lambda *_: next(answers))
    verdict = SpokenJudge(engine, PACK, pixels, Spoken(samples=3, temperature=1.0)).score([Query(POINT, "x", ("9",))])[
        0
    ]
    assert verdict.score == pytest.approx((3.5 + 2.0) / 2)  # the third truth is outside the range: unread
    assert verdict.aspects == {"Truth:": 3.0, "Style:": pytest.approx(5 / 3)}


def test_samples_without_temperature_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Spoken(samples=3)


def answer(*tokens: tuple[str, dict[str, float]]) -> list[Token]:
    return [Token(text, {word: math.log(share) for word, share in told.items()}) for text, told in tokens]


STRINGS = PACK.pair(PAIR).strings


def test_alternatives_weigh_the_verdict_strings() -> None:
    told = answer(("Verdict:", {}), (" Image", {" Image": 0.9, " Both": 0.1}), (" 1", {" 1": 0.75, " 2": 0.25}),
                  (" is better", {}))  # fmt: skip
    pair = {key: STRINGS[key] for key in ("1", "2")}
    weighed = string_logprobs(told, pair, "Verdict:")
    assert {key: math.exp(value) for key, value in weighed.items()} == pytest.approx({"1": 0.75, "2": 0.25})


def test_a_string_that_no_alternative_begins_has_at_most_the_least_told() -> None:
    told = answer((" 4", {" 4": 0.6, " 5": 0.3, " four": 0.05}))
    weighed = string_logprobs(told, {"3": " 3", "4": " 4", "5": " 5"})
    assert {key: math.exp(value) for key, value in weighed.items()} == pytest.approx({"3": 0.05, "4": 0.6, "5": 0.3})


@pytest.mark.parametrize(
    "told",
    [
        answer(("no verdict", {"no verdict": 1.0})),
        answer((" 10", {" 10": 0.5, " 1": 0.5})),  # " 1" may go on to " 10"
        answer((" 1", {})),
    ],
)
def test_what_cannot_be_weighed_is_not(told: list[Token]) -> None:
    assert string_logprobs(told, {"1": " 1", "10": " 10"}) == {}


def test_a_judge_with_alternatives_gives_probabilities_in_both_orders() -> None:
    def hesitant(turn: Turn, seed: int) -> Written:
        said = brighter(turn, seed).text
        number = "1" if "Image 1" in said else "2"
        other = "2" if number == "1" else "1"
        tokens = answer(("Seen. Verdict: ", {}), ("Image", {}), (f" {number}", {f" {number}": 0.8, f" {other}": 0.2}),
                        (" is better", {}))  # fmt: skip
        return Written(said, tokens=tuple(tokens))

    pack = PACK.model_copy(update={"tasks": {PAIR: PACK.pair(PAIR).model_copy(update={"verdict": {
        FIRST: " Image 1 is better", SECOND: " Image 2 is better"}})}})  # fmt: skip
    judge = SpokenJudge(Says(hesitant), pack, pixels, Spoken(alternatives=20))
    verdict = judge.compare([Query(PAIR, "x", ("9", "5"))])[0]
    assert verdict.p_first == pytest.approx(0.8)
    assert verdict.logprobs["order21:1"] == pytest.approx(math.log(0.2))
