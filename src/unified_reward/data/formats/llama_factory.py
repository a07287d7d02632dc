"""LLaMA-Factory's JSON: alpaca (instruction, input, chosen, rejected) and sharegpt (conversations or messages, chosen,
rejected) preference rows with images or videos, and single-turn judge conversations in either.

A preference is a pair of answers about the media.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unified_reward.data.examples import Example, Medium, Row, RowError, medium, placed, text
from unified_reward.data.format import Format
from unified_reward.data.formats.conversation import HUMAN, judged, one_clip, pictures, turns
from unified_reward.data.prompts import MEDIA
from unified_reward.records import Modality, Mode, Subject, Task


def read(row: Row) -> list[Example]:
    if "chosen" not in row and "rejected" not in row:
        return [_judged(row)]
    question = MEDIA.sub("", _question(row)).strip()
    if not question:
        raise RowError("no question")
    better, worse = _answer(row, "chosen"), _answer(row, "rejected")
    video, media = _media(row)
    first, second, choice = placed(better, worse, question + better)
    task = Task.of(Modality.VIDEO if video else Modality.IMAGE, Subject.UNDERSTANDING, Mode.PAIR)
    return [Example(task=task, prompt=question, media=media, answers=[first, second], choice=choice,
                    id=str(row.get("id") or ""))]  # fmt: skip


def _judged(row: Row) -> Example:
    if "instruction" in row:
        human, answer = _question(row), text(row, "output")
    else:
        human, answer = turns(row)
    return judged(human, answer, [medium(value, "images") for value in pictures(row)], id=str(row.get("id") or ""))


def _media(row: Row) -> tuple[bool, list[Medium]]:
    """(whether it is a video, media). A video may be given as a list of its frames."""
    video = bool(row.get("videos") or row.get("video"))
    media = [medium(value, "videos" if video else "images") for value in pictures(row)]
    return video, one_clip(media) if video and len(media) > 1 else media


def _question(row: Row) -> str:
    if row.get("history"):  # of alpaca rows; what was said before cannot stand in a record
        raise RowError("the conversation has several turns", len(row["history"]) + 1)
    if "instruction" in row:
        return "\n".join(part for part in (text(row, "instruction"), str(row.get("input") or "").strip()) if part)
    if isinstance(row.get("prompt"), str):
        return text(row, "prompt")
    said = row.get("conversations") or row.get("messages")
    if not isinstance(said, list | tuple) or not said:
        raise RowError("no conversation")
    asked = [_words(turn) for turn in said if isinstance(turn, Mapping) and _role(turn) in HUMAN]
    if len(asked) != 1:
        raise RowError("the conversation has several turns" if asked else "no question", len(asked))
    return asked[0]


def _answer(row: Row, key: str) -> str:
    value = row.get(key)
    words = _words(value) if isinstance(value, Mapping) else str(value or "").strip()
    if not words:
        raise RowError(f"no {key}")
    return words


def _role(turn: Mapping[str, Any]) -> str:
    return str(turn.get("from") or turn.get("role") or "")


def _words(turn: Mapping[str, Any]) -> str:
    return str(turn.get("value", turn.get("content")) or "").strip()


def _matches(row: Row) -> bool:
    talk = any(key in row for key in ("instruction", "conversations", "messages"))
    pair = "chosen" in row and "rejected" in row
    return talk and (pair or any(key in row for key in ("images", "videos")))


FORMAT = Format("llama-factory", "LLaMA-Factory JSON (alpaca or sharegpt)", "that of your data", _matches, read)
