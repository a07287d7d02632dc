"""reward-eval: the judge against held-out labels, in both orders, per task and per fact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_reward import progress
from unified_reward.config import RewardEvalConfig
from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import benchmark_name
from unified_reward.evaluation.judge_metrics import judge_metrics
from unified_reward.judge import Query
from unified_reward.judge.judge import Judge
from unified_reward.judge.render import MediaSource
from unified_reward.records import JudgeRecord, Mode, Task, Verdict
from unified_reward.stages.benchmark import Source, ask_and_score
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.figures import log_judge
from unified_reward.stages.import_data import JUDGE_RECORDS
from unified_reward.stages.media import MediaReader
from unified_reward.store import DatasetWriter

VERDICTS = "verdicts"
SHOWN = 40  # verdicts in the report's table


def run(context: StageContext) -> StageResult:
    config = context.config(RewardEvalConfig)
    benchmarks = [benchmark_name(name) for name in config.benchmark.split(",") if name.strip()]
    data = context.dataset(JUDGE_RECORDS, JudgeRecord)
    media = MediaReader(data, work_dir=context.work_dir)
    judge = load_judge(context, context.model("judge"), media, batch=config.batch)
    records = _held_out(data.records(), config.records, judge)
    verdicts = judge_records(judge, records, name=context.spec.inputs["judge"].digest)
    ranges = {task: judge.pack.point(task).range for task in judge.pack.tasks if task.mode is Mode.POINT}
    metrics = judge_metrics(records, verdicts, ranges, seed=context.spec.seed)

    with DatasetWriter(context.store, f"{context.prefix}/{VERDICTS}", Verdict) as writer:
        for verdict in verdicts:
            writer.add(verdict)
        reference = writer.commit()
    context.track.metrics(flat(metrics))
    context.track.table(VERDICTS, verdict_rows(records, verdicts))
    log_judge(context.track, metrics)
    report = {"verdicts": verdict_rows(_examples(records), _matching(records, verdicts, _examples(records)))}
    if benchmarks:
        report["benchmarks"] = [_benchmark(context, config, name) for name in benchmarks]
    return StageResult(outputs={VERDICTS: reference}, metrics=metrics, report=report)


def _benchmark(context: StageContext, config: RewardEvalConfig, name: str) -> dict[str, Any]:
    """The report of one benchmark; its numbers are tracked under benchmark/NAME."""
    data = Path(config.benchmark_data) / name if config.benchmark_data else None
    source = Source(data, data, config.benchmark_items, context.spec.seed)
    folder = context.work_dir / "benchmarks" / context.spec.key / name
    found, _ = ask_and_score(
        name, source, lambda media: [load_judge(context, context.model("judge"), media, batch=config.batch)], folder
    )
    report = found.as_json()
    context.track.metrics(flat({name: report}, "benchmark/"))
    return report


def load_judge(context: StageContext, directory: Path, media: MediaSource, *, batch: int, template: str = "") -> Judge:
    """A judge on this process's device. template: the pack to ask it with; "" = the one saved beside it."""
    device, dtype = context.dist.device, context.dtype
    return Judge.load(directory, media, pack=template, batch=batch, device=device, dtype=dtype)


def judge_records(judge: Judge, records: Sequence[JudgeRecord], *, name: str) -> list[Verdict]:
    """The judge's verdict on each record, in the order of the records."""
    found: dict[str, Verdict] = {}
    pairs = [r for r in records if r.task.mode is Mode.PAIR]
    points = [r for r in records if r.task.mode is Mode.POINT]
    compared = judge.compare([Query.of_record(r) for r in pairs], lambda n, of: progress.report(n, of, "verdicts"))
    for record, pair in zip(pairs, compared, strict=True):
        label = judge.pack.label(record.task)
        found[record.id] = pair.record(
            id=record.id, task=record.task, prompt_id=record.id, first_id="1", second_id="2", judge=name, template=label
        )
    scored = judge.score([Query.of_record(r) for r in points], lambda n, of: progress.report(n, of, "scores"))
    for record, point in zip(points, scored, strict=True):
        label = judge.pack.label(record.task)
        found[record.id] = point.record(
            id=record.id, task=record.task, prompt_id=record.id, first_id="1", judge=name, template=label
        )
    return [found[record.id] for record in records]


def verdict_rows(records: Sequence[JudgeRecord], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One row per verdict as a person reads them."""
    return [
        {
            "task": record.task.value, "prompt": record.prompt, "answers": list(record.answers),
            "media": list(record.media), "label": record.choice.value if record.choice else record.score,
            "verdict": verdict.choice.value if verdict.choice else round(verdict.score or 0.0, 2),
            "p_first": verdict.p_first, "p_first_shown_first": verdict.p_first_shown_first,
            "p_first_shown_second": verdict.p_first_shown_second, "rationale": verdict.rationale,
        }
        for record, verdict in zip(records, verdicts, strict=True)
    ]  # fmt: skip


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested metrics as `a/b/c` -> number; what is no number is left out."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            found |= flat(value, f"{path}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[path] = float(value)
    return found


def _held_out(rows: Any, limit: int, judge: Judge) -> list[JudgeRecord]:
    """Test records the judge's template pack has words for, at most `limit` of each task."""
    found: dict[Task, list[JudgeRecord]] = {}
    for record in rows:
        if record.split == "test" and record.task in judge.pack.tasks:
            found.setdefault(record.task, []).append(record)
    records = [r for task in Task for r in found.get(task, [])[: limit or None]]
    if not records:
        raise UserError(field="rewardEval", value=0, why="the data have no held-out record for this judge's templates",
                        fix="Import data with a test split.")  # fmt: skip
    return records


def _examples(records: Sequence[JudgeRecord]) -> list[JudgeRecord]:
    """A few of each task."""
    by_task: dict[Task, list[JudgeRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    each = max(1, SHOWN // len(by_task))
    return [record for own in by_task.values() for record in own[:each]]


def _matching(
    records: Sequence[JudgeRecord], verdicts: Sequence[Verdict], shown: Sequence[JudgeRecord]
) -> list[Verdict]:
    by_id = {record.id: verdict for record, verdict in zip(records, verdicts, strict=True)}
    return [by_id[record.id] for record in shown]
