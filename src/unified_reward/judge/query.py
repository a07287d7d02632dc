"""What the judge is asked, as values: a task, the words, and the media by digest."""

from __future__ import annotations

from dataclasses import dataclass, replace

from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord, Mode, Subject, Task


@dataclass(frozen=True)
class Query:
    """One question to the judge; equal queries have equal verdicts, so each distinct one is judged once.

    task: which of the eight. prompt: the caption (generation) or the question (understanding).
    media: sha256 hex digests in the order shown. Generation: the judged items come last ([first, second] or [item]);
    what stands before them is context, as the source image of an edit. Understanding: what is asked about.
    answers: understanding only: (first, second) or (answer,).
    """

    task: Task
    prompt: str
    media: tuple[str, ...]
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        needed = 2 if self.task.mode is Mode.PAIR else 1
        judged, name = (len(self.answers), "answers") if self.task.subject is Subject.UNDERSTANDING else (
            len(self.media), "media")  # fmt: skip
        if judged < needed or (name == "answers" and judged > needed):
            raise UserError(
                field=f"query.{name}", value=judged, why=f"{self.task} judges {needed}",
                fix=f"Give {needed} {name}.",
            )  # fmt: skip

    def swapped(self) -> Query:
        """The same pair in the other order. Only pairs have one."""
        if self.task.mode is not Mode.PAIR:
            raise ValueError(f"{self.task} judges one item and has no other order")
        if self.task.subject is Subject.UNDERSTANDING:
            return replace(self, answers=self.answers[::-1])
        return replace(self, media=(*self.media[:-2], self.media[-1], self.media[-2]))

    @classmethod
    def of_record(cls, record: JudgeRecord) -> Query:
        return cls(record.task, record.prompt, tuple(record.media), tuple(record.answers))
