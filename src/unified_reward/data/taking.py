"""The one loop of every import: rows are read, their media loaded, what is new is taken once, the rest told with its reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from unified_reward.config import ImportConfig
from unified_reward.data.examples import Example, Row, RowError, names
from unified_reward.data.limits import MediaLimits
from unified_reward.data.loading import Loaded, MediaLoader
from unified_reward.data.sources import Source, chosen_rows
from unified_reward.data.tables import read_rows
from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord, Prompt

MEND = "Mend them, set import.mediaRoot to where media lie, or raise import.maxRejects."

Read = TypeVar("Read")
Taken = TypeVar("Taken", JudgeRecord, Prompt)


@dataclass(frozen=True)
class Reject:
    """What was left out. row: number in its file (lines of text files), or what a group of rows has in common.

    foreign: of a kind that the published set is known to hold beside what is read; max_rejects does not count it.
    """

    file: str
    row: str
    reason: str
    detail: str = ""
    foreign: bool = False


@dataclass
class SourceCount:
    """What one file gave. rows: that its strategy took. Of them came records, rejects and repeats of earlier records."""

    file: str
    format: str
    licence: str
    strategy: str
    rows: int = 0
    records: int = 0
    rejects: int = 0
    repeats: int = 0


@dataclass
class Counted:
    """What an import tells beside what it read; media by digest, as they were published."""

    rejects: list[Reject] = field(default_factory=list)
    repeats: list[Reject] = field(default_factory=list)
    sources: list[SourceCount] = field(default_factory=list)
    media: dict[str, Loaded] = field(default_factory=dict)

    def reject(self, count: SourceCount, row: str, why: RowError) -> None:
        count.rejects += 1
        self.rejects.append(Reject(count.file, row, why.reason, why.detail, why.foreign))

    def repeat(self, count: SourceCount, row: str, reason: str) -> None:
        count.repeats += 1
        self.repeats.append(Reject(count.file, row, reason))


@dataclass(frozen=True)
class Origin:
    """Where an example comes from. part: of the examples that one row gives. reference: its reference answer, of prompts."""

    count: SourceCount
    row: str
    part: int = 0
    reference: str = ""

    @property
    def name(self) -> str:
        return f"{self.count.file}:{self.row}" + (f".{self.part}" if self.part else "")


def read_each(
    source: Source, count: SourceCount, seed: int, found: Counted, read: Callable[[Row], Read]
) -> Iterator[tuple[str, Read]]:
    """Number and reading of each row that the source's strategy takes. Rows that cannot be read go to `found`."""
    for number, row in read_rows(source.path, chosen_rows(source, seed)):
        count.rows += 1
        try:
            if isinstance(row, RowError):
                raise row
            reading = read(row)
        except RowError as error:
            found.reject(count, str(number), error)
            continue
        yield str(number), reading


def take(
    examples: Iterable[tuple[Origin, Example, Sequence[Path]]],
    loader: MediaLoader,
    found: Counted,
    make: Callable[[Origin, Example, Sequence[Loaded]], Taken],
    content: Callable[[Taken], tuple[object, ...]],
    *,
    repeated: str,
    progress: Callable[[int], None] | None = None,
) -> Iterator[tuple[Taken, Example]]:
    """What `make` makes of each example, under an id of its own, with the example. folders: where its media may lie.

    content: what makes two the same; a second one goes to `found.repeats` for the reason `repeated`, as an example whose
    media cannot be used goes to `found.rejects`. progress: is told how many were taken so far.
    """
    seen, ids, taken = set[tuple[object, ...]](), set[str](), 0
    for origin, example, loading in loader.load(examples):
        if loading.error is not None:
            detail = f"{names(example.media)}: {loading.error.detail}".rstrip(": ")
            found.reject(origin.count, origin.row, RowError(loading.error.reason, detail))
            continue
        made = make(origin, example, loading.media)
        if content(made) in seen:
            found.repeat(origin.count, origin.row, repeated)
            continue
        seen.add(content(made))
        if made.id in ids:  # published ids need not be unique, let alone across sets
            made = dataclasses.replace(made, id=f"{made.id} {origin.name}")
        ids.add(made.id)
        origin.count.records += 1
        taken += 1
        if progress:
            progress(taken)
        yield made, example


def limits_of(config: ImportConfig) -> MediaLimits:
    return MediaLimits(
        frames=config.video_frames, max_side=config.max_side, max_pixels=config.max_megapixels * 1_000_000,
        max_seconds=config.max_seconds, max_bytes=config.max_megabytes * 1024 * 1024,
    )  # fmt: skip


def check_rejects(found: Counted, config: ImportConfig, *, field: str, paths: Sequence[str], what: str) -> None:
    """Raises UserError when nothing could be read, nothing of a whole file, or less than `config.max_rejects` asks for.

    field: of the document, that names `paths`. what: they hold, in the plural.
    """
    sources, rejects = found.sources, found.rejects
    kept, named = sum(source.records for source in sources), ", ".join(paths)
    counted = [reject for reject in rejects if not reject.foreign]
    unread, total = (counted, kept + len(counted)) if kept else (rejects, len(rejects))
    share = 1.0 if config.allow_missing else config.max_rejects
    empty = {s.file for s in sources if s.rejects and not s.records + s.repeats} if share < 1 else set[str]()
    if kept and not empty and len(unread) <= share * total:
        return
    if not unread:
        raise UserError(field=field, value=named, why="there is no row in them",
                        fix="Check the files, and the strategy after @.")  # fmt: skip
    if kept and empty:  # a whole file that cannot be read is a mistake in naming it, however small its share
        unread = [reject for reject in rejects if reject.file in empty]
        total = len(unread)
    reason, often = Counter(reject.reason for reject in unread).most_common(1)[0]
    first = next(reject for reject in unread if reject.reason == reason)
    example = f"{first.file}:{first.row}" + (f": {first.detail}" if first.detail else "")
    raise UserError(field=field, value=named,
                    why=f"{len(unread)} of {total} {what} could not be read; {often} of them because {reason} ({example})",
                    fix=MEND)  # fmt: skip
