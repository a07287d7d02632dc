"""import: datasets for the judge and prompts for the policies, as versioned parquet and content-addressed media."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unified_reward import progress
from unified_reward.config import ArtifactRef, ImportConfig
from unified_reward.config.run import SHAPES
from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord, Prompt, Subject, Task
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.store import DatasetWriter, write_artifact

if TYPE_CHECKING:
    from unified_reward.data.card import Card
    from unified_reward.data.policy_prompts import ImportedPrompts
    from unified_reward.data.taking import Reject, SourceCount

JUDGE_RECORDS = "judge_records"
PROMPTS_VLM = "prompts_vlm"
PROMPTS_DIFFUSION = "prompts_diffusion"
CARD = "card"
EVAL_SEED = 1_000_000


@dataclass
class _Asked:
    """Prompts that came from files: data sets by name, and what was read for each."""

    outputs: dict[str, ArtifactRef] = field(default_factory=dict)
    found: dict[str, ImportedPrompts] = field(default_factory=dict)

    @property
    def rejects(self) -> list[Reject]:
        return [each for found in self.found.values() for each in found.rejects]

    @property
    def repeats(self) -> list[Reject]:
        return [each for found in self.found.values() for each in found.repeats]

    @property
    def sources(self) -> list[SourceCount]:
        return [each for found in self.found.values() for each in found.sources]

    def counts(self) -> dict[str, dict[str, int]]:
        """Data set -> split -> prompts."""
        return {
            name: dict(Counter(prompt.split for prompt in found.prompts)) for name, found in self.found.items()
        }  # fmt: skip


def run(context: StageContext) -> StageResult:
    config = context.config(ImportConfig)
    if config.folder:
        config = config.model_copy(update={"folder": str(context.base(config.folder))})
    asked = _import_prompts(context, config)
    if config.source == SHAPES:
        return _import_shapes(context, config, asked)
    return _import_files(context, config, asked)


def _import_prompts(context: StageContext, config: ImportConfig) -> _Asked:
    """The prompts that files hold; they go first, since a mistake in them shows in a moment."""
    from unified_reward.data.policy_prompts import import_prompts
    from unified_reward.data.taking import limits_of
    from unified_reward.stages.media import decoded_cache

    asked, limits = _Asked(), limits_of(config)
    for name, subject, paths in (
        (PROMPTS_VLM, Subject.UNDERSTANDING, config.vlm_prompts),
        (PROMPTS_DIFFUSION, Subject.GENERATION, config.image_prompts),
    ):
        if not paths:
            continue
        with DatasetWriter(context.store, f"{context.prefix}/{name}", Prompt) as writer:
            found = import_prompts(
                config, subject, writer.add_media, seed=context.spec.seed, cache=decoded_cache(context.work_dir, limits),
                progress=partial(_told, name),
            )  # fmt: skip
            writer.meta = {**_media_meta(config), "sources": [asdict(source) for source in found.sources]}
            for prompt in found.prompts:
                writer.add(prompt)
            asked.outputs[name] = writer.commit()
        asked.found[name] = found
        context.track.params({f"rows/{name}": len(found.prompts)})
    _tell(asked.sources, asked.rejects)
    return asked


def _told(name: str, done: int) -> None:
    progress.report(done, done, "prompts", name)


def _media_meta(config: ImportConfig) -> dict[str, Any]:
    """How stages sample and scale the media when they read them."""
    return {"media": {"frames": config.video_frames, "max_side": config.max_side}}


def _import_shapes(context: StageContext, config: ImportConfig, asked: _Asked) -> StageResult:
    from unified_reward.shapes import dataset

    seed = context.spec.seed
    total = config.train_records + config.eval_records * len(Task) + config.prompts + 2 * config.eval_prompts
    rows = _Rows(context, total)

    drawn: list[JudgeRecord] = []

    def judge_records() -> Iterable[tuple[JudgeRecord, Mapping[str, bytes]]]:
        sets = [dataset.judge_records("train", config.train_records, seed)]
        sets += [  # a seed for each task, since records are named by it
            dataset.judge_records("test", config.eval_records, seed + EVAL_SEED + number, {task: 1.0})
            for number, task in enumerate(Task)
        ]
        for record, media in (each for records in sets for each in records):
            drawn.append(record)
            yield record, media

    def vlm_prompts() -> Iterable[tuple[Prompt, Mapping[str, bytes]]]:
        yield from dataset.policy_prompts("train", config.prompts, seed)
        yield from dataset.policy_prompts("validation", config.eval_prompts, seed)
        yield from dataset.policy_prompts("test", config.eval_prompts, seed)

    def image_prompts() -> Iterable[tuple[Prompt, Mapping[str, bytes]]]:
        for split in ("train", "validation", "test"):
            repeats = config.image_repeats if split == "train" else 1
            for prompt in dataset.image_prompts(split):
                for number in range(repeats):
                    yield replace(prompt, id=f"{prompt.id}-{number}"), {}

    meta = {"source": dataset.SOURCE, "licence": "Apache-2.0 (drawn by this package)", "seed": seed}
    outputs = {JUDGE_RECORDS: rows.write(JUDGE_RECORDS, JudgeRecord, judge_records(), meta), **asked.outputs}
    for name, prompts in ((PROMPTS_VLM, vlm_prompts), (PROMPTS_DIFFUSION, image_prompts)):
        if name not in outputs:
            outputs[name] = rows.write(name, Prompt, prompts(), meta)
    from unified_reward.data.card import records_card

    world = {"file": "shapes", "format": dataset.SOURCE, "licence": meta["licence"], "strategy": f"seed {seed}",
             "rows": len(drawn), "records": len(drawn), "rejects": 0, "repeats": 0}  # fmt: skip
    card = _with_prompts(records_card(drawn, [world]), asked)
    listed = _publish(context, card, outputs[JUDGE_RECORDS], asked.rejects, asked.repeats, figures=False)
    return StageResult(
        outputs={**outputs, CARD: listed},
        metrics={"rows": {**rows.tallies, **asked.counts()}, **_left_out(asked.rejects, asked.repeats)},
        report={"rejects": [asdict(each) for each in asked.rejects[:50]]},
    )


def _import_files(context: StageContext, config: ImportConfig, asked: _Asked) -> StageResult:
    from unified_reward.data.card import card_of
    from unified_reward.data.importer import import_sources
    from unified_reward.data.taking import limits_of
    from unified_reward.stages.media import decoded_cache

    limits = limits_of(config)
    with DatasetWriter(context.store, f"{context.prefix}/{JUDGE_RECORDS}", JudgeRecord) as writer:
        found = import_sources(
            config, writer.add_media, seed=context.spec.seed, cache=decoded_cache(context.work_dir, limits),
            progress=lambda done: progress.report(done, done, "records", JUDGE_RECORDS),
        )  # fmt: skip
        card = card_of(found, {"frames of a clip": limits.frames, "longer side in pixels": limits.max_side})
        writer.meta = {
            **_media_meta(config), "source": ", ".join(dict.fromkeys(s.format for s in found.sources)),
            "licence": "; ".join(dict.fromkeys(s.licence for s in found.sources)), "card": card.facts(),
        }  # fmt: skip
        for record in found.records:
            writer.add(record)
        reference = writer.commit()
    _tell(found.sources, found.rejects)
    rejects, repeats = [*found.rejects, *asked.rejects], [*found.repeats, *asked.repeats]
    counts = {f"{split}/{task}": n for split, tasks in card.counts.items() for task, n in tasks.items()}
    card = _with_prompts(card, asked)  # of the page alone: the records' data set is the same whatever is asked
    listed = _publish(context, card, reference, rejects, repeats)
    context.track.params({f"rows/{JUDGE_RECORDS}": len(found.records)})
    return StageResult(
        outputs={JUDGE_RECORDS: reference, **asked.outputs, CARD: listed},
        metrics={"rows": {JUDGE_RECORDS: counts, **asked.counts()}, **_left_out(rejects, repeats)},
        report={"rejects": [asdict(each) for each in rejects[:50]], "card": _report_card(card, config, asked)},
    )


def _left_out(rejects: Sequence[Reject], repeats: Sequence[Reject]) -> dict[str, int]:
    return {"rejects": len(rejects), "repeats": len(repeats)}


def _with_prompts(card: Card, asked: _Asked) -> Card:
    """The card with the files of prompts among its sources, and what was left out of them."""
    reasons = Counter(card.rejects) + Counter(reject.reason for reject in asked.rejects)
    return replace(
        card, sources=[*card.sources, *(asdict(source) for source in asked.sources)], rejects=dict(reasons.most_common()),
        repeats=card.repeats + len(asked.repeats),
    )  # fmt: skip


def _publish(
    context: StageContext,
    card: Card,
    records: ArtifactRef,
    rejects: Sequence[Reject],
    repeats: Sequence[Reject],
    *,
    figures: bool = True,
) -> ArtifactRef:
    """The card and the whole list of what was left out, as an artifact beside the data set and on MLflow's page."""
    from unified_reward.data.card import markdown
    from unified_reward.stages.import_page import show

    text = markdown(card, f"{JUDGE_RECORDS} {records.digest[:12]}", rejects)
    left_out = [asdict(each) for each in (*rejects, *repeats)]
    show(context.track, card, text, left_out, figures=figures)
    files: dict[str, bytes | Path] = {
        "DATASET_CARD.md": text.encode(),
        "card.json": (json.dumps(card.facts(), indent=1, ensure_ascii=False) + "\n").encode(),
        "rejects.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out).encode(),
    }
    return write_artifact(context.store, f"{context.prefix}/{CARD}", files, kind="dataset-card")


def _report_card(card: Card, config: ImportConfig, asked: _Asked) -> dict[str, Any]:
    """What the run's page says of the data: flat, in words it can list."""
    facts = card.facts()
    counts = {f"{split}/{task}": n for split, tasks in card.counts.items() for task, n in tasks.items()}
    counts |= {f"{split}/{name}": n for name, splits in asked.counts().items() for split, n in splits.items()}
    media = {name: _spread(value) for name, value in facts["media"].items()}
    paths = [*config.paths, *config.vlm_prompts, *config.image_prompts]
    return {**facts, "sources": paths, "media": media, "counts": counts}


def _spread(value: Any) -> Any:
    return (
        " to ".join(f"{value[k]:g}" for k in ("min", "max")) if isinstance(value, dict) and value else value or "none"
    )


def _tell(sources: Sequence[SourceCount], rejects: Sequence[Reject]) -> None:
    """Say on the stage's output what was left out, so that it is seen without opening a page."""
    for source in sources:
        print(
            f"{source.file} ({source.format}): {source.records} records, {source.rejects} rejects, {source.repeats} repeats"
        )
    for reason, count in Counter(reject.reason for reject in rejects).most_common(5):
        first = next(reject for reject in rejects if reject.reason == reason)
        print(f"left out: {count} x {reason}, first {first.file}:{first.row} {first.detail}".rstrip())


class _Rows:
    """Writes datasets one after the other and counts what goes in."""

    def __init__(self, context: StageContext, total: int) -> None:
        self.context, self.total, self.done = context, total, 0
        self.tallies: dict[str, dict[str, int]] = {}

    def write(
        self, name: str, kind: type[Any], rows: Iterable[tuple[Any, Mapping[str, bytes]]], meta: Mapping[str, Any]
    ) -> ArtifactRef:
        tally: dict[str, int] = {}
        with DatasetWriter(self.context.store, f"{self.context.prefix}/{name}", kind, meta=dict(meta)) as writer:
            for record, media in rows:
                for data in media.values():
                    writer.add_media(data)
                writer.add(record)
                label = f"{record.split}/{record.task}" if isinstance(record, JudgeRecord) else record.split
                tally[label] = tally.get(label, 0) + 1
                self.done += 1
                progress.report(self.done, max(self.total, self.done), "rows", name)
            reference = writer.commit()
        if not tally:
            raise UserError(field="import", value=0, why=f"no row of {name} could be made", fix="Check the source.")
        self.tallies[name] = tally
        self.context.track.params({f"rows/{name}": sum(tally.values())})
        return reference
