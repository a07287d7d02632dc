"""Published files -> judge records whose media are stored, and a list of all that could not be read, with the reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unified_reward.config import ImportConfig
from unified_reward.data.decoded import DecodedCache
from unified_reward.data.examples import Example, RowError, names
from unified_reward.data.format import Format
from unified_reward.data.formats import FORMATS, format_of
from unified_reward.data.limits import MediaLimits
from unified_reward.data.loading import Loaded, MediaLoader
from unified_reward.data.sources import Source, chosen_rows, read_sources
from unified_reward.data.splits import held_out, leak_keys
from unified_reward.data.tables import read_rows
from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord

REPEATED = "it repeats an earlier record"
MEND = "Mend them, set import.mediaRoot to where media lie, or raise import.maxRejects."


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


@dataclass
class Imported(Counted):
    """Records in the order of their files, splits set."""

    records: list[JudgeRecord] = field(default_factory=list)


@dataclass(frozen=True)
class _Origin:
    """Where an example comes from."""

    count: SourceCount
    row: str
    part: int

    @property
    def name(self) -> str:
        return f"{self.count.file}:{self.row}" + (f".{self.part}" if self.part else "")


def import_sources(
    config: ImportConfig,
    keep: Callable[[bytes], object],
    *,
    seed: int = 0,
    cache: DecodedCache | None = None,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Read every source of `config.paths`. keep: stores a medium's bytes. progress: is told the records read so far.

    `config.folder` is a directory of this machine here ("" = the working directory).
    Raises UserError when a source cannot be read at all, or more than `config.max_rejects` of the rows cannot.
    """
    folder = Path(config.folder)
    sources = read_sources(config.paths, config.source, folder / Path(config.media_root).expanduser(), folder)
    loader = MediaLoader(limits_of(config), keep, cache=cache, workers=config.decoders)
    found, bare, seen = Imported(media=loader.known), list[JudgeRecord](), set[tuple[object, ...]]()
    labels, ids = file_labels([source.path for source in sources]), set[str]()
    examples = (
        each for source, label in zip(sources, labels, strict=True) for each in _examples(source, label, seed, found)
    )
    for origin, example, loading in loader.load(examples):
        if loading.error is not None:
            detail = f"{names(example.media)}: {loading.error.detail}".rstrip(": ")
            _reject(found, origin.count, origin.row, loading.error.reason, detail)
            continue
        digests = [medium.digest for medium in loading.media]
        record = example.record(digests, name=origin.name, source=origin.count.format)
        content = _content(record)
        if content in seen:
            origin.count.repeats += 1
            found.repeats.append(Reject(origin.count.file, origin.row, REPEATED))
            continue
        seen.add(content)
        if record.id in ids:  # published ids need not be unique, let alone across sets
            record = dataclasses.replace(record, id=f"{record.id} {origin.name}")
        ids.add(record.id)
        found.records.append(record)
        bare.append(dataclasses.replace(record, prompt=example.prompt))
        origin.count.records += 1
        if progress:
            progress(len(found.records))
    check_rejects(found.sources, found.rejects, config, field="import.paths", paths=config.paths, what="records")
    found.records = _split(found.records, bare, config.held_out, seed)
    return found


def limits_of(config: ImportConfig) -> MediaLimits:
    return MediaLimits(
        frames=config.video_frames, max_side=config.max_side, max_pixels=config.max_megapixels * 1_000_000,
        max_seconds=config.max_seconds, max_bytes=config.max_megabytes * 1024 * 1024,
    )  # fmt: skip


def file_labels(paths: Sequence[Path]) -> list[str]:
    """Each file's name, with as much of its folder as tells it from the others."""
    lengths = range(1, max((len(path.parts) for path in paths), default=1) + 1)
    tails = [["/".join(path.parts[-length:]) for path in paths] for length in lengths]
    times = [Counter(each) for each in tails]
    return [
        next((tail[place] for tail, count in zip(tails, times, strict=True) if count[tail[place]] == 1), str(path))
        for place, path in enumerate(paths)
    ]


def _examples(
    source: Source, label: str, seed: int, found: Imported
) -> Iterator[tuple[_Origin, Example, Sequence[Path]]]:
    """Examples of a file, row by row, then those its rows make together. Rows that cannot be read go to `found`."""
    form = source.format or _told(source)
    count = SourceCount(label, form.name, form.licence, source.strategy)
    found.sources.append(count)
    read, together = form.reader(source.path), list[Example]()
    for number, row in read_rows(source.path, chosen_rows(source, seed)):
        count.rows += 1
        try:
            if isinstance(row, RowError):
                raise row
            examples = read(row)
        except RowError as error:
            _reject(found, count, str(number), error.reason, error.detail, foreign=error.foreign)
            continue
        together += examples if form.combine else ()
        yield from (
            (_Origin(count, str(number), part), example, source.folders) for part, example in enumerate(examples)
        )
    if form.combine:
        combined = form.combine(together)
        for group, why in combined.rejects:
            _reject(found, count, group, why.reason)
        yield from (
            (_Origin(count, f"pair-{number}", 0), example, source.folders)
            for number, example in enumerate(combined.examples, 1)
        )


def _told(source: Source) -> Format:
    """The format that the first readable row shows. Raises UserError."""
    row = next((row for _, row in read_rows(source.path) if not isinstance(row, RowError)), None)
    form = format_of(row) if row else None
    if form is None:
        seen = "no row in it can be read" if row is None else f"its columns are {', '.join(list(row)[:12])}"
        raise UserError(field="import.paths", value=source.path, why=f"no known format has this layout: {seen}",
                        fix=f"Name one of {', '.join(sorted(FORMATS))}, or rename the columns as docs/data.md says.")  # fmt: skip
    return form


def _reject(
    found: Imported, count: SourceCount, row: str, reason: str, detail: str = "", *, foreign: bool = False
) -> None:
    count.rejects += 1
    found.rejects.append(Reject(count.file, row, reason, detail, foreign))


def _content(record: JudgeRecord) -> tuple[object, ...]:
    label = (record.choice, record.score, record.score_min, record.score_max)
    return record.task, record.prompt, tuple(record.media), tuple(record.answers), *label


def check_rejects(
    sources: Sequence[SourceCount], rejects: Sequence[Reject], config: ImportConfig, *, field: str, paths: Sequence[str],
    what: str,
) -> None:  # fmt: skip
    """Raises UserError when nothing could be read, nothing of a whole file, or less than `config.max_rejects` asks for.

    field: of the document, that names `paths`. what: they hold, in the plural.
    """
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


def _split(records: Sequence[JudgeRecord], bare: Sequence[JudgeRecord], share: float, seed: int) -> list[JudgeRecord]:
    """Records with their split: the one they name, else train or test, drawn so that no prompt and no medium leaks.

    bare: the records with prompts as published, without the aspect that is judged.
    """
    try:
        tests = held_out(leak_keys(bare), share, seed, named=[record.split for record in records])
    except ValueError as error:
        raise UserError(
            field="import.heldOut", value=share, why=str(error), fix="Add records, or correct the splits they name."
        ) from error
    return [
        dataclasses.replace(record, split=record.split or ("test" if test else "train"))
        for record, test in zip(records, tests, strict=True)
    ]
