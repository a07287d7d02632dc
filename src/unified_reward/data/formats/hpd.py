"""HPD: Rapidata's 700k human preferences. Two pictures of one caption, with the votes each got; more votes are better.

Rows: prompt, image1, image2 (bytes in the row, or paths), votes_image1, votes_image2, model1, model2, detailed_results.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, Row, RowError, by_votes, medium, number, text
from unified_reward.data.format import Format, has
from unified_reward.records import Task


def read(row: Row) -> list[Example]:
    first, second = number(row, "votes_image1"), number(row, "votes_image2")
    if first < 0 or second < 0 or first + second == 0:
        raise RowError("no votes", f"{first:g} and {second:g}")
    return [Example(task=Task.IMAGE_GENERATION_PAIR, prompt=text(row, "prompt"), choice=by_votes(first, second),
                    media=[medium(row.get(key), key) for key in ("image1", "image2")])]  # fmt: skip


FORMAT = Format(
    "hpd", "HPD (Rapidata/700k_Human_Preference_Dataset_FLUX_SD3_MJ_DALLE3)", "CDLA-Permissive-2.0",
    has("votes_image1", "votes_image2"), read,
)  # fmt: skip
