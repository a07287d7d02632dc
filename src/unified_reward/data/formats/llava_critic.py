"""LLaVA-Critic-113k: a judge's answers about an image, a question and one or two responses, written by GPT-4o.

Rows: id, source, image (bytes in the row, or a path), conversations. Prompts and answers are worded in many ways; what says
no verdict, or a score without its range, is a reject.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, Row, RowError, medium
from unified_reward.data.format import Format, has
from unified_reward.data.formats.conversation import judged, pictures, turns
from unified_reward.records import Subject


def read(row: Row) -> list[Example]:
    human, answer = turns(row)
    example = judged(human, answer, [medium(value, "image") for value in pictures(row)], id=str(row.get("id") or ""))
    if example.task.subject is not Subject.UNDERSTANDING:
        raise RowError("it judges no answer about an image", example.prompt)
    return [example]


FORMAT = Format(
    "llava-critic", "LLaVA-Critic-113k (lmms-lab/llava-critic-113k)", "Apache-2.0",
    has("source", "image", "conversations"), read,
)  # fmt: skip
