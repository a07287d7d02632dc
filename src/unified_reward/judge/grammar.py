"""The verdict out of a judge's text: {1, 2, tie} or unparsed, and scores as floats inside their range.

Nothing is guessed: a text that says no verdict, or two, is `unparsed` (or None), never a win for the first item.
Three ways to read:
    strict   the marker must be there, all statements after it must agree, a number must stand right after its label
    lenient  without a marker the whole text counts, the last statement decides, the first number after a label counts
    paper    what the released scripts do, defects included, to compare with published numbers only
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum

from unified_reward.judge.pack import PairTemplate, PointTemplate
from unified_reward.records import Choice, Modality, Subject, Task

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")
BETWEEN = re.compile(r"[\s:=*_\[\](\"',]*")  # what may stand between a label and its number
DIGITS = re.compile(r"[0-9]+")


class Reading(StrEnum):
    STRICT = "strict"
    LENIENT = "lenient"
    PAPER = "paper"


def read_choice(text: str, template: PairTemplate, task: Task, reading: Reading = Reading.STRICT) -> Choice:
    """The pairwise verdict in `text`. Never raises."""
    if reading is Reading.PAPER:
        return paper_choice(text, task)
    text = _squeeze(text)
    verdict = _after(text, template.text.marker, reading)
    if verdict is None:
        return Choice.UNPARSED
    if template.text.items is not None:
        return _by_item_scores(verdict, template.text.items, reading)
    said = _statements(verdict, template)
    if not said or (reading is Reading.STRICT and len({choice for _, choice in said}) > 1):
        return Choice.UNPARSED
    return max(said)[1]


def read_score(text: str, template: PointTemplate, reading: Reading = Reading.STRICT) -> float | None:
    """The pointwise score in `text`, inside the template's range, or None. Never raises."""
    if reading is Reading.PAPER:
        return float(paper_score(text))
    text = _squeeze(text)
    if template.text.aspects:
        score = aspect_mean(read_aspects(text, template, reading), template, reading)
    else:
        verdict = _after(text, template.text.marker or template.verdict_prefix, reading)
        numbers = [] if verdict is None else _numbers(verdict, template.text.numbers, reading)
        score = sum(numbers) / len(numbers) if numbers else None
    low, high = template.range
    return score if score is not None and low <= score <= high else None


def read_aspects(text: str, template: PointTemplate, reading: Reading = Reading.STRICT) -> dict[str, float]:
    """Label -> score of each aspect that `text` scores inside the template's range; the last number of a label counts."""
    text = _squeeze(text)
    low, high = template.range
    found = {}
    for label in template.text.aspects:
        values = _labelled(text, label, reading)
        if values and low <= values[-1] <= high:
            found[label] = values[-1]
    return found


def paper_choice(text: str, task: Task) -> Choice:
    """The released scripts' reading: what is not plainly a win of the second item is a win of the first.

    So ties, refusals and unreadable answers all favour the item shown first.
    """
    if task.subject is Subject.UNDERSTANDING:
        if "Overall Judgment" in text:
            text = text.split("Overall Judgment")[-1].strip().split(".")[0].strip()
        won = "Answer 1 is better" not in text and "Answer 2 is better" in text
    else:
        item = "Image" if task.modality is Modality.IMAGE else "Video"
        won = f"{item} 2 is better than {item} 1" in text
    return Choice.SECOND if won else Choice.FIRST


def paper_score(text: str) -> int:
    """The released scripts' reading: the first integer after the last "Final Score:", else in the whole text, else 0.

    So 3.7 is 3, and a text without any number is worse than the worst score.
    """
    found = DIGITS.search(text.split("Final Score:")[-1])
    return int(found.group()[:300]) if found else 0


def _squeeze(text: str) -> str:
    """One blank between words and no emphasis marks: models wrap lines and print **bold** where they like."""
    return " ".join(text.replace("**", "").split())


def _after(text: str, marker: str, reading: Reading) -> str | None:
    marker = _squeeze(marker)
    if not marker:
        return text
    at = text.lower().rfind(marker.lower())
    if at >= 0:
        return text[at + len(marker) :]
    return text if reading is Reading.LENIENT else None


def _statements(text: str, template: PairTemplate) -> list[tuple[int, Choice]]:
    """(end, choice) of each statement in `text`."""
    sentences = template.text.statements or {Choice(key): [words] for key, words in template.strings.items()}
    return [
        (match.end(), choice)
        for choice, ways in sentences.items()
        for words in ways
        for match in _words(words).finditer(text)
    ]


def _words(sentence: str) -> re.Pattern[str]:
    bare = _squeeze(sentence).rstrip(".!")
    return re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)", re.IGNORECASE)


def _by_item_scores(text: str, items: tuple[str, str], reading: Reading) -> Choice:
    first, second = (_labelled(text, label, reading) for label in items)
    if not first or len(first) != len(second):
        return Choice.UNPARSED
    gap = math.fsum(first) - math.fsum(second)
    if abs(gap) < 1e-9:  # three shares of .1 against one of .3 differ by rounding only
        return Choice.TIE
    return Choice.FIRST if gap > 0 else Choice.SECOND


def aspect_mean(found: Mapping[str, float], template: PointTemplate, reading: Reading = Reading.STRICT) -> float | None:
    """The weighted mean of the aspects read; None when all are missing, or (strict) any is."""
    if not found or (reading is Reading.STRICT and len(found) < len(template.text.aspects)):
        return None
    weights = {label: template.text.aspects[label] for label in found}
    total = sum(weights.values())
    return sum(value * weights[label] for label, value in found.items()) / total if total > 0 else None


def _labelled(text: str, label: str, reading: Reading) -> list[float]:
    """The number after each occurrence of `label`."""
    numbers: list[float] = []
    for match in re.finditer(re.escape(_squeeze(label)), text, re.IGNORECASE):
        numbers.extend(_numbers(text[match.end() :], 1, reading))
    return numbers


def _numbers(text: str, count: int, reading: Reading) -> list[float]:
    """The first `count` numbers of `text`, [] when there are fewer. Strict: nothing but punctuation before each."""
    at, numbers = 0, []
    for _ in range(count):
        if reading is Reading.STRICT:
            gap = BETWEEN.match(text, at)
            match = NUMBER.match(text, gap.end() if gap else at)
        else:
            match = NUMBER.search(text, at)
        if match is None:
            return []
        numbers.append(float(match.group()))
        at = match.end()
    return numbers
