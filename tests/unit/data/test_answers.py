"""Verdicts and scores out of the words of published answers; what says nothing, or two things, is not read."""

import pytest

from unified_reward.data.answers import read_choice, read_score


@pytest.mark.parametrize(
    ("answer", "choice", "rationale"),
    [
        ("Image 1 is better than Image 2.", "1", ""),
        ("Image 2 is better than Image 1. It is sharper, and shows the dog.", "2", "It is sharper, and shows the dog."),
        ("Both images are equally good.", "tie", ""),
        ("The two videos are equally good.", "tie", ""),
        ("The second response is clearly better: it names the colour.", "2", "it names the colour."),
        ("The better response: [first]", "1", ""),
        ("**The better response: Response B**", "2", ""),
        ("Assistant A's answer is short.\n\nMy final verdict is [[B>>A]]", "2",
         "Assistant A's answer is short.\n\nMy final verdict is"),
        ("[[A=B]]", "tie", ""),
        ("8 6\nAssistant 1 says more that is right.", "1", "Assistant 1 says more that is right."),
        ("<think>Image 2 is better in style, though.</think>\n<answer>Image 1 is better</answer>", "1",
         "Image 2 is better in style, though."),
        ("1. Accuracy: Answer 1 is better.\nOverall Judgment: Answer 2 is better than Answer 1.", "2",
         "1. Accuracy: Answer 1 is better."),
        ("Image 1 is better in colour. Image 2 is better.", "2", None),
    ],
)  # fmt: skip
def test_a_verdict_in_any_published_wording(answer: str, choice: str, rationale: str | None) -> None:
    verdict = read_choice(answer)
    assert verdict is not None
    assert verdict.choice == choice
    assert rationale is None or verdict.rationale == rationale


@pytest.mark.parametrize(
    "answer",
    ["", "Both have merit.", "Image 1 is better. Image 2 is better.", "Neither image 1 nor image 2 is better.",
     "Answer 1 is not better than Answer 2.", "If Image 1 is better, say so.", "Image 1 is better aligned with it.",
     "[[A>B]] [[B>A]]", "<answer>maybe</answer> Image 1 is better"],
)  # fmt: skip
def test_no_verdict_is_guessed(answer: str) -> None:
    assert read_choice(answer) is None


@pytest.mark.parametrize(
    ("answer", "score", "rationale"),
    [
        ("cat (animal): 1\nred (color): 0\nFinal Score: 3.7", 3.7, "cat (animal): 1\nred (color): 0"),
        ("85", 85, ""),
        ("Final Score: **4**", 4, ""),
        ("4. The answer is right.", 4, "The answer is right."),
        ("The rating is 3/5.", 3, ""),
        ("There are 3 dogs and they run.\n\n7", 7, "There are 3 dogs and they run."),
        ("visual quality: 4\nFinal Score: 6", 6, "visual quality: 4"),
    ],
)
def test_a_score_in_any_published_wording(answer: str, score: float, rationale: str) -> None:
    found = read_score(answer)
    assert found is not None
    assert (found.value, found.rationale) == (score, rationale)


@pytest.mark.parametrize(
    "answer", ["", "A fine answer.", "3 dogs run.", "Final Score: 2, no, Final Score: 3", "Score: high"]
)
def test_no_score_is_guessed(answer: str) -> None:
    assert read_score(answer) is None
