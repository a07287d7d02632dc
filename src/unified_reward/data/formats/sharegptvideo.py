"""ShareGPTVideo (LLaVA-Hound, sft_dpo_17k.jsonl): two answers about a video, with a language model's scores of them.

Rows: id, video (a folder of frames, or a file named without its ending), prompt, chosen, rejected, chosen_score,
rejected_score (1 to 5). A row is a pair and, where scores are given, two pointwise examples.
"""

from __future__ import annotations

from collections.abc import Mapping

from unified_reward.data.examples import Example, File, Row, RowError, number, placed, text
from unified_reward.data.format import Format
from unified_reward.data.prompts import MEDIA
from unified_reward.records import Task

LOW, HIGH = 1.0, 5.0


def read(row: Row) -> list[Example]:
    question = MEDIA.sub("", _said(row, "prompt")).strip()
    if not question:
        raise RowError("no prompt")
    media, id = [File(text(row, "video"))], str(row.get("id") or "")
    better, worse = _said(row, "chosen"), _said(row, "rejected")
    first, second, choice = placed(better, worse, id + question + better)
    pair = Example(task=Task.VIDEO_UNDERSTANDING_PAIR, prompt=question, media=media, answers=[first, second],
                   choice=choice, id=id)  # fmt: skip
    return [pair, *(
        Example(task=Task.VIDEO_UNDERSTANDING_POINT, prompt=question, media=media, answers=[answer],
                score=_score(row, key), score_min=LOW, score_max=HIGH, id=f"{id} {key}" if id else "")
        for answer, key in ((better, "chosen"), (worse, "rejected")) if row.get(f"{key}_score") is not None
    )]  # fmt: skip


def _said(row: Row, key: str) -> str:
    value = row.get(key)
    return text(value, "value") if isinstance(value, Mapping) else text(row, key)


def _score(row: Row, key: str) -> float:
    score = number(row, f"{key}_score")
    if not LOW <= score <= HIGH:
        raise RowError(f"{key}_score is outside 1 to 5", score)
    return score


def _matches(row: Row) -> bool:
    return isinstance(row.get("video"), str) and all(key in row for key in ("prompt", "chosen", "rejected"))


FORMAT = Format(
    "sharegptvideo", "ShareGPTVideo (ShareGPTVideo/train_video_and_instruction, sft_dpo_17k.jsonl)", "Apache-2.0",
    _matches, read,
)  # fmt: skip
