"""The verdict in the words of a published answer, and the reasons around it.

Sources word one verdict in many ways ("Image 1 is better than Image 2.", "The better response: [2].", "[[A>B]]"). Each is
read into 1, 2 or tie. What says nothing, or two different things, is not read: None, never a guess.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from unified_reward.records import Choice

ITEM = r"(?:image|video|answer|response|assistant|caption|model|output)"
WHICH = r"(?:1|2|a|b|first|second|one|two)"
BETTER = r"(?:\w+\s+)?(?:better|preferred|superior)\b(?!\s+(?:at|in|on|aligned|suited|composed|lit|defined|detailed)\b)"
PATTERNS = (
    re.compile(rf"\b{ITEM}\s+\[?({WHICH})\]?\s+(?:is|was|seems|appears)\s+{BETTER}", re.I),
    re.compile(rf"\bthe\s+({WHICH})\s+{ITEM}\s+(?:is|was)\s+{BETTER}", re.I),
    re.compile(rf"\bthe\s+better\s+{ITEM}\s*(?:is)?\s*:?\s*(?:the\s+)?(?:{ITEM}\s+)?\[?\"?({WHICH})\b", re.I),
)  # fmt: skip
EXPLICIT = re.compile(
    rf"\bthe\s+better\s+{ITEM}\s*:\s*\[\"?(?:the\s+)?(?:{ITEM}\s+)?({WHICH})(?:\s+{ITEM})?\"?\]", re.I
)
TIES = re.compile(
    rf"\b(?:both|(?:the\s+)?two|these)\s+(?:\w+\s+){{0,2}}?(?:{ITEM}s\s+)?(?:are|is)\s+(?:\w+\s+)?"
    r"(?:equal(?:ly)?(?:\s+good)?|tied|the\s+same)\b|\bequally\s+good\b|\bit\s+is\s+a\s+tie\b",
    re.I,
)
ARENA = re.compile(r"\[\[\s*(A>>B|A>B|A=B|B>A|B>>A)\s*\]\]")
TWO_SCORES = re.compile(r"^\s*(\d+(?:\.\d+)?)[ ,]+(\d+(?:\.\d+)?)\s*(?:\n|$)")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.S | re.I)
THOUGHT = re.compile(r"<think>(.*?)</think>", re.S | re.I)
JUDGMENT = re.compile(r"overall\s+judge?ment\s*:?", re.I)
NUMBER = r"[-+]?\d+(?:\.\d+)?"
LABELLED = re.compile(
    rf"\b(?:final\s+score|overall\s+score|rating|score)\"?\s*(?:is|of)?\s*[:=]?\s*\**\[*\"?\s*({NUMBER})(?:\s*/\s*\d+)?",
    re.I,
)
OPTION = re.compile(r"\**,[^\n.]*", re.I)
EXPLAINED = re.compile(r"\{\s*\"Explanation\"\s*:.*\}", re.S)
BARE = re.compile(rf"^\s*({NUMBER})\s*(?:/\s*\d+)?\s*(?:[.,:;\n]|$)")
LAST_LINE = re.compile(rf"(?:^|\n)\s*({NUMBER})\s*\.?\s*$")
FIRST, SECOND = {"1", "a", "first", "one"}, {"2", "b", "second", "two"}


@dataclass(frozen=True)
class Verdict:
    """choice of a pair; rationale: the answer without the sentence that says it."""

    choice: Choice
    rationale: str


@dataclass(frozen=True)
class Score:
    value: float
    rationale: str


def read_choice(answer: str) -> Verdict | None:
    """The pairwise verdict of an answer, None when it says none or contradicts itself.

    Where an answer marks its verdict (<answer>, "Overall Judgment:", a bold conclusion), only that part counts.
    """
    told, reasons = _marked(answer)
    found = _arena(told) or _statements(told) or _two_scores(told)
    if found is None:
        return None
    choice, start, end = found
    rest = told[:start] + told[end:] if told is answer or not reasons else ""
    return Verdict(choice, _tidy(f"{reasons}\n{rest}" if reasons else rest))


def read_score(answer: str) -> Score | None:
    """The score of a pointwise answer: after "Final Score:" or another label, or a number that stands alone at either end.

    What follows a rating on its line ("Rating: 2, very informative, with hallucination") is the option's name, no reason.
    """
    answer = _explained(answer)
    found = list(LABELLED.finditer(answer))
    final = [m for m in found if m.group(0).lower().startswith("final")]
    if final and len({float(m.group(1)) for m in final}) > 1:
        return None
    match = final[-1] if final else BARE.match(answer) or (found[-1] if len(found) == 1 else None)
    match = match or LAST_LINE.search(answer)
    if match is None:
        return None
    rated = match.group(0).lower().startswith("rating")
    end = OPTION.match(answer, match.end()) if rated else None
    return Score(float(match.group(1)), _tidy(answer[: match.start()] + answer[end.end() if end else match.end() :]))


def _explained(answer: str) -> str:
    """LiveBench's answer, {"Explanation": ..., "Rating": ...}, as text; any other as it is."""
    found = EXPLAINED.search(answer)
    try:
        said = json.loads(found.group()) if found else {}
    except json.JSONDecodeError:
        return answer
    return f"{said['Explanation']}\nRating: {said['Rating']}" if "Rating" in said else answer


def read_lines(answer: str, labels: tuple[str, ...]) -> dict[str, float]:
    """`label: number` for each label that stands in the answer."""
    found = {}
    for label in labels:
        match = re.search(rf"{re.escape(label)}\s*:\s*({NUMBER})", answer, re.I)
        if match:
            found[label] = float(match.group(1))
    return found


def _marked(answer: str) -> tuple[str, str]:
    """(the part that holds the verdict, reasons elsewhere)."""
    tagged = TAGGED.search(answer)
    if tagged:
        thought = THOUGHT.search(answer)
        return tagged.group(1), thought.group(1).strip() if thought else ""
    judged = list(JUDGMENT.finditer(answer))
    if judged:
        return answer[judged[-1].end() :], answer[: judged[-1].start()].strip()
    return answer, ""


def _statements(told: str) -> tuple[Choice, int, int] | None:
    marked = EXPLICIT.search(told) is not None  # what stands in brackets is the verdict, and the rest its reasons
    found = [
        (Choice.FIRST if match.group(1).lower() in FIRST else Choice.SECOND, *_sentence(told, match))
        for pattern in ([EXPLICIT] if marked else PATTERNS)
        for match in pattern.finditer(told)
        if not _negated(told, match)
    ]
    found += [(Choice.TIE, *_sentence(told, match)) for match in TIES.finditer(told) if not marked]
    if not found or len({choice for choice, *_ in found}) > 1:
        return None
    return min(found, key=lambda each: each[1])


def _negated(told: str, match: re.Match[str]) -> bool:
    """Whether the statement is denied ("neither", "not better") or supposed ("if Image 1 is better")."""
    before = told[max(0, match.start() - 12) : match.start()].lower()
    return bool(re.search(r"\b(?:not|neither|nor|if|whether)\b", before + " " + match.group(0).lower()))


def _sentence(told: str, match: re.Match[str]) -> tuple[int, int]:
    """Where the verdict's sentence begins and ends: "Image 1 is better than Image 2." """
    end = re.compile(rf"\]?\"?(?:\s+than\s+(?:the\s+)?(?:{WHICH}\s+)?(?:{ITEM})?(?:\s+{WHICH})?\b)?\s*[.!]?", re.I)
    after = end.match(told, match.end())
    return match.start(), after.end() if after else match.end()


def _arena(told: str) -> tuple[Choice, int, int] | None:
    found = list(ARENA.finditer(told))
    if not found or len({_order(m.group(1)) for m in found}) > 1:
        return None
    return _order(found[-1].group(1)), found[-1].start(), found[-1].end()


def _order(said: str) -> Choice:
    return Choice.TIE if "=" in said else Choice.FIRST if said.startswith("A") else Choice.SECOND


def _two_scores(told: str) -> tuple[Choice, int, int] | None:
    match = TWO_SCORES.match(told)
    if match is None:
        return None
    first, second = float(match.group(1)), float(match.group(2))
    choice = Choice.TIE if first == second else Choice.FIRST if first > second else Choice.SECOND
    return choice, match.start(), match.end()


def _tidy(rationale: str) -> str:
    """Without what the verdict's sentence left at its ends; a rest of a word or two is no reason."""
    rest = rationale.strip(" \n\t*:-]").strip()
    return rest if len(re.findall(r"\w+", rest)) > 2 else ""
