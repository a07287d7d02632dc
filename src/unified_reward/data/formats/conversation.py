"""A published conversation (LLaVA style) -> examples: what the human turn asks, and the verdict in the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unified_reward.data.answers import read_choice, read_score
from unified_reward.data.examples import Example, File, Frames, Inline, Medium, Row, RowError
from unified_reward.data.frames import pack_frames
from unified_reward.data.prompts import Asked, read_prompt
from unified_reward.records import Modality, Mode, Subject, Task

UNKNOWN_PROMPT = "the words of the prompt are not known"
NO_RANGE = "the prompt does not say the range of its scores"
HUMAN, MODEL = ("human", "user"), ("gpt", "assistant", "model")


def turns(row: Row) -> tuple[str, str]:
    """(what is asked, the answer) of a single-turn conversation under `conversations` or `messages`. Raises RowError."""
    said = row.get("conversations") or row.get("messages")
    if not isinstance(said, list | tuple) or not said or not all(isinstance(turn, Mapping) for turn in said):
        raise RowError("no conversation")
    asked = [_words(turn) for turn in said if _role(turn) in HUMAN]
    answered = [_words(turn) for turn in said if _role(turn) in MODEL]
    if not asked or not answered:
        raise RowError("the conversation lacks a question or an answer", ", ".join(_role(turn) for turn in said))
    if len(asked) > 1 or len(answered) > 1:
        raise RowError("the conversation has several turns", len(said))
    return asked[0], answered[0]


def judged(human: str, answer: str, media: Sequence[Medium], *, id: str = "") -> Example:
    """The example of one judge prompt and its answer. media: as published, in order. Raises RowError."""
    asked = read_prompt(human)
    if asked is None:
        raise RowError(UNKNOWN_PROMPT, human)
    items = _items(asked.task, media)
    task = asked.task
    if task.modality is Modality.IMAGE and any(isinstance(item, Frames) for item in items):
        task = Task.of(Modality.VIDEO, task.subject, task.mode)
    if task.mode is Mode.PAIR:
        verdict = read_choice(answer)
        if verdict is None:
            raise RowError("the answer says no verdict, or two", answer)
        return Example(task=task, prompt=asked.prompt, media=items, answers=asked.answers, choice=verdict.choice,
                       rationale=verdict.rationale, id=id)  # fmt: skip
    return _scored(asked, task, answer, items, id)


def pictures(row: Row) -> list[Any]:
    """The media of a row under images, image, videos or video, each a path or bytes."""
    for key in ("images", "image", "videos", "video"):
        value = row.get(key)
        if value is not None and value != []:
            return list(value) if isinstance(value, list | tuple) else [value]
    raise RowError("no image and no video")


def one_clip(media: Sequence[Medium]) -> list[Medium]:
    """Several pictures, by path or in the row, as the frames of one clip; anything else as it is."""
    if len(media) < 2:
        return list(media)
    paths = tuple(m.path for m in media if isinstance(m, File))
    if len(paths) == len(media):
        return [Frames(paths)]
    inline = [m for m in media if isinstance(m, Inline)]
    if len(inline) == len(media):
        return [Inline(f"{inline[0].name} and {len(inline) - 1} more", pack_frames([m.data for m in inline]))]
    raise RowError("some media are paths and some are not")


def _scored(asked: Asked, task: Task, answer: str, items: Sequence[Medium], id: str) -> Example:
    score = read_score(answer)
    if score is None:
        raise RowError("the answer holds no score, or two", answer)
    if asked.range is None:
        raise RowError(NO_RANGE, asked.prompt)
    low, high = asked.range
    if not low <= score.value <= high:
        raise RowError("the score is outside its range", f"{score.value:g} of {low:g} to {high:g}")
    return Example(task=task, prompt=asked.prompt, media=items, answers=asked.answers, score=score.value, score_min=low,
                   score_max=high, rationale=score.rationale, id=id)  # fmt: skip


def _items(task: Task, media: Sequence[Medium]) -> list[Medium]:
    """Media as the task judges them. More than two pictures are frames: of one clip, or half of each of two."""
    pair = task.mode is Mode.PAIR and task.subject is Subject.GENERATION
    wanted = 2 if pair else 1
    if len(media) > 2:
        if pair and len(media) % 2:
            raise RowError("the frames of two clips are not even in number", len(media))
        half = len(media) // wanted
        return [item for start in range(0, len(media), half) for item in one_clip(media[start : start + half])]
    if len(media) < wanted or (task.subject is Subject.GENERATION and len(media) > wanted):
        raise RowError("the number of media is not that of the task", f"{len(media)} for {task}")
    return list(media)


def _role(turn: Mapping[str, Any]) -> str:
    return str(turn.get("from") or turn.get("role") or "")


def _words(turn: Mapping[str, Any]) -> str:
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list | tuple):  # OpenAI's parts
        content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "").strip()
