"""GenAI-Bench, video generation: a benchmark, so its pairs are held out always. Two videos of a caption, with one vote.

Rows: id, prompt, video_left, video_right, vote_type (leftvote, rightvote, tievote, bothbad_vote; both bad is a tie).
"""

from __future__ import annotations

from unified_reward.data.examples import Example, File, Row, RowError, text
from unified_reward.data.format import Format, has
from unified_reward.records import Choice, Task

VOTES = {"leftvote": Choice.FIRST, "rightvote": Choice.SECOND, "tievote": Choice.TIE, "bothbad_vote": Choice.TIE}


def read(row: Row) -> list[Example]:
    vote = str(row.get("vote_type"))
    if vote not in VOTES:
        raise RowError("vote_type is not known", vote)
    return [Example(task=Task.VIDEO_GENERATION_PAIR, prompt=text(row, "prompt"), choice=VOTES[vote], split="test",
                    media=[File(text(row, key)) for key in ("video_left", "video_right")])]  # fmt: skip


FORMAT = Format(
    "genai-bench-video", "GenAI-Bench, video generation (TIGER-Lab/GenAI-Bench, as UnifiedReward ships it)", "MIT",
    has("video_left", "video_right", "vote_type"), read,
)  # fmt: skip
