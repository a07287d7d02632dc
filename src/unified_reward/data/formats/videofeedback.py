"""VideoFeedback: generated videos scored 1 to 4 by people in five respects, with no score of the whole.

Rows: id, images (names of a clip's frames, as pID_NN.jpg; they lie under a folder pID), "text prompt", one number for each
respect, conversations (the answer is five lines `respect: number`). Each respect is an example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from unified_reward.data.answers import read_lines
from unified_reward.data.examples import Example, File, Frames, Medium, Row, RowError, medium
from unified_reward.data.format import Format
from unified_reward.data.formats.conversation import turns
from unified_reward.data.prompts import read_prompt
from unified_reward.records import Task

ASPECTS = (
    "visual quality", "temporal consistency", "dynamic degree", "text-to-video alignment", "factual consistency",
)  # fmt: skip
LOW, HIGH = 1.0, 4.0
FRAME = re.compile(r"(.+)_\d+\.\w+")


def read(row: Row) -> list[Example]:
    prompt, scores = row.get("text prompt"), {name: row.get(name) for name in ASPECTS}
    if not isinstance(prompt, str) or None in scores.values():
        human, answer = turns(row)
        return scored(human, answer, [_clip(row)], id=str(row.get("id") or ""))
    if not prompt.strip():
        raise RowError("no text prompt")
    return _examples(prompt.strip(), scores, [_clip(row)], str(row.get("id") or ""))


def answers_in_lines(answer: str) -> bool:
    """Whether an answer is five lines without a score of the whole."""
    return len(read_lines(answer, ASPECTS)) == len(ASPECTS) and "final score" not in answer.lower()


def scored(human: str, answer: str, media: Sequence[Medium], *, id: str = "") -> list[Example]:
    """The five examples of a conversation. Raises RowError."""
    asked = read_prompt(human)
    if asked is None:
        raise RowError("the words of the prompt are not known", human)
    return _examples(asked.prompt, read_lines(answer, ASPECTS), media, id)


def _examples(prompt: str, scores: Mapping[str, object], media: Sequence[Medium], id: str) -> list[Example]:
    found = []
    for aspect in ASPECTS:
        score = scores.get(aspect)
        if not isinstance(score, int | float):
            raise RowError("a respect has no score", aspect)
        if not LOW <= score <= HIGH:
            raise RowError("a score is outside 1 to 4", f"{aspect}: {score:g}")
        found.append(
            Example(task=Task.VIDEO_GENERATION_POINT, prompt=prompt, media=media, aspect=aspect, score=float(score),
                    score_min=LOW, score_max=HIGH, id=f"{id} {aspect}" if id else "")
        )  # fmt: skip
    return found


def _clip(row: Row) -> Medium:
    clip = medium(row.get("images") or row.get("video"), "images")
    if isinstance(clip, File | Frames):
        first = clip.paths[0] if isinstance(clip, Frames) else clip.path
        name = FRAME.fullmatch(first)
        if isinstance(clip, Frames) and name and "/" not in first:
            return Frames(clip.paths, folder=name.group(1))
    return clip


def _matches(row: Row) -> bool:
    if "text prompt" in row or all(name in row for name in ASPECTS):
        return True
    try:
        return answers_in_lines(turns(row)[1])
    except RowError:
        return False


FORMAT = Format("videofeedback", "VideoFeedback (TIGER-Lab/VideoFeedback)", "Apache-2.0", _matches, read)
