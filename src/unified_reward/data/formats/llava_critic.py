"""LLaVA-Critic-113k: a judge's answers about an image, a question and one or two responses, written by GPT-4o.

Rows: id, source, image (bytes in the row, or a path), conversations. Pairwise rows ask in one way and answer "The better
response: [2]." Pointwise rows are the judge prompts of seven benchmarks as lmms-eval words them: some compare two answers
(LLaVA-Bench: two scores of 1 to 10; WildVision: [[A>B]]), some score one (captions 0 to 100, MM-Vet 0 to 1, MMHal 0 to 6,
LiveBench 0 to 10). Rows worded otherwise, or without the range of their score, are known to be among them: they are rejects,
and no sign of a wrong file.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, Row, RowError, medium
from unified_reward.data.format import Format, has
from unified_reward.data.formats.conversation import NO_RANGE, UNKNOWN_PROMPT, judged, pictures, turns
from unified_reward.records import Subject

OTHER_KINDS = (UNKNOWN_PROMPT, NO_RANGE)


def read(row: Row) -> list[Example]:
    human, answer = turns(row)
    media = [medium(value, "image") for value in pictures(row)]
    try:
        example = judged(human, answer, media, id=str(row.get("id") or ""))
    except RowError as error:
        raise RowError(error.reason, error.detail, foreign=error.reason in OTHER_KINDS) from None
    if example.task.subject is not Subject.UNDERSTANDING:
        raise RowError("it judges no answer about an image", example.prompt)
    return [example]


FORMAT = Format(
    "llava-critic", "LLaVA-Critic-113k (lmms-lab/llava-critic-113k)", "Apache-2.0",
    has("source", "image", "conversations"), read,
)  # fmt: skip
