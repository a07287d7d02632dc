"""import: datasets for the judge and prompts for the policies, as versioned parquet and content-addressed media."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from unified_reward import progress
from unified_reward.config import ArtifactRef, ImportConfig
from unified_reward.errors import UserError
from unified_reward.records import JudgeRecord, Prompt, Task
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.store import DatasetWriter

JUDGE_RECORDS = "judge_records"
PROMPTS_VLM = "prompts_vlm"
PROMPTS_DIFFUSION = "prompts_diffusion"
EVAL_SEED = 1_000_000


def run(context: StageContext) -> StageResult:
    config = context.config(ImportConfig)
    if config.source == "shapes":
        return _import_shapes(context, config)
    if config.source == "files":
        return _import_files(context, config)
    raise UserError(
        field="import.source", value=config.source, why="there is no such source", fix="Use shapes or files."
    )


def _import_shapes(context: StageContext, config: ImportConfig) -> StageResult:
    from unified_reward.shapes import dataset

    seed = context.spec.seed
    total = config.train_records + config.eval_records * len(Task) + config.prompts + 2 * config.eval_prompts
    rows = _Rows(context, total)

    def judge_records() -> Iterable[tuple[JudgeRecord, Mapping[str, bytes]]]:
        yield from dataset.judge_records("train", config.train_records, seed)
        for number, task in enumerate(Task):  # a seed of its own, since records are named by it
            yield from dataset.judge_records("test", config.eval_records, seed + EVAL_SEED + number, {task: 1.0})

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
    return StageResult(
        outputs={
            JUDGE_RECORDS: rows.write(JUDGE_RECORDS, JudgeRecord, judge_records(), meta),
            PROMPTS_VLM: rows.write(PROMPTS_VLM, Prompt, vlm_prompts(), meta),
            PROMPTS_DIFFUSION: rows.write(PROMPTS_DIFFUSION, Prompt, image_prompts(), meta),
        },
        metrics=rows.counts(),
    )


def _import_files(context: StageContext, config: ImportConfig) -> StageResult:
    from unified_reward.data.files import read_files

    rows = _Rows(context, 0)
    found = read_files(config, context.spec.seed)
    card = {"source": found.source, "licence": found.licence}
    reference = rows.write(JUDGE_RECORDS, JudgeRecord, found.records(), card)
    rejects = [{"file": reject.file, "reason": reject.reason} for reject in found.rejects]
    context.track.table("rejects", rejects)
    return StageResult(
        outputs={JUDGE_RECORDS: reference},
        metrics={**rows.counts(), "rejects": len(rejects)},
        report={"rejects": rejects[:50], "card": found.card()},
    )


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

    def counts(self) -> dict[str, Any]:
        return {"rows": self.tallies}
