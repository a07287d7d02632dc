"""Files of one's own -> judge records: JSON lines in the layout of `JudgeRecord`, or a VideoAlign-style CSV of pair votes.

Media are decoded once here, to know that they can be, and stored as they are; frames are sampled when they are read. What
cannot be read is either one error or, with `allow_missing`, a counted and listed reject.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unified_reward.config import ImportConfig
from unified_reward.data.media import MediaError, MediaLimits, decode
from unified_reward.data.splits import held_out
from unified_reward.errors import UserError
from unified_reward.records import Choice, JudgeRecord, Mode, Subject, Task

MEND = "Mend it, set import.mediaRoot to where media lie, or import.allowMissing to count it as a reject."
VOTE_ASPECTS = {"VQ": "visual quality", "MQ": "motion quality", "TA": "text alignment", "Overall": "overall quality"}
VOTES = {"A": Choice.FIRST, "B": Choice.SECOND, "same": Choice.TIE}


@dataclass(frozen=True)
class Reject:
    file: str
    reason: str


@dataclass
class Found:
    """Records with their media, and what was left out."""

    rows: list[tuple[JudgeRecord, dict[str, bytes]]]
    rejects: list[Reject]
    sources: list[str]
    source: str = "files"
    licence: str = "see the sources"
    shapes: dict[str, str] = field(default_factory=dict)

    def records(self) -> Iterator[tuple[JudgeRecord, dict[str, bytes]]]:
        yield from self.rows

    def card(self) -> dict[str, Any]:
        """What a dataset card says: sources, counts by split and task, rejects by reason, media as decoded."""
        counts = Counter(f"{record.split}/{record.task}" for record, _ in self.rows)
        reasons = Counter(reject.reason for reject in self.rejects)
        return {"sources": self.sources, "counts": dict(counts), "rejects": dict(reasons), "media": self.shapes}


@dataclass(frozen=True)
class _Row:
    """A record before its media are read: `media` holds paths."""

    where: str
    record: JudgeRecord


def read_files(config: ImportConfig, seed: int = 0) -> Found:
    """Read every file of `config.paths`. Raises UserError on the first unreadable row or medium (see `allow_missing`)."""
    if not config.paths:
        raise UserError(field="import.paths", value=None, why="source is files", fix="Name .jsonl or .csv files.")
    reader = _MediaFiles(Path(config.media_root).expanduser(), MediaLimits(config.video_frames, config.max_side))
    rows: list[tuple[JudgeRecord, dict[str, bytes]]] = []
    rejects: list[Reject] = []
    for row in [row for path in config.paths for row in _rows(Path(path).expanduser())]:
        try:
            rows.append(reader.with_media(row.record))
        except MediaError as error:
            if not config.allow_missing:
                raise UserError(field=row.where, value=", ".join(row.record.media), why=str(error),
                                fix=MEND) from error  # fmt: skip
            rejects.append(Reject(row.where, str(error)))
    if not rows:
        raise UserError(field="import.paths", value=", ".join(config.paths), why="no record could be read",
                        fix="Check the paths and import.mediaRoot.")  # fmt: skip
    return Found(_split(rows, config.held_out, seed), rejects, list(config.paths), shapes=reader.shapes)


def _rows(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(field="import.paths", value=path, why=f"it cannot be read ({error})",
                        fix="Name a .jsonl or .csv file.") from error  # fmt: skip
    if path.suffix == ".jsonl":
        return [_json_row(path, n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix == ".csv":
        return _vote_rows(path, text)
    raise UserError(
        field="import.paths", value=path, why="only .jsonl and .csv are read", fix="Convert it to one of them."
    )


def _json_row(path: Path, number: int, line: str) -> _Row:
    where = f"{path.name}:{number}"
    fields = {f.name: f for f in dataclasses.fields(JudgeRecord)}
    try:
        values = json.loads(line)
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise UserError(field=f"{where} {unknown[0]}", value=values[unknown[0]], why="there is no such field",
                            fix=f"Fields: {', '.join(fields)}.")  # fmt: skip
        values = {"id": where, "split": "", "source": path.stem, **values}
        values["task"] = Task(values["task"])
        if values.get("choice") is not None:
            values["choice"] = Choice(str(values["choice"]))
        record = JudgeRecord(**values)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(field=where, value=line, why=f"it is no judge record ({error})",
                        fix="Write one JSON object per line: task, prompt, media, and choice or score.") from error  # fmt: skip
    return _Row(where, _checked(record, where))


def _checked(record: JudgeRecord, where: str) -> JudgeRecord:
    pair, understanding = record.task.mode is Mode.PAIR, record.task.subject is Subject.UNDERSTANDING
    judged = record.answers if understanding else record.media
    if len(judged) != (2 if pair else 1) or not record.media:
        raise UserError(field=f"{where} {'answers' if understanding else 'media'}", value=len(judged),
                        why=f"{record.task} judges {'two' if pair else 'one'}", fix="Give as many as the task judges.")  # fmt: skip
    if (record.choice if pair else record.score) is None:
        raise UserError(field=f"{where} {'choice' if pair else 'score'}", value=None, why=f"{record.task} needs it",
                        fix="Give choice 1, 2 or tie." if pair else "Give score, score_min and score_max.")  # fmt: skip
    return record


def _vote_rows(path: Path, text: str) -> list[_Row]:
    """Human votes on pairs of videos: path_A, path_B, prompt, and one column per aspect with A, B or same.

    Rows that repeat an earlier one are read once. Each aspect is a record whose prompt names it.
    """
    table = csv.DictReader(text.splitlines())
    missing = [c for c in ("path_A", "path_B", "prompt") if c not in (table.fieldnames or [])]
    if missing:
        raise UserError(field=f"{path.name} columns", value=", ".join(table.fieldnames or []),
                        why=f"{missing[0]} is missing", fix="Give path_A, path_B, prompt and VQ, MQ, TA or Overall.")  # fmt: skip
    rows: dict[tuple[str, ...], _Row] = {}
    for number, line in enumerate(table, 2):
        for column, aspect in VOTE_ASPECTS.items():
            vote = line.get(column)
            if vote is None:
                continue
            where = f"{path.name}:{number} {column}"
            if vote not in VOTES:
                raise UserError(field=where, value=vote, why="a vote is A, B or same", fix="Correct the vote.")
            media = [str((path.parent / line[side]).resolve()) for side in ("path_A", "path_B")]
            record = JudgeRecord(
                id=where, task=Task.VIDEO_GENERATION_PAIR, split="", source=path.stem, choice=VOTES[vote], media=media,
                prompt=f"{line['prompt']} Judge the {aspect}.",
            )  # fmt: skip
            rows.setdefault((*media, record.prompt), _Row(where, record))
    return list(rows.values())


class _MediaFiles:
    """Reads and checks each file once."""

    def __init__(self, root: Path, limits: MediaLimits) -> None:
        self.root, self.limits = root, limits
        self.read: dict[str, bytes] = {}
        self.shapes: dict[str, str] = {}

    def with_media(self, record: JudgeRecord) -> tuple[JudgeRecord, dict[str, bytes]]:
        contents = [self._content(name) for name in record.media]
        digests = [hashlib.sha256(data).hexdigest() for data in contents]
        return dataclasses.replace(record, media=digests), dict(zip(digests, contents, strict=True))

    def _content(self, name: str) -> bytes:
        if name not in self.read:
            try:
                data = (self.root / name).read_bytes()
            except OSError as error:
                looked = (self.root / name).absolute()
                raise MediaError(f"{looked} cannot be read ({error.strerror})") from error
            self.shapes[Path(name).name] = "x".join(map(str, decode(data, self.limits).shape))
            self.read[name] = data
        return self.read[name]


def _split(
    rows: Sequence[tuple[JudgeRecord, dict[str, bytes]]], share: float, seed: int
) -> list[tuple[JudgeRecord, dict[str, bytes]]]:
    """Rows with their split: the one they name themselves, else train or test, drawn so that nothing leaks."""
    if all(record.split for record, _ in rows):
        return list(rows)
    try:
        tests = held_out([(record.prompt.split(" Judge the ")[0], *record.media) for record, _ in rows], share, seed)
    except ValueError as error:
        raise UserError(
            field="import.heldOut", value=share, why=str(error), fix="Add records, or name a split in each."
        ) from error
    return [
        (dataclasses.replace(record, split=record.split or ("test" if test else "train")), media)
        for (record, media), test in zip(rows, tests, strict=True)
    ]
