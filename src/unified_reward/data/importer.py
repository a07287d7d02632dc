"""Published files -> judge records whose media are stored, and a list of all that could not be read, with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unified_reward.config import ImportConfig
from unified_reward.data.decoded import DecodedCache
from unified_reward.data.examples import Example, RowError
from unified_reward.data.format import Format
from unified_reward.data.formats import FORMATS, format_of
from unified_reward.data.loading import Loaded, MediaLoader
from unified_reward.data.sources import Source, file_labels, read_sources
from unified_reward.data.splits import held_out, leak_keys
from unified_reward.data.tables import read_rows
from unified_reward.data.taking import Counted, Origin, SourceCount, check_rejects, limits_of, read_each, take
from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord

REPEATED = "it repeats an earlier record"


@dataclass
class Imported(Counted):
    """Records in the order of their files, splits set."""

    records: list[JudgeRecord] = field(default_factory=list)


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
    found, bare = Imported(media=loader.known), list[JudgeRecord]()
    labels = file_labels([source.path for source in sources])
    examples = (
        each for source, label in zip(sources, labels, strict=True) for each in _examples(source, label, seed, found)
    )
    for record, example in take(examples, loader, found, _record, _content, repeated=REPEATED, progress=progress):
        found.records.append(record)
        bare.append(dataclasses.replace(record, prompt=example.prompt))
    check_rejects(found, config, field="import.paths", paths=config.paths, what="records")
    found.records = _split(found.records, bare, config.held_out, seed)
    return found


def _examples(
    source: Source, label: str, seed: int, found: Imported
) -> Iterator[tuple[Origin, Example, Sequence[Path]]]:
    """Examples of a file, row by row, then those its rows make together. Rows that cannot be read go to `found`."""
    form = source.format or _told(source)
    count = SourceCount(label, form.name, form.licence, source.strategy)
    found.sources.append(count)
    together = list[Example]()
    for number, examples in read_each(source, count, seed, found, form.reader(source.path)):
        together += examples if form.combine else ()
        yield from ((Origin(count, number, part), example, source.folders) for part, example in enumerate(examples))
    if form.combine:
        combined = form.combine(together)
        for group, why in combined.rejects:
            found.reject(count, group, why)
        yield from (
            (Origin(count, f"pair-{number}"), example, source.folders)
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


def _record(origin: Origin, example: Example, media: Sequence[Loaded]) -> JudgeRecord:
    return example.record([medium.digest for medium in media], name=origin.name, source=origin.count.format)


def _content(record: JudgeRecord) -> tuple[object, ...]:
    label = (record.choice, record.score, record.score_min, record.score_max)
    return record.task, record.prompt, tuple(record.media), tuple(record.answers), *label


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
