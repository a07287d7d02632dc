"""Which of two is better, as people's labels and judges' answers say it."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any


class Side(StrEnum):
    """first, second: as the two stand in the benchmark's data."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"

    def swapped(self) -> Side:
        return {Side.FIRST: Side.SECOND, Side.SECOND: Side.FIRST}.get(self, self)


WORDS: dict[str, Side] = {
    **dict.fromkeys(("a", "1", "1.0", "left", "leftvote", "first", "a>b", "a>>b", "model_a", "response_a", "chosen_a",
                     "preferred_a"), Side.FIRST),
    **dict.fromkeys(("b", "2", "2.0", "right", "rightvote", "second", "b>a", "b>>a", "a<b", "model_b", "response_b",
                     "chosen_b", "preferred_b"), Side.SECOND),
    **dict.fromkeys(("c", "same", "tie", "tied", "equal", "tievote", "bothbad", "both bad", "bothbad_vote", "both_bad",
                     "bothgood", "both good", "both", "neither", "draw", "a=b", "a=b=good", "a=b=bad"), Side.TIE),
}  # fmt: skip
THING = r"(?:edited\s+)?(?:image|picture|video|clip|answer|response|candidate|option|model|output)"
BETTER = re.compile(
    rf"\b{THING}\s*[#:]?\s*([12AB])\b\s*(?:is|was)\s+(?:the\s+)?"
    r"(?:(?:slightly|marginally|much|clearly|significantly|overall|a\s+bit)\s+)*(?:better|preferred|superior|winner|best)\b",
    re.IGNORECASE,
)
WHICH = r"(first|second|[12]|(?-i:[AB]))"  # "the winner is a tie" names no A
NTH_BETTER = re.compile(
    rf"\bthe\s+(first|second)\s+{THING}\s+(?:is|was)\s+(?:the\s+)?(?:(?:slightly|much|clearly|significantly|overall)\s+)*"
    r"(?:better|preferred|superior|winner|best)\b",
    re.IGNORECASE,
)
NAMED_BETTER = re.compile(
    rf"\b(?:better|preferred|winning)\s+{THING}\s*(?:is\s*:?|:)\s*\[?\"?(?:the\s+)?(?:{THING}\s+)?{WHICH}\b(?!')",
    re.IGNORECASE,
)
WINNER = re.compile(rf"\bwinner\s*(?:is|:)\s*(?:the\s+)?(?:{THING}\s*[#:]?\s*)?{WHICH}\b", re.IGNORECASE)
WINS = re.compile(rf"\b{THING}\s*[#:]?\s*([12AB])\b\s+wins\b", re.IGNORECASE)
STATEMENTS = (BETTER, NTH_BETTER, NAMED_BETTER, WINNER, WINS)
BARE = re.compile(rf"(?:the\s+)?{THING}\s*[#:]?\s*([12AB])[.!]?", re.IGNORECASE)
EQUAL = re.compile(
    r"\bequally\s+(?:good|bad|well|poor|matched)\b|\bboth\s+(?:\w+\s+)?are\s+(?:the\s+same|equal|comparable)\b"
    r"|\bof\s+(?:equal|comparable)\s+quality\b"
    r"|\b(?:it\s+is|it's|is)\s+a\s+tie\b|\bneither\s+(?:\w+\s+){0,2}is\s+better\b",
    re.IGNORECASE,
)
TAG = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
BOXED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*([^{}]+?)\s*\}")
BRACKETS = re.compile(r"\[\[\s*([^\[\]]+?)\s*\]\]")
MARKER = re.compile(r"(?:overall\s+judge?ment|final\s+(?:verdict|judge?ment|answer)|verdict)\s*[:\-]", re.IGNORECASE)
JSON_KEYS = ("better_response", "winner", "judgement", "judgment", "preferred", "choice", "better", "answer")
FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")


def read_label(value: Any) -> Side | None:
    """A person's label: A, B, same; left, right, tie; 1, 2; [1, 0] (1 = preferred); or a sentence. None: not a label."""
    if isinstance(value, list):
        shown = {(1, 0): Side.FIRST, (0, 1): Side.SECOND}
        return shown.get(tuple(value)) if len(value) == 2 else None
    if value is None or isinstance(value, bool):
        return None
    text = str(value).strip()
    return _word(text) or _stated(text)


def read_answer(text: str) -> Side | None:
    """The verdict of a judge's answer, in the order it was shown; None where it does not settle on one.

    What stands in the last <answer> tag counts, else what a JSON object says, else what is boxed, else a label in [[ ]], else
    the statements ("Image 1 is better", "the better response: [2]", "equally good") after the last "Overall Judgment:" or
    "Verdict:", else those of the whole text; statements must agree. A text of one word (A, left, 2, tie) is a verdict.
    """
    tags = TAG.findall(text)
    text = (tags[-1] if tags else text).replace("*", "").strip()
    if (said := _json_verdict(text)) is not None:
        return said
    if boxes := BOXED.findall(text):
        text = boxes[-1]
    if labels := BRACKETS.findall(text):
        sides = {WORDS.get(label.lower()) for label in labels}
        return sides.pop() if len(sides) == 1 else None
    for part in (text, MARKER.split(text)[-1]):
        if (word := _word(part)) is not None:
            return word
    return _stated(MARKER.split(text)[-1]) or _stated(text)


def _word(text: str) -> Side | None:
    """Of a text that is a verdict and nothing else: A, left, 2, tie, Image 1."""
    text = text.strip(" .'\"\n\t")
    bare = BARE.fullmatch(text)
    return WORDS.get((bare.group(1) if bare else text).lower())


def _stated(text: str) -> Side | None:
    sides = {WORDS[said.lower()] for pattern in STATEMENTS for said in pattern.findall(text)}
    if EQUAL.search(text):
        sides.add(Side.TIE)
    return sides.pop() if len(sides) == 1 else None


def _json_verdict(text: str) -> Side | None:
    bare = FENCE.sub("", text)
    found = re.search(r"\{.*\}", bare, re.DOTALL)
    if found is None:
        return None
    try:
        values = json.loads(found.group())
    except json.JSONDecodeError:
        return None
    named = next((values[key] for key in JSON_KEYS if key in values), None) if isinstance(values, dict) else None
    return None if named is None else read_label(named)
