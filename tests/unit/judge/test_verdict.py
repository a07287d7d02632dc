"""Trees of verdict strings, and verdicts out of log-probs, against sums written out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unified_reward.judge.tree import ROOT, AnswerTree
from unified_reward.judge.verdict import expected_score, pair_from_votes, pair_verdict
from unified_reward.records import Choice

LOGPROB = st.floats(-30, 0)


def test_a_tree_shares_beginnings_and_skips_ends() -> None:
    tree = AnswerTree.of([7], [[1, 2, 3], [1, 4, 3], [5]])
    assert tree.tokens == [7, 1, 2, 4]  # what another token follows
    assert tree.parents == [ROOT, 0, 1, 1]
    assert tree.depths == [0, 1, 2, 2]
    assert tree.strings == [[(0, 1), (1, 2), (2, 3)], [(0, 1), (1, 4), (3, 3)], [(0, 5)]]
    assert tree.visible().tolist() == [
        [True, False, False, False], [True, True, False, False], [True, True, True, False], [True, True, False, True],
    ]  # fmt: skip


def test_strings_that_begin_others_are_exclusive() -> None:
    """P(1) = p(1) (1 - p(0 | 1)) and P(10) = p(1) p(0 | 1): together p(1)."""
    tree = AnswerTree.of([], [[1], [1, 0], [2]])
    logits = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    read = tree.read(logits).exp()
    p = torch.softmax(logits.double(), -1)
    assert torch.allclose(read[:, 0], p[:, 0, 1] * (1 - p[:, 1, 0]))
    assert torch.allclose(read[:, 1], p[:, 0, 1] * p[:, 1, 0])
    assert torch.allclose(read[:, 0] + read[:, 1], p[:, 0, 1])
    assert torch.allclose(read[:, 2], p[:, 0, 2])


def test_a_sure_ending_stays_finite() -> None:
    tree = AnswerTree.of([], [[1], [1, 0]])
    logits = torch.full((1, 2, 3), -1e4)
    logits[0, 0, 1] = logits[0, 1, 0] = 1e4
    assert torch.isfinite(tree.read(logits)).all()


@pytest.mark.parametrize("strings", [[[1], [1]], [[1], []]])
def test_strings_must_differ(strings: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="different"):
        AnswerTree.of([], strings)


def test_both_orders_averaged() -> None:
    shown = {"1": math.log(0.6), "2": math.log(0.2)}  # of what it may say: .75 and .25
    swapped = {"1": math.log(0.09), "2": math.log(0.01)}  # the second item, shown first: .9
    verdict = pair_verdict(shown, swapped)
    assert verdict.p_first_shown_first == pytest.approx(0.75)
    assert verdict.p_first_shown_second == pytest.approx(0.1)
    assert verdict.p_first == pytest.approx((0.75 + 1 - 0.9) / 2)
    assert verdict.choice is Choice.SECOND
    assert verdict.logprobs == {
        "order12:1": shown["1"], "order12:2": shown["2"], "order21:1": swapped["1"], "order21:2": swapped["2"],
    }  # fmt: skip


def test_a_tie_counts_half_for_each() -> None:
    even = {"1": math.log(0.3), "2": math.log(0.1), "tie": math.log(0.6)}
    verdict = pair_verdict(even, {"1": math.log(0.3), "2": math.log(0.3), "tie": math.log(0.4)})
    assert verdict.p_first_shown_first == pytest.approx(0.6)
    assert verdict.p_first == pytest.approx(0.55)
    assert verdict.choice is Choice.TIE


@given(st.dictionaries(st.sampled_from(["1", "2", "tie"]), LOGPROB, min_size=3), LOGPROB, LOGPROB, LOGPROB)
def test_asking_the_other_way_round_gives_the_other_answer(
    shown: dict[str, float], a: float, b: float, c: float
) -> None:
    swapped = {"1": a, "2": b, "tie": c}
    one, other = pair_verdict(shown, swapped), pair_verdict(swapped, shown)
    assert one.p_first is not None
    assert other.p_first is not None
    assert one.p_first == pytest.approx(1 - other.p_first)
    assert 0 <= one.p_first <= 1


@given(LOGPROB, LOGPROB)
def test_a_judge_that_only_sees_places_is_at_one_half(a: float, b: float) -> None:
    verdict = pair_verdict({"1": a, "2": b}, {"1": a, "2": b})
    assert verdict.p_first == pytest.approx(0.5)


def test_expected_score() -> None:
    logprobs = {"1": math.log(0.1), "2": math.log(0.1), "5": math.log(0.3)}
    assert expected_score(logprobs, {"1": 1, "2": 2, "5": 5}) == pytest.approx((0.1 + 0.2 + 1.5) / 0.5)
    assert expected_score({"1": -math.inf, "2": -math.inf}, {"1": 1, "2": 2}) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("shown", "swapped", "choice", "p_first"),
    [
        (Choice.FIRST, Choice.SECOND, Choice.FIRST, 1.0),
        (Choice.SECOND, Choice.FIRST, Choice.SECOND, 0.0),
        (Choice.FIRST, Choice.FIRST, Choice.TIE, 0.5),
        (Choice.FIRST, Choice.TIE, Choice.TIE, 0.75),
        (Choice.TIE, Choice.TIE, Choice.TIE, 0.5),
        (Choice.FIRST, Choice.UNPARSED, Choice.UNPARSED, None),
    ],
)
def test_choices_read_from_text(shown: Choice, swapped: Choice, choice: Choice, p_first: float | None) -> None:
    verdict = pair_from_votes([shown], [swapped])
    assert verdict.choice is choice
    assert verdict.p_first == p_first
