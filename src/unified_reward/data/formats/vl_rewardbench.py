"""VL-RewardBench (data.json): a benchmark, so its pairs are held out always. Two answers about an image, ranked by people.

Rows: id, query, response (two), image, human_ranking (0 = best), query_source, rationale.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, Row, RowError, medium, placed, text
from unified_reward.data.format import Format, has
from unified_reward.records import Task

RANKINGS = ((0, 1), (1, 0))


def read(row: Row) -> list[Example]:
    answers = row.get("response")
    if not isinstance(answers, list | tuple) or len(answers) != 2 or not all(str(a or "").strip() for a in answers):
        raise RowError("it has not two responses")
    ranking = row.get("human_ranking")
    if not isinstance(ranking, list | tuple) or tuple(ranking) not in RANKINGS:
        raise RowError("human_ranking is not 0, 1 or 1, 0", ranking)
    better, worse = (str(answers[list(ranking).index(rank)]).strip() for rank in (0, 1))
    id = str(row.get("id") or "")
    first, second, choice = placed(better, worse, id + better)
    return [
        Example(
            task=Task.IMAGE_UNDERSTANDING_PAIR, prompt=text(row, "query"), media=[medium(row.get("image"), "image")],
            answers=[first, second], choice=choice, split="test", id=id, rationale=str(row.get("rationale") or ""),
        )
    ]  # fmt: skip


FORMAT = Format(
    "vl-rewardbench", "VL-RewardBench (MMInstruction/VL-RewardBench, data.json)", "none stated; MIT as re-distributed",
    has("query", "response", "human_ranking"), read,
)  # fmt: skip
