"""UnifiedReward's re-packs (CodeGoat24/*): LLaVA-style conversations, and the {problem, solution} of its GRPO records.

Rows: conversations (or problem, solution), and images (a list), image or video. More than two pictures are the frames of one
clip, or those of the first and then of the second. Prompts are those of the released scripts, in any of their wordings.
"""

from __future__ import annotations

from unified_reward.data.examples import Example, Row, RowError, medium, text
from unified_reward.data.format import Format
from unified_reward.data.formats import lift_hra, videofeedback
from unified_reward.data.formats.conversation import judged, one_clip, pictures, turns


def read(row: Row) -> list[Example]:
    human, answer = (text(row, "problem"), text(row, "solution")) if "problem" in row else turns(row)
    media = [medium(value, "images") for value in pictures(row)]
    id = str(row.get("id") or "")
    if lift_hra.asks(human):
        return [lift_hra.rated(human, answer, one_clip(media), id=id)]
    if videofeedback.answers_in_lines(answer):
        return videofeedback.scored(human, answer, one_clip(media), id=id)
    return [judged(human, answer, media, id=id)]


def _matches(row: Row) -> bool:
    if "problem" in row and "solution" in row:
        return True
    try:
        turns(row)
    except RowError:
        return False
    return any(key in row for key in ("images", "image", "video")) and "chosen" not in row


FORMAT = Format(
    "unifiedreward", "UnifiedReward re-packs (CodeGoat24/*, train_data.json)", "MIT (cards); that of each source",
    _matches, read,
)  # fmt: skip
