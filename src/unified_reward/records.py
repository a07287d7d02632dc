"""What flows through the method: one frozen dataclass and one Arrow schema for each kind of row.

    JudgeRecord     a labelled example the judge learns from or is measured on
    Prompt          what a policy is asked, with the media it is asked about
    Candidate       one of the N things a policy produced for a prompt
    Verdict         what the judge said of one item or one pair, with the raw log-probs
    PreferencePair  the chosen and the rejected candidate of a prompt, or why there is none

Media are named by the sha256 of their bytes (hex) and live once in the object store.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import pyarrow as pa


class Modality(StrEnum):
    IMAGE = "image"
    VIDEO = "video"


class Subject(StrEnum):
    """What is judged: a picture made for a caption, or an answer given about a picture."""

    GENERATION = "generation"
    UNDERSTANDING = "understanding"


class Mode(StrEnum):
    PAIR = "pair"
    POINT = "point"


class Task(StrEnum):
    """The eight judge tasks: {image, video} x {generation, understanding} x {pair, point}."""

    IMAGE_GENERATION_PAIR = "image_generation_pair"
    IMAGE_GENERATION_POINT = "image_generation_point"
    IMAGE_UNDERSTANDING_PAIR = "image_understanding_pair"
    IMAGE_UNDERSTANDING_POINT = "image_understanding_point"
    VIDEO_GENERATION_PAIR = "video_generation_pair"
    VIDEO_GENERATION_POINT = "video_generation_point"
    VIDEO_UNDERSTANDING_PAIR = "video_understanding_pair"
    VIDEO_UNDERSTANDING_POINT = "video_understanding_point"

    @property
    def modality(self) -> Modality:
        return Modality(self.value.split("_")[0])

    @property
    def subject(self) -> Subject:
        return Subject(self.value.split("_")[1])

    @property
    def mode(self) -> Mode:
        return Mode(self.value.split("_")[2])

    @classmethod
    def of(cls, modality: Modality, subject: Subject, mode: Mode) -> Task:
        return cls(f"{modality}_{subject}_{mode}")


class Choice(StrEnum):
    """A pairwise verdict. `unparsed` is never counted as one of the others."""

    FIRST = "1"
    SECOND = "2"
    TIE = "tie"
    UNPARSED = "unparsed"

    def swapped(self) -> Choice:
        return {Choice.FIRST: Choice.SECOND, Choice.SECOND: Choice.FIRST}.get(self, self)


@dataclass(frozen=True, kw_only=True)
class JudgeRecord:
    """One labelled example for the judge.

    prompt: the caption (generation) or the question (understanding).
    media: sha256 hex digests. Generation pair: [first, second]; generation point: [item];
    understanding: [what is asked about].
    answers: understanding only: [first, second] (pair) or [answer] (point).
    choice: pair tasks: which item is better. score, score_min, score_max: point tasks, in the source's own range.
    rationale: reasons that stand before the verdict ("" = none), as the judge is to write them.
    facts: fact name -> "right"/"wrong" per judged item joined by "/", for accuracy per fact; empty when unknown.
    """

    id: str
    task: Task
    split: str
    source: str
    prompt: str
    media: list[str]
    answers: list[str] = field(default_factory=list)
    choice: Choice | None = None
    score: float | None = None
    score_min: float | None = None
    score_max: float | None = None
    rationale: str = ""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a policy is asked. `truth`: known facts (fact -> value) where the world is known, else empty.

    modality/subject say what the answer is: understanding = text about media, generation = media for the text.
    """

    id: str
    split: str
    modality: Modality
    subject: Subject
    text: str
    media: list[str] = field(default_factory=list)
    reference_answer: str = ""
    truth: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of N things a policy produced for a prompt: `text` (understanding) or `media` (generation, sha256 hex).

    sampler: how it was drawn (temperature, steps, guidance, ...), so that it can be drawn again from `seed`.
    """

    id: str
    prompt_id: str
    index: int
    seed: int
    policy: str
    text: str = ""
    media: str = ""
    sampler: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge said, with everything needed to decide otherwise later.

    Pair: first_id, second_id; p_first = P(first better), both orders averaged; p_first_shown_first and
    p_first_shown_second are the two single orders (probability that *first* is better, whichever place it stood in).
    Point: first_id only; score = expected value in [score_min, score_max].
    logprobs: raw log-probabilities (nats) of the verdict strings, keyed "order12:1", "order12:2", "order21:1", ...
    or "1".."5".
    rationale: what the judge wrote before its verdict (in order 12); rationale_swapped: in order 21.
    """

    id: str
    task: Task
    prompt_id: str
    first_id: str
    second_id: str = ""
    choice: Choice | None = None
    p_first: float | None = None
    p_first_shown_first: float | None = None
    p_first_shown_second: float | None = None
    score: float | None = None
    logprobs: dict[str, float] = field(default_factory=dict)
    rationale: str = ""
    rationale_swapped: str = ""
    judge: str = ""
    template: str = ""


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """The outcome of a prompt: a chosen and a rejected candidate, or `dropped` saying why there is none ("" = kept)."""

    prompt_id: str
    split: str
    chosen_id: str = ""
    rejected_id: str = ""
    chosen: str = ""
    rejected: str = ""
    chosen_score: float | None = None
    rejected_score: float | None = None
    dropped: str = ""


RowType = TypeVar("RowType")


def schema_of(kind: type[Any]) -> pa.Schema:
    """The Arrow schema of a record dataclass: one column a field; dicts become maps of string to string or float."""
    hints = _hints(kind)  # type: ignore[arg-type]
    return pa.schema([pa.field(f.name, *_arrow_type(hints[f.name])) for f in dataclasses.fields(kind)])


def to_row(record: Any) -> dict[str, Any]:
    """A record as plain values for Arrow."""
    return {f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record)}


def from_row(kind: type[RowType], row: dict[str, Any]) -> RowType:
    """A record from an Arrow row (as `pa.Table.to_pylist()` gives it)."""
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {f.name: _typed(hints[f.name], row[f.name]) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**values)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    arguments = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        inner = next(a for a in arguments if a is not type(None))
        return _arrow_type(inner)[0], True
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow_type(arguments[0])[0]), False
    if typing.get_origin(hint) is dict:
        return pa.map_(_arrow_type(arguments[0])[0], _arrow_type(arguments[1])[0]), False
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return pa.string(), False
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint], False


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return list(value.items())
    return value


def _typed(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if typing.get_origin(hint) is dict:
        return dict(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return value
