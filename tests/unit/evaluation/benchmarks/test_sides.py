"""Which of two is better, in the words that people's labels and judges use."""

from __future__ import annotations

import pytest

from unified_reward.evaluation.benchmarks.sides import Side, read_answer, read_label

FIRST, SECOND, TIE = Side.FIRST, Side.SECOND, Side.TIE


@pytest.mark.parametrize(("value", "side"), [
    ("A", FIRST), ("B", SECOND), ("same", TIE), ("leftvote", FIRST), ("bothbad_vote", TIE), (1, FIRST), ("2", SECOND),
    ([1, 0], FIRST), ([0, 1], SECOND), ("Response 2 is better than Response 1.", SECOND), ("Video 1 is better", FIRST),
    (0, None), (None, None), (True, None), ("better", None), ([1, 1], None), (0.5, None),
])  # fmt: skip
def test_labels(value: object, side: Side | None) -> None:
    assert read_label(value) is side


@pytest.mark.parametrize(("text", "side"), [
    ("Image 1 is better than Image 2.", FIRST),
    ("**Video 2** is slightly better", SECOND),
    ("Response B is the better one, since A blurs.", SECOND),
    ("Edited image 1 is better", FIRST),
    ("Both images are equally good.", TIE),
    ("Neither video is better.", TIE),
    ("<think>Video 1 is better at first</think><answer>Video 2 is better</answer>", SECOND),
    ("Answer 1 is better in accuracy. Overall Judgment: Answer 2 is better than Answer 1.", SECOND),
    ('```json\n{"reasoning": "Response A is better in color", "better_response": "B"}\n```', SECOND),
    ('{"categories": [{"name": "A"}], "winner": "Video 1"}', FIRST),
    ('{"winner": "unclear"}', None),
    ("<answer>Image 2</answer>", SECOND),
    ("Overall: Image 2 wins.", SECOND),
    ("Image 1 and Image 2 differ", None),
    ("I choose [[B]]", SECOND),
    ("[[A>B]] [[B>A]]", None),
    ("[[C]]", TIE),
    ("A", FIRST),
    ("tie", TIE),
    ("Verdict: B", SECOND),
    ("The first response is better than the second response.", FIRST),
    ("The second response is better in detail, but the first response is better overall", None),
    ("The better response: [2]. It names the hat.", SECOND),
    ("The better response: [Response A]", FIRST),
    ("The better image is a cat", None),
    ("The winner is a tie", TIE),
    ("**Winner:** Video 2", SECOND),
    ("so \\boxed{1}", FIRST),
    ("\\boxed{\\text{Answer 2 is better}}", SECOND),
    ("Both videos are of equal quality.", TIE),
    ("'Video 1 is better,' or 'Video 2 is better,'", None),  # the question, said back
    ("Video 1 is not better", None),
    ("Video 12 is better", None),
    ("A cat sits on a mat.", None),
    ("", None),
])  # fmt: skip
def test_answers(text: str, side: Side | None) -> None:
    assert read_answer(text) is side
