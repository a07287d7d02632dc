"""People's votes on pairs of videos, in the layout of VideoAlign's CSV: path_A, path_B, prompt, and a column a respect.

VQ (visual quality), MQ (motion quality), TA (text alignment), Overall: A, B or same. Each is an example whose prompt names it.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, File, Row, RowError, text
from unified_reward.data.format import Format, has
from unified_reward.records import Choice, Task

ASPECTS = {"VQ": "visual quality", "MQ": "motion quality", "TA": "text alignment", "Overall": "overall quality"}
VOTES = {"a": Choice.FIRST, "b": Choice.SECOND, "same": Choice.TIE}


def read(row: Row) -> list[Example]:
    media, prompt = [File(text(row, key)) for key in ("path_A", "path_B")], text(row, "prompt")
    found = []
    for column, aspect in ASPECTS.items():
        vote = str(row.get(column) or "").strip()
        if not vote:
            continue
        if vote.lower() not in VOTES:
            raise RowError("a vote is not A, B or same", f"{column}: {vote}")
        found.append(
            Example(
                task=Task.VIDEO_GENERATION_PAIR, prompt=prompt, media=media, choice=VOTES[vote.lower()], aspect=aspect
            )
        )
    if not found:
        raise RowError("no vote", f"columns are {', '.join(ASPECTS)}")
    return found


FORMAT = Format(
    "votes", "pairs of videos with votes (VideoAlign, VideoGen-RewardBench)", "MIT (VideoAlign's example); that of your data",
    has("path_A", "path_B"), read,
)  # fmt: skip
