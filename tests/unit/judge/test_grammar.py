"""Verdicts out of text: nothing guessed, nothing raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_reward.judge.grammar import Reading, paper_choice, paper_score, read_choice, read_score
from unified_reward.judge.pack import PairTemplate, PairText, PointTemplate, PointText, load_pack
from unified_reward.records import Choice, Mode, Task

UNDERSTANDING, GENERATION = Task.IMAGE_UNDERSTANDING_PAIR, Task.IMAGE_GENERATION_PAIR
DEFAULT = load_pack("default")
PAIR = DEFAULT.pair(UNDERSTANDING)
POINT = DEFAULT.point(Task.IMAGE_UNDERSTANDING_POINT)
NO_MARKER = PairTemplate(
    prompt="x", verdict={Choice.FIRST: "Answer 1 is better.", Choice.SECOND: "Answer 2 is better."}
)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("It is red. Verdict: Answer 1 is better", "1", "1"),
        ("It is red.\nVerdict: **Answer 2\n is better**.", "2", "2"),
        ("Answer 1 is better at color. Verdict: Answer 2 is better", "2", "2"),
        ("Verdict: Both are equal", "tie", "tie"),
        ("verdict: answer 2 IS better", "2", "2"),
        ("Answer 1 is better", "unparsed", "1"),
        ("Verdict: Answer 1 is better, or Answer 2 is better", "unparsed", "2"),
        ("Verdict: Answer 11 is better", "unparsed", "unparsed"),
        ("Verdict: Answer 1 is not better", "unparsed", "unparsed"),
        ("I cannot judge this.", "unparsed", "unparsed"),
        ("", "unparsed", "unparsed"),
    ],
)
def test_choices(text: str, strict: str, lenient: str) -> None:
    assert read_choice(text, PAIR, UNDERSTANDING) == strict
    assert read_choice(text, PAIR, UNDERSTANDING, Reading.LENIENT) == lenient


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("Score: 4", 4, 4),
        ("Score: 3.7", 3.7, 3.7),
        ("3 objects. Score: **5**/5", 5, 5),
        ("Score: 2 ... Score: 4", 4, 4),
        ("Score: maybe 4", None, 4),
        ("4", None, 4),
        ("Score: 9", None, None),
        ("Score: -1", None, None),
        ("Score: high", None, None),
        ("", None, None),
    ],
)
def test_scores(text: str, strict: float | None, lenient: float | None) -> None:
    assert read_score(text, POINT) == strict
    assert read_score(text, POINT, Reading.LENIENT) == lenient


def test_two_digit_scores_are_numbers() -> None:
    """Read as text, "10" < "9": the released scripts rejected their best candidate."""
    template = PointTemplate(
        prompt="x", scores={f" {n}": n for n in range(1, 11)}, text=PointText(marker="Final Score:")
    )
    scores = [read_score(f"Final Score: {n}", template) for n in (9, 10)]
    assert scores == [9.0, 10.0]
    assert max(s for s in scores if s is not None) == 10.0


def test_item_scores() -> None:
    template = PairTemplate(prompt="x", text=PairText(items=("Image 1:", "Image 2:")))
    shares = "Alignment Score:\n Image 1: {}\n Image 2: {}\nStyle Score:\n Image 1: {}\n Image 2: {}"
    assert read_choice(shares.format(0.7, 0.3, 0.4, 0.6), template, GENERATION) is Choice.FIRST
    assert read_choice(shares.format(0.1, 0.9, 0.6, 0.4), template, GENERATION) is Choice.SECOND
    assert read_choice(shares.format(0.3, 0.7, 0.7, 0.3), template, GENERATION) is Choice.TIE
    assert read_choice("Image 1: -1.5 Image 2: -0.5", template, GENERATION) is Choice.SECOND
    assert read_choice("Image 1: 0.7", template, GENERATION) is Choice.UNPARSED


def test_aspects_are_averaged_by_weight() -> None:
    text = PointText(aspects={"Alignment:": 2.0, "Style:": 1.0}, range=(1, 5))
    template = PointTemplate(prompt="x", text=text)
    assert read_score("Alignment: 5\nStyle: 2", template) == pytest.approx(4.0)
    assert read_score("Alignment: 5", template) is None
    assert read_score("Alignment: 5", template, Reading.LENIENT) == 5
    assert read_score("Alignment: 5 Style: 7", template) is None


def test_paper_reading_keeps_its_defects() -> None:
    assert paper_choice("... Overall Judgment: Answer 2 is better. Answer 1 is better", UNDERSTANDING) is Choice.SECOND
    assert paper_choice("Answer 1 is better or Answer 2 is better", UNDERSTANDING) is Choice.FIRST
    assert paper_choice("I refuse", UNDERSTANDING) is Choice.FIRST
    assert paper_choice("Both images are equally good.", GENERATION) is Choice.FIRST
    assert paper_choice("Image 2 is better than Image 1.", GENERATION) is Choice.SECOND
    assert paper_choice("Image 2 is better.", GENERATION) is Choice.FIRST
    assert paper_choice("Image 2 is better than Image 1.", Task.VIDEO_GENERATION_PAIR) is Choice.FIRST
    assert paper_score("visual: 2 Final Score: 3.7") == 3
    assert paper_score("2 of 4 are right") == 2
    assert paper_score("none") == 0
    assert read_score("Final Score: 3.7", POINT, Reading.PAPER) == 3.0
    assert read_choice("nothing", NO_MARKER, UNDERSTANDING, Reading.PAPER) is Choice.FIRST


NOISE = st.text() | st.lists(
    st.sampled_from(["Verdict:", "Score:", "Answer 1 is better", "Answer 2 is better", "Both are equal", "Overall Judgment",
                     "Final Score:", "3.7", "-1", "10", "٣", ".", "\n", "**", "(", "1" * 5000])
).map(" ".join)  # fmt: skip


@given(NOISE, st.sampled_from(list(Task)), st.sampled_from(list(Reading)))
def test_no_text_makes_a_parser_raise(text: str, task: Task, reading: Reading) -> None:
    if task.mode is Mode.PAIR:
        assert isinstance(read_choice(text, DEFAULT.pair(task), task, reading), Choice)
    else:
        score = read_score(text, DEFAULT.point(task), reading)
        assert score is None or reading is Reading.PAPER or 1 <= score <= 5


REASONS = st.text(alphabet="abcdefgh ,.;!?\n*'-", max_size=60)


@pytest.mark.parametrize("name", ["default", "shapes"])
@given(reasons=REASONS, task=st.sampled_from(list(Task)), data=st.data())
def test_what_a_pack_renders_it_reads(name: str, reasons: str, task: Task, data: st.DataObject) -> None:
    pack = load_pack(name)
    template = pack.template(task)
    key = data.draw(st.sampled_from(list(template.strings)))
    stop = template.rationale.stop if template.rationale else ""
    text = reasons + stop + template.verdict_prefix + template.strings[key]
    if task.mode is Mode.PAIR:
        assert read_choice(text, pack.pair(task), task) == key
    else:
        assert read_score(text, pack.point(task)) == pack.point(task).values[key]
