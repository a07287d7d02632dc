"""What `unified-reward judge` does: files and words -> questions to a judge -> verdict, scores and reasons as JSON.

caption and one picture or clip      how well it shows the caption (point)
caption and two                      which shows it better, asked in both orders (pair), and the score of each
question, media, one answer          how good the answer is (point)
question, media, two answers         which is better (pair), and the score of each
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unified_reward.data.media import MediaError, MediaLimits, Pixels, decode
from unified_reward.errors import UserError
from unified_reward.judge import Pack, Query
from unified_reward.records import Modality, Mode, Subject, Task

if TYPE_CHECKING:
    from unified_reward.judge.verdict import PairVerdict, PointVerdict


class Verdicts(Protocol):
    """A judge however it is asked: `Judge` from probabilities, `SpokenJudge` from text."""

    pack: Pack

    def compare(self, queries: Sequence[Query]) -> list[PairVerdict]: ...
    def score(self, queries: Sequence[Query]) -> list[PointVerdict]: ...


@dataclass(frozen=True)
class Asked:
    """What a person wants to know. labels: how each judged item is called; pixels: decoded media by digest."""

    subject: Subject
    modality: Modality
    prompt: str
    media: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[str, ...]
    pixels: dict[str, Pixels] = field(repr=False)

    def pair(self) -> Query | None:
        if len(self.labels) < 2:
            return None
        return Query(Task.of(self.modality, self.subject, Mode.PAIR), self.prompt, self.media, self.answers)

    def points(self) -> list[Query]:
        """One question for each judged item."""
        task = Task.of(self.modality, self.subject, Mode.POINT)
        if self.subject is Subject.UNDERSTANDING:
            return [Query(task, self.prompt, self.media, (answer,)) for answer in self.answers]
        return [Query(task, self.prompt, (digest,)) for digest in self.media]


def read_request(
    *, images: Sequence[Path], videos: Sequence[Path], caption: str, question: str, answers: Sequence[str]
) -> Asked:  # fmt: skip
    """Check what was given and decode the files. Raises UserError naming the option."""
    _check(images, videos, caption, question, answers)
    modality = Modality.VIDEO if videos else Modality.IMAGE
    option = "--video" if videos else "--image"
    pixels: dict[str, Pixels] = {}
    media = []
    for path in [*images, *videos]:
        digest, decoded = _decoded(path, option)
        pixels[digest] = decoded
        media.append(digest)
    names = tuple(path.name for path in [*images, *videos])
    return Asked(
        subject=Subject.GENERATION if caption else Subject.UNDERSTANDING, modality=modality, prompt=caption or question,
        media=tuple(media), answers=tuple(answers), labels=tuple(answers) if question else names, pixels=pixels,
    )  # fmt: skip


def ask(judge: Verdicts, asked: Asked) -> dict[str, Any]:
    """The judge's answer as JSON values. Probabilities are of the first item; scores are on the template's scale.

    judge: its media source must know `asked.pixels`. A score is None where the judge's templates have none.
    """
    pair, points = asked.pair(), asked.points()
    scale = judge.pack.point(points[0].task).range if points[0].task in judge.pack.tasks else None
    verdicts = judge.score(points) if scale else []
    items = [
        {"item": label, "score": verdict.score, "aspects": verdict.aspects, "rationale": verdict.rationale}
        for label, verdict in zip(asked.labels, verdicts, strict=True)
    ] if scale else [{"item": label, "score": None, "aspects": {}, "rationale": ""} for label in asked.labels]  # fmt: skip
    answer: dict[str, Any] = {
        "task": (pair or points[0]).task.value,
        "prompt": asked.prompt,
        "template": judge.pack.label((pair or points[0]).task),
        "items": items,
        "scale": list(scale) if scale else None,
    }
    if pair is None:
        return answer
    verdict = judge.compare([pair])[0]
    return answer | {
        "verdict": verdict.choice.value, "p_first": verdict.p_first,
        "p_first_shown_first": verdict.p_first_shown_first, "p_first_shown_second": verdict.p_first_shown_second,
        "contradictory": verdict.contradictory, "logprobs": verdict.logprobs,
        "rationale": verdict.rationale, "rationale_swapped": verdict.rationale_swapped,
    }  # fmt: skip


def _check(
    images: Sequence[Path], videos: Sequence[Path], caption: str, question: str, answers: Sequence[str]
) -> None:  # fmt: skip
    if images and videos:
        raise UserError(field="--video", value=videos[0], why="pictures and clips are judged by different tasks",
                        fix="Give --image or --video, not both.")  # fmt: skip
    if bool(caption) == bool(question):
        why = "either what was asked for or what was asked about must be known"
        raise UserError(
            field="--caption", value=caption or None, why=why, fix="Give --caption or --question, not both."
        )
    count = len(images) + len(videos)
    if caption and count not in (1, 2):
        raise UserError(field="--image or --video", value=count, why="a caption is judged with one or two of them",
                        fix="Give one for a score, two for a comparison.")  # fmt: skip
    if caption and answers:
        raise UserError(field="--answer", value=answers[0], why="a caption has no answers",
                        fix="Leave it out, or give --question instead of --caption.")  # fmt: skip
    if question and not count:
        raise UserError(field="--image or --video", value=None, why="the question must be about something",
                        fix="Name a picture or a clip.")  # fmt: skip
    if question and len(answers) not in (1, 2):
        raise UserError(field="--answer", value=len(answers), why="one or two answers are judged at once",
                        fix="Give --answer once for a score, twice for a comparison.")  # fmt: skip


def _decoded(path: Path, option: str) -> tuple[str, Pixels]:
    try:
        data = path.read_bytes()
        pixels = decode(data, MediaLimits())
    except OSError as error:
        raise UserError(field=option, value=path, why=f"it cannot be read ({error.strerror})",
                        fix="Name a file that exists.") from error  # fmt: skip
    except MediaError as error:
        raise UserError(field=option, value=path, why=str(error), fix="Name a file that decodes.") from error
    if (pixels.ndim == 4) != (option == "--video"):
        kind, other = ("a clip", "--video") if pixels.ndim == 4 else ("a single picture", "--image")
        raise UserError(field=option, value=path, why=f"it is {kind}", fix=f"Give it as {other}.")
    return hashlib.sha256(data).hexdigest(), pixels
