"""A file of one's own: one judge record a row, fields as in `JudgeRecord`, media as paths.

JSON lines, a JSON list or Parquet hold lists as they are. In CSV, several media stand in media_1, media_2 and answers in
answer_1, answer_2 (or in media and answers, with | between).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from unified_reward.data.examples import Example, Row, RowError, medium, number, text
from unified_reward.data.format import Format
from unified_reward.records import Choice, JudgeRecord, Mode, Subject, Task

FIELDS = tuple(field.name for field in dataclasses.fields(JudgeRecord))
NUMBERED = {"media": ("media_1", "media_2"), "answers": ("answer_1", "answer_2")}
SPLITS = ("", "train", "validation", "test")


def read(row: Row) -> list[Example]:
    values = {key: value for key, value in row.items() if value not in (None, "")}
    unknown = sorted(set(values) - set(FIELDS) - {name for names in NUMBERED.values() for name in names})
    if unknown:
        raise RowError("there is no such field", f"{unknown[0]}; fields are {', '.join(FIELDS)}")
    task = _task(text(values, "task"))
    media = [medium(value, "media") for value in several(values, "media")]
    answers = [str(value) for value in several(values, "answers")]
    _count(task, len(answers if task.subject is Subject.UNDERSTANDING else media), bool(media))
    if text_of(values, "split") not in SPLITS:
        raise RowError("split is not train, validation or test", values["split"])
    example = Example(
        task=task, prompt=text(values, "prompt"), media=media, answers=answers, id=text_of(values, "id"),
        split=text_of(values, "split"), source=text_of(values, "source"), rationale=text_of(values, "rationale"),
        facts={str(k): str(v) for k, v in dict(values.get("facts") or {}).items()},
    )  # fmt: skip
    return [_labelled(example, values)]


def text_of(values: Row, key: str) -> str:
    return str(values.get(key) or "").strip()


def _labelled(example: Example, values: Row) -> Example:
    if example.task.mode is Mode.PAIR:
        return dataclasses.replace(example, choice=_choice(values))
    score, low, high = (number(values, key) for key in ("score", "score_min", "score_max"))
    if not low <= score <= high or low == high:
        raise RowError("the score is outside its range", f"{score:g} of {low:g} to {high:g}")
    return dataclasses.replace(example, score=score, score_min=low, score_max=high)


def _choice(values: Row) -> Choice:
    said = str(values.get("choice", ""))
    if said not in (Choice.FIRST, Choice.SECOND, Choice.TIE):
        raise RowError("choice is not 1, 2 or tie", said)
    return Choice(said)


def _task(name: str) -> Task:
    if name not in set(Task):
        raise RowError("there is no such task", f"{name}; tasks are {', '.join(Task)}")
    return Task(name)


def several(values: Row, key: str) -> list[Any]:
    """The items of a list column, also where CSV holds it as several columns or as one text with | between."""
    numbered = [values[name] for name in NUMBERED[key] if name in values]
    value = values.get(key) or numbered
    if isinstance(value, str):
        return [part.strip() for part in value.split("|") if part.strip()]
    return list(value) if isinstance(value, list | tuple) else [value]


def _count(task: Task, judged: int, media: bool) -> None:
    wanted = 2 if task.mode is Mode.PAIR else 1
    if judged != wanted:
        what = "answers" if task.subject is Subject.UNDERSTANDING else "media"
        raise RowError(f"{task} judges {'two' if wanted == 2 else 'one'} of {what}", f"{judged} given")
    if not media:
        raise RowError("no media")


FORMAT = Format(
    "records", "records of one's own (JudgeRecord fields)", "that of your data", lambda row: "task" in row, read
)
