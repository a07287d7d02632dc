"""LiFT-HRA: people's ratings of generated videos in three respects, each Good, Normal or Bad with a reason.

Rows: video, conversations; the human turn is the caption and a request to name the semantic consistency, fidelity or motion
issues; the answer begins with the rating. The three words are read as 3, 2, 1 of 1 to 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unified_reward.data.examples import Example, Medium, Row, RowError, medium
from unified_reward.data.format import Format
from unified_reward.data.formats.conversation import pictures, turns
from unified_reward.data.prompts import MEDIA
from unified_reward.records import Task

REQUEST = re.compile(
    r"\s*Please identify the (semantic consistency|fidelity|motion) issues? in this video\b.*", re.S | re.I
)
RATING = re.compile(r"\s*(Good|Normal|Bad)\b[\s.,:;]*", re.I)
SCORES = {"bad": 1.0, "normal": 2.0, "good": 3.0}


def read(row: Row) -> list[Example]:
    human, answer = turns(row)
    return [rated(human, answer, [medium(value, "video") for value in pictures(row)], id=str(row.get("id") or ""))]


def asks(human: str) -> bool:
    return bool(REQUEST.search(human))


def rated(human: str, answer: str, media: Sequence[Medium], *, id: str = "") -> Example:
    """The example of one question. Raises RowError."""
    request = REQUEST.search(human)
    if request is None:
        raise RowError("the words of the prompt are not known", human)
    rating = RATING.match(answer)
    if rating is None:
        raise RowError("the answer does not begin with Good, Normal or Bad", answer)
    if len(media) != 1:
        raise RowError("the number of media is not that of the task", len(media))
    caption = MEDIA.sub("", human[: request.start()]).strip()
    if not caption:
        raise RowError("no caption", human)
    aspect = request.group(1).lower()
    return Example(task=Task.VIDEO_GENERATION_POINT, prompt=caption, media=media, aspect=aspect, id=id,
                   score=SCORES[rating.group(1).lower()], score_min=1.0, score_max=3.0,
                   rationale=answer[rating.end() :].strip())  # fmt: skip


def _matches(row: Row) -> bool:
    try:
        return "video" in row and asks(turns(row)[0])
    except RowError:
        return False


FORMAT = Format("lift-hra", "LiFT-HRA (Fudan-FUXI, LiFT-HRA-data.json)", "none stated", _matches, read)
