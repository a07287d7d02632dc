"""OIP: open-image-preferences-v1-binarized. A caption with the picture people chose and the one they rejected.

Rows: prompt, chosen, rejected (bytes in the row, or paths), chosen_model, rejected_model, ...
"""

from __future__ import annotations

from collections.abc import Mapping

from unified_reward.data.examples import Example, Row, medium, names, placed, text
from unified_reward.data.format import Format
from unified_reward.records import Task

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read(row: Row) -> list[Example]:
    prompt, better, worse = (
        text(row, "prompt"),
        medium(row.get("chosen"), "chosen"),
        medium(row.get("rejected"), "rejected"),
    )
    key = str(row.get("id") or prompt + names([better, worse]))
    first, second, choice = placed(better, worse, key)
    return [Example(task=Task.IMAGE_GENERATION_PAIR, prompt=prompt, media=[first, second], choice=choice)]


def _matches(row: Row) -> bool:
    return "prompt" in row and all(_pictured(row.get(key)) for key in ("chosen", "rejected"))


def _pictured(value: object) -> bool:
    """Whether the value is a picture, where other preference sets have a text."""
    if isinstance(value, Mapping):
        return "bytes" in value or "path" in value
    return isinstance(value, bytes) or (isinstance(value, str) and value.lower().endswith(PICTURES))


FORMAT = Format(
    "oip", "Open-Image-Preferences (data-is-better-together/open-image-preferences-v1-binarized)", "Apache-2.0",
    _matches, read,
)  # fmt: skip
