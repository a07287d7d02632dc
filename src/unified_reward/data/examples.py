"""What a format's reader gives: an example whose media are still names, bytes or lists of frames.

A reader is a pure function from one published row to examples. It raises RowError, with one reason, for a row it cannot read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unified_reward.records import Choice, JudgeRecord, Task

Row = Mapping[str, Any]


class RowError(Exception):
    """Why a row is no example. reason: the same for all rows of its kind, to count by. detail: what this row holds.

    foreign: the published set is known to hold rows of this kind beside those that are read, so it is no fault of the file.
    """

    def __init__(self, reason: str, detail: object = "", *, foreign: bool = False) -> None:
        text = " ".join(str(detail).split())[:160]
        super().__init__(f"{reason} ({text})" if text else reason)
        self.reason, self.detail, self.foreign = reason, text, foreign


@dataclass(frozen=True)
class File:
    """A picture, a video, or a folder of a clip's frames, by its path as published."""

    path: str


@dataclass(frozen=True)
class Inline:
    """A medium whose bytes stand in the row. name: as published, for messages."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Frames:
    """A clip published as the paths of its frames, in order. folder: where else they may lie, below the same root."""

    paths: tuple[str, ...]
    folder: str = ""


Medium = File | Inline | Frames


@dataclass(frozen=True, kw_only=True)
class Example:
    """A labelled example before its media are read. Fields as in JudgeRecord.

    id: as published, "" where rows have none. split: as published, "" where none is named. aspect: what of the item is
    judged ("" = as a whole).
    """

    task: Task
    prompt: str
    media: Sequence[Medium]
    answers: Sequence[str] = ()
    choice: Choice | None = None
    score: float | None = None
    score_min: float | None = None
    score_max: float | None = None
    rationale: str = ""
    id: str = ""
    split: str = ""
    source: str = ""
    aspect: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    def record(self, media: Sequence[str], *, name: str, source: str) -> JudgeRecord:
        """The record, its media named by digest. name: its id where the row has none; source: likewise."""
        return JudgeRecord(
            id=self.id or name, task=self.task, split=self.split, source=self.source or source, media=list(media),
            prompt=f"{self.prompt} Judge the {self.aspect}." if self.aspect else self.prompt,
            answers=list(self.answers), choice=self.choice, score=self.score, score_min=self.score_min,
            score_max=self.score_max, rationale=self.rationale, facts=dict(self.facts),
        )  # fmt: skip


def placed(better: Any, worse: Any, key: str) -> tuple[Any, Any, Choice]:
    """(first, second, choice): a row that names the better one gets a place drawn by its content, so that half stand second."""
    if hashlib.sha256(key.encode()).digest()[0] % 2:
        return worse, better, Choice.SECOND
    return better, worse, Choice.FIRST


def by_votes(first: float, second: float) -> Choice:
    """More is better; as many is a tie."""
    return Choice.TIE if first == second else Choice.FIRST if first > second else Choice.SECOND


def text(row: Row, key: str) -> str:
    """A text that must be there. Raises RowError."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"no {key}", "" if value is None else value)
    return value.strip()


def number(row: Row, key: str) -> float:
    """A number that must be there. Raises RowError."""
    value = row.get(key)
    if value is None or value == "":
        raise RowError(f"no {key}")
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise RowError(f"{key} is no number", value) from None


def medium(value: Any, key: str) -> Medium:
    """A medium as rows hold it: a path, bytes, Hugging Face's {"bytes", "path"}, or a list of frames. Raises RowError."""
    if isinstance(value, str) and value:
        return File(value)
    if isinstance(value, bytes) and value:
        return Inline(key, value)
    if isinstance(value, Mapping):
        name, data = value.get("path"), value.get("bytes")
        if isinstance(data, bytes) and data:
            return Inline(str(name or key), data)
        if isinstance(name, str) and name:
            return File(name)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) and item for item in value):
        return Frames(tuple(value))
    raise RowError(f"no {key}", "" if value is None else type(value).__name__)


def names(media: Sequence[Medium]) -> str:
    """The media of an example in words."""
    return ", ".join(
        m.path
        if isinstance(m, File)
        else m.name
        if isinstance(m, Inline)
        else f"{m.paths[0]} and {len(m.paths) - 1} more"
        for m in media
    )
