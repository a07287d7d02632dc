"""What a published judge prompt asks: the caption, or the question and the answers, without the words around them.

Our own templates, or a pack the user loads, put words around them again; two kinds of words in one would teach neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unified_reward.records import Modality, Mode, Subject, Task

MEDIA = re.compile(r"\s*<(?:image|video)>\s*")
LAST = r"\s*\Z"
CAPTION = re.compile(r"Text (?:Caption|Prompt):\s*\[(.*)\]" + LAST, re.S)
QUOTED = re.compile(r"text prompt is \"(.*?)\"\s*,?\s*\n?\s*all the frames", re.S | re.I)
PAIRS = (
    re.compile(r"Question:\s*\[(.*?)\]\s*\n\s*(?:The first response|Response 1|Response A|Answer 1):\s*\[(.*?)\]\s*\n\s*"
               r"(?:The second response|Response 2|Response B|Answer 2):\s*\[(.*)\]", re.S),
    re.compile(r"Question:\s*(.*?)\s*\n\s*(?:Answer|Response) 1:\s*(.*?)\s*\n\s*(?:Answer|Response) 2:\s*(.*?)"
               r"\s*(?:\nPlease evaluate both|\Z)", re.S),
    re.compile(r"<\|User Prompt\|>\s*(.*?)\s*<\|The Start of Assistant A's Answer\|>\s*(.*?)\s*<\|The End of Assistant A's "
               r"Answer\|>\s*<\|The Start of Assistant B's Answer\|>\s*(.*?)\s*<\|The End of Assistant B's Answer\|>", re.S),
    re.compile(r"\[Question\]\s*(.*?)\s*\[Assistant 1\]\s*(.*?)\s*\[End of Assistant 1\]\s*"
               r"\[Assistant 2\]\s*(.*?)\s*\[End of Assistant 2\]", re.S),
)  # fmt: skip
POINTS = (
    re.compile(r"Question:\s*\[(.*?)\]\s*\n\s*(?:The )?(?:Response|Answer):\s*\[(.*)\]", re.S | re.I),
    re.compile(r"\[Question\]\s*(.*?)\s*\[(?:Assistant|Response|Answer)\]\s*(.*?)\s*\[End of (?:Assistant|Response|Answer)\]",
               re.S),
    re.compile(r"Question:\s*(.*?)\s*\n\s*(?:Response|Answer):\s*(.*)\Z", re.S),
    # MMHal-Bench, LiveBench and MM-Vet, as lmms-eval asks; the reference answer between is left out
    re.compile(r"### Question\s*(.*?)\s*### Standard Human-Generated Answer.*?### LMM Response to Evaluate\s*(.*)\Z", re.S),
    re.compile(r"\[Question\]\s*(.*?)\s*\[Assistant Response\]\s*(.*?)\s*\[Ground Truth Response\]", re.S),
    re.compile(r"\|\s*Correctness\s*\n.*\|\s*[01]\.\d\s*\n\s*(.*?)\s*\|.*?\|\s*(.*?)\s*\|?\s*\Z", re.S),
)  # fmt: skip
CAPTIONING = re.compile(r"Text Caption:\s*(.*?)\s*\n\s*From 0 to 100", re.S)
DESCRIBE = "Describe this image in detail."
RANGE = re.compile(r"\b(?:from|between|scale of|range of)\s+(\d+)\s*(?:to|and|-|–)\s*(\d+)\b", re.I)
OPTIONS = re.compile(r"^\s*-\s*Rating:\s*(\d+)", re.M)
STATED = (
    re.compile(r"from (\d+) to (\d+)[^.\n]{0,60}'?Final Score"),
    re.compile(r"rating should be (\d+)\s*-\s*(\d+)", re.I),
    re.compile(r"(\d+\.\d+) \(totally wrong\).*?(\d+\.\d+) \(totally right\)", re.S),
)
CLIP = re.compile(r"\bvideos?\b", re.I)
TWO = re.compile(r"\btwo (?:generated )?(?:images|videos)\b|\b(?:image|video) 2\b|\btwo videos\b", re.I)


@dataclass(frozen=True)
class Asked:
    """task; prompt: the caption or the question; answers as JudgeRecord holds them; range: of scores, as the words say."""

    task: Task
    prompt: str
    answers: tuple[str, ...] = ()
    range: tuple[float, float] | None = None


def read_prompt(human: str) -> Asked | None:
    """What the human turn of a published record asks; None when its words are none of those known."""
    words = MEDIA.sub("", human).strip()
    found = _pair(words) or _point(words) or _generation(words)
    if found is None:
        return None
    mode, subject, parts, around = found
    modality = Modality.VIDEO if CLIP.search(around) else Modality.IMAGE
    return Asked(Task.of(modality, subject, mode), parts[0], parts[1:], _range(around))


_Found = tuple[Mode, Subject, tuple[str, ...], str]


def _pair(words: str) -> _Found | None:
    return _answers(words, PAIRS, Mode.PAIR)


def _point(words: str) -> _Found | None:
    match = CAPTIONING.search(words)
    if match:  # a caption that is itself the answer to judge
        return Mode.POINT, Subject.UNDERSTANDING, (DESCRIBE, match.group(1)), words[match.end(1) :]
    return _answers(words, POINTS, Mode.POINT)


def _answers(words: str, patterns: tuple[re.Pattern[str], ...], mode: Mode) -> _Found | None:
    for pattern in patterns:
        match = pattern.search(words)
        if match and all(part.strip() for part in match.groups()):
            parts = tuple(part.strip() for part in match.groups())
            return mode, Subject.UNDERSTANDING, parts, words[: match.start()] + " " + words[match.end() :]
    return None


def _generation(words: str) -> _Found | None:
    match = CAPTION.search(words) or QUOTED.search(words)
    if match is None or not match.group(1).strip():
        return None
    around = words[: match.start()]
    mode = Mode.PAIR if TWO.search(around) else Mode.POINT
    return mode, Subject.GENERATION, (match.group(1).strip(),), around


def _range(around: str) -> tuple[float, float] | None:
    """Of the sentence that states it, else of the rating options, else the only "from A to B" in the prompt."""
    stated = next((match for pattern in STATED if (match := pattern.search(around))), None)
    if stated:
        return float(stated.group(1)), float(stated.group(2))
    if options := [float(option) for option in OPTIONS.findall(around)]:
        return min(options), max(options)
    found = {(float(low), float(high)) for low, high in RANGE.findall(around)}
    return found.pop() if len(found) == 1 else None
