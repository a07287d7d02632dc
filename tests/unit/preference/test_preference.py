"""Pair ranking and point sifting against the paper's rule written out plainly, and against cases done by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_reward.config.stages import PairWay
from unified_reward.errors import UserError
from unified_reward.preference import (
    Dropped,
    Judged,
    RankedPair,
    Rules,
    Sifted,
    disjoint_pairs,
    limited,
    select,
    sift,
    summarise,
)
from unified_reward.records import Candidate, Choice, Modality, PreferencePair, Prompt, Subject, Task, Verdict

FIRST, SECOND, TIE, UNPARSED = Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.UNPARSED
RNG = random.Random(0)


def judged(choices: list[Choice], scores: list[float | None], **ranked: object) -> Judged:
    pairs = [RankedPair(2 * i, 2 * i + 1, choice, **ranked) for i, choice in enumerate(choices)]  # type: ignore[arg-type]
    return Judged([f"c{i}" for i in range(2 * len(choices))], pairs, scores)


def test_pairs_are_disjoint_and_complete() -> None:
    assert disjoint_pairs(6) == [(0, 1), (2, 3), (4, 5)]


@pytest.mark.parametrize(("count", "words"), [(5, "Use 4 or 6"), (1, "Use 2"), (0, "Use 2"), (-2, "Use 2")])
def test_an_odd_number_is_refused(count: int, words: str) -> None:
    with pytest.raises(UserError, match=rf"candidates is {count}: .*disjoint pairs.*{words}"):
        disjoint_pairs(count)


def test_ten_candidates_by_hand() -> None:
    """Winners 0, 3, 4, 7, 8 (scores 3, 9, 10, 9.5, 2); losers 1, 2, 5, 6, 9 (scores 4, 1, 6, 1, 8)."""
    case = judged([FIRST, SECOND, FIRST, SECOND, FIRST], [3, 4, 1, 9, 10, 6, 1, 9.5, 2, 8])
    assert sift(case, Rules(), RNG) == Sifted(chosen=4, rejected=2)  # 10 is more than 9; the first of two ones
    assert sift(case, Rules(way=PairWay.POINT_ONLY), RNG) == Sifted(4, 2)


def test_chosen_and_rejected_may_come_from_different_pairs_but_not_from_the_wrong_side() -> None:
    """The best of all, 1, lost its pair and the worst, 2, won its: neither may take those places."""
    case = judged([FIRST, FIRST], [3, 5, 1, 2])
    assert sift(case, Rules(), RNG) == Sifted(0, 3)
    assert sift(case, Rules(way=PairWay.POINT_ONLY), RNG) == Sifted(1, 2)


def test_margins_are_strict() -> None:
    case = judged([FIRST], [3.0, 2.5])
    assert sift(case, Rules(min_margin=0.4), RNG) == Sifted(0, 1)
    assert sift(case, Rules(min_margin=0.5), RNG) is Dropped.SCORE_GAP
    assert sift(judged([FIRST], [3.0, 3.0]), Rules(), RNG) is Dropped.SCORE_GAP
    assert sift(judged([SECOND], [3.0, 2.5]), Rules(), RNG) is Dropped.SCORE_GAP  # the two steps disagree


def test_ties_and_unread_verdicts_win_nothing() -> None:
    assert sift(judged([TIE, UNPARSED], [5, 4, 3, 2]), Rules(), RNG) is Dropped.NO_DECIDED_PAIR
    assert sift(judged([TIE, FIRST], [5, 1, 4, 2]), Rules(), RNG) == Sifted(2, 3)


def test_missing_scores() -> None:
    assert sift(judged([FIRST, FIRST], [None, 1, 4, None]), Rules(), RNG) == Sifted(2, 1)
    assert sift(judged([FIRST], [None, 1]), Rules(), RNG) is Dropped.NO_SCORE


def test_inconsistent_verdicts_are_left_out() -> None:
    case = judged([FIRST], [5, 1], inconsistency=0.3)
    assert sift(case, Rules(max_inconsistency=0.3), RNG) == Sifted(0, 1)
    assert sift(case, Rules(max_inconsistency=0.29), RNG) is Dropped.NO_DECIDED_PAIR


def test_pair_only_takes_the_surest_pair() -> None:
    pairs = [RankedPair(0, 1, FIRST, 0.6), RankedPair(2, 3, SECOND, 0.05), RankedPair(4, 5, FIRST, 0.9)]
    case = Judged([f"c{i}" for i in range(6)], pairs, [None] * 6)
    assert sift(case, Rules(way=PairWay.PAIR_ONLY), RNG) == Sifted(3, 2)


def test_chance_takes_two_different_candidates_evenly() -> None:
    case = Judged(["a", "a", "b"], [], [None] * 3)
    drawn = [sift(case, Rules(way=PairWay.RANDOM), random.Random(i)) for i in range(300)]
    assert all(isinstance(one, Sifted) and case.contents[one.chosen] != case.contents[one.rejected] for one in drawn)
    assert len(set(drawn)) == 4
    assert drawn == [sift(case, Rules(way=PairWay.RANDOM), random.Random(i)) for i in range(300)]


@pytest.mark.parametrize("way", list(PairWay))
def test_equal_candidates_give_no_pair(way: PairWay) -> None:
    case = Judged(["a", "a"], [RankedPair(0, 1, FIRST, 0.9)], [5, 1])
    assert sift(case, Rules(way=way), RNG) is Dropped.ALL_EQUAL


@given(st.data())
def test_the_papers_rule_written_out(data: st.DataObject) -> None:
    """C and R as lists, list.index(max(list)), int scores: the released algorithm with numbers instead of text."""
    count = data.draw(st.integers(1, 5))
    wins = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    scores = data.draw(st.lists(st.integers(0, 12), min_size=2 * count, max_size=2 * count))
    chosen_list, rejected_list = [], []
    for j, first_wins in enumerate(wins):
        one, two = 2 * j, 2 * j + 1
        chosen_list.append(one if first_wins else two)
        rejected_list.append(two if first_wins else one)
    chosen_scores, rejected_scores = [scores[i] for i in chosen_list], [scores[i] for i in rejected_list]
    chosen = chosen_list[chosen_scores.index(max(chosen_scores))]
    rejected = rejected_list[rejected_scores.index(min(rejected_scores))]
    wanted = Sifted(chosen, rejected) if scores[chosen] > scores[rejected] else Dropped.SCORE_GAP
    case = judged([FIRST if win else SECOND for win in wins], [float(score) for score in scores])
    assert sift(case, Rules(), RNG) == wanted


def world(prompts: int) -> tuple[list[Prompt], list[Candidate], list[Verdict]]:
    """Four candidates a prompt, text "0" to "3", score = 1 + number; even prompts: candidate 1 beats 0 and 3 beats 2."""
    asked = [Prompt(id=f"p{n}", split="train", modality=Modality.IMAGE, subject=Subject.UNDERSTANDING, text="?")
             for n in range(prompts)]  # fmt: skip
    candidates, verdicts = [], []
    for n, prompt in enumerate(asked):
        for k in range(4):
            one = Candidate(id=f"{prompt.id}-{k}", prompt_id=prompt.id, index=k, seed=k, policy="x", text=str(k))
            candidates.append(one)
            verdicts.append(Verdict(id=f"{one.id}-s", task=Task.IMAGE_UNDERSTANDING_POINT, prompt_id=prompt.id,
                                    first_id=one.id, score=1.0 + k))  # fmt: skip
        for first, second in disjoint_pairs(4):
            choice = SECOND if n % 2 == 0 else TIE
            verdicts.append(Verdict(
                id=f"{prompt.id}-{first}-{second}", task=Task.IMAGE_UNDERSTANDING_PAIR, prompt_id=prompt.id,
                first_id=f"{prompt.id}-{first}", second_id=f"{prompt.id}-{second}", choice=choice, p_first=0.2,
                p_first_shown_first=0.3, p_first_shown_second=0.1,
            ))  # fmt: skip
    random.Random(1).shuffle(candidates)
    random.Random(2).shuffle(verdicts)
    return asked, candidates, verdicts


def test_rows_follow_the_prompts_and_say_why() -> None:
    asked, candidates, verdicts = world(2)
    rows = select([*asked, replace(asked[0], id="alone")], candidates, verdicts, Rules())
    assert rows[0] == PreferencePair(
        prompt_id="p0", split="train", chosen_id="p0-3", rejected_id="p0-0", chosen="3", rejected="0", chosen_score=4.0,
        rejected_score=1.0,
    )  # fmt: skip
    assert rows[1] == PreferencePair(prompt_id="p1", split="train", dropped="no_decided_pair")
    assert rows[2].dropped == "no_candidates"
    summary = summarise(rows)
    assert (summary.prompts, summary.kept, summary.mean_gap) == (3, 1, 3.0)
    assert summary.dropped == {"no_candidates": 1, "no_decided_pair": 1}


def test_inconsistency_is_that_of_the_two_orders() -> None:
    asked, candidates, verdicts = world(1)
    assert not select(asked, candidates, verdicts, Rules(max_inconsistency=0.21))[0].dropped
    assert select(asked, candidates, verdicts, Rules(max_inconsistency=0.19))[0].dropped == "no_decided_pair"


def test_limits_share_prompts_over_ways() -> None:
    asked, candidates, verdicts = world(20)
    ways = {way: select(asked, candidates, verdicts, Rules(way=way), seed=3) for way in PairWay}
    assert {way: summarise(rows).kept for way, rows in ways.items()} == {
        PairWay.PAIR_POINT: 10, PairWay.PAIR_ONLY: 10, PairWay.POINT_ONLY: 20, PairWay.RANDOM: 20,
    }  # fmt: skip
    cut = limited(ways[PairWay.POINT_ONLY], 5, seed=3)
    kept = {row.prompt_id for row in cut if not row.dropped}
    assert kept == {row.prompt_id for row in limited(ways[PairWay.RANDOM], 5, seed=3) if not row.dropped}
    assert kept != {row.prompt_id for row in limited(ways[PairWay.RANDOM], 5, seed=4) if not row.dropped}
    assert summarise(cut).dropped == {"limit": 15}


def test_a_verdict_about_nobody_is_a_defect() -> None:
    asked, candidates, verdicts = world(1)
    with pytest.raises(ValueError, match="not among the candidates"):
        select(asked, candidates[1:], verdicts, Rules())
