"""What policies are asked, from files of one's own: rows -> prompts whose media are stored, and a list of what was left out.

    {"prompt": "What is the cat doing?", "media": ["cat.png"], "reference_answer": "It sleeps.", "id": "q1", "split": "test"}

prompt stands in every row; media (paths) in those for VLM policies, and in no other; the rest may be left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from unified_reward.config import ImportConfig
from unified_reward.data.decoded import DecodedCache
from unified_reward.data.examples import Example, Row, RowError, medium, text
from unified_reward.data.formats.records import NUMBERED, SPLITS, several, text_of
from unified_reward.data.loading import Loaded, MediaLoader
from unified_reward.data.sources import FIELD, Source, file_labels, read_sources
from unified_reward.data.splits import held_out, prompt_leak_keys
from unified_reward.data.taking import Counted, Origin, SourceCount, check_rejects, limits_of, read_each, take
from unified_reward.errors import UserError
from unified_reward.records import Modality, Mode, Prompt, Subject, Task

COLUMNS = ("prompt", "media", "reference_answer", "id", "split")
LAYOUT = "prompts"
LICENCE = "that of your data"
REPEATED = "it repeats an earlier prompt"


@dataclass
class ImportedPrompts(Counted):
    """Prompts in the order of their files, splits set. `records` of a source counts its prompts."""

    prompts: list[Prompt] = field(default_factory=list)


def import_prompts(
    config: ImportConfig,
    subject: Subject,
    keep: Callable[[bytes], object],
    *,
    seed: int = 0,
    cache: DecodedCache | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportedPrompts:
    """The prompts that `config` names for policies whose answers are texts (understanding) or images (generation).

    keep, cache, progress: as for `import_sources`. Raises UserError when a file cannot be read at all, more than
    `config.max_rejects` of the rows cannot, or no prompt is left to train on or to hold out.
    """
    name, paths = _named(config, subject)
    with _told_of(name):
        folder = Path(config.folder)
        sources = _sources(paths, folder / Path(config.media_root).expanduser(), folder)
        loader = MediaLoader(limits_of(config), keep, cache=cache, workers=config.decoders)
        found = ImportedPrompts(media=loader.known)
        labels = file_labels([source.path for source in sources])
        rows = (
            each for s, label in zip(sources, labels, strict=True) for each in _rows(s, label, subject, seed, found)
        )
        make = partial(_prompt, subject)
        taken = take(rows, loader, found, make, _content, repeated=REPEATED, progress=progress)
        found.prompts = [prompt for prompt, _ in taken]
        check_rejects(found, config, field=name, paths=paths, what="prompts")
        found.prompts = _split(found.prompts, config.held_out, seed, name)
    return found


def _named(config: ImportConfig, subject: Subject) -> tuple[str, Sequence[str]]:
    """The field that names the files of this kind, as documents write it, and what it says."""
    if subject is Subject.UNDERSTANDING:
        return "import.vlmPrompts", config.vlm_prompts
    return "import.imagePrompts", config.image_prompts


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Errors of reading files name the field that named them."""
    try:
        yield
    except UserError as error:
        where = error.field.replace(FIELD, name)
        raise UserError(field=where, value=error.value, why=error.why, fix=error.fix) from error


def _sources(paths: Sequence[str], media_root: Path, folder: Path) -> list[Source]:
    sources = read_sources(paths, "files", media_root, folder)
    for source in sources:
        if source.format is not None:
            raise UserError(field=FIELD, value=f"{source.format.name}={source.path}",
                            why="prompts have a layout of their own, and no other is read",
                            fix=f"Name the path alone; its columns are {', '.join(COLUMNS)}.")  # fmt: skip
    return sources


def _rows(
    source: Source, label: str, subject: Subject, seed: int, found: ImportedPrompts
) -> Iterator[tuple[Origin, Example, Sequence[Path]]]:
    count = SourceCount(label, LAYOUT, LICENCE, source.strategy)
    found.sources.append(count)
    for number, (example, reference) in read_each(source, count, seed, found, partial(_read, subject)):
        yield Origin(count, number, reference=reference), example, source.folders


def _read(subject: Subject, row: Row) -> tuple[Example, str]:
    """What is asked, and the reference answer. Raises RowError."""
    values = {key: value for key, value in row.items() if value not in (None, "")}
    unknown = sorted(set(values) - {*COLUMNS, *NUMBERED["media"]})
    if unknown:
        raise RowError("there is no such column", f"{unknown[0]}; columns are {', '.join(COLUMNS)}")
    prompt, media = text(values, "prompt"), [medium(value, "media") for value in several(values, "media")]
    if subject is Subject.UNDERSTANDING and not media:
        raise RowError("no media", "VLM policies are asked about pictures and clips")
    if subject is Subject.GENERATION and (media or "reference_answer" in values):
        raise RowError("a caption has no media and no reference answer", prompt)
    if text_of(values, "split") not in SPLITS:
        raise RowError("split is not train, validation or test", values["split"])
    task = Task.of(Modality.IMAGE, subject, Mode.POINT)
    example = Example(task=task, prompt=prompt, media=media, id=text_of(values, "id"), split=text_of(values, "split"))
    return example, text_of(values, "reference_answer")


def _prompt(subject: Subject, origin: Origin, example: Example, media: Sequence[Loaded]) -> Prompt:
    clips = any(each.about.frames > 1 for each in media)
    return Prompt(
        id=example.id or origin.name, split=example.split,
        modality=Modality.VIDEO if clips else Modality.IMAGE, subject=subject, text=example.prompt,
        media=[each.digest for each in media], reference_answer=origin.reference,
    )  # fmt: skip


def _content(prompt: Prompt) -> tuple[object, ...]:
    return prompt.text, tuple(prompt.media)


def _split(prompts: Sequence[Prompt], share: float, seed: int, name: str) -> list[Prompt]:
    """Prompts with their split: the one they name, else train or test, drawn so that no prompt and no medium leaks."""
    try:
        tests = held_out(prompt_leak_keys(prompts), share, seed, named=[prompt.split for prompt in prompts])
    except ValueError as error:
        raise UserError(
            field=name, value=f"{len(prompts)} prompts", why=str(error), fix="Add prompts, or correct the splits they name."
        ) from error  # fmt: skip
    placed = [
        dataclasses.replace(prompt, split=prompt.split or ("test" if test else "train"))
        for prompt, test in zip(prompts, tests, strict=True)
    ]
    for split, use in (("train", "to align the policy with"), ("test", "to measure it with")):
        if not any(prompt.split == split for prompt in placed):
            raise UserError(field=name, value=f"{len(prompts)} prompts", why=f"none is left {use} (split {split})",
                            fix=f"Add some whose split is {split}, or leave split out.")  # fmt: skip
    return placed
