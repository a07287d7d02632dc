"""reward-train: the judge, by SFT on all judge tasks at once (paper, section III.A)."""

from __future__ import annotations

from unified_reward.config import RewardTrainConfig
from unified_reward.errors import UserError
from unified_reward.judge import load_pack
from unified_reward.judge.judge import PACK_FILE
from unified_reward.judge.render import record_segments
from unified_reward.models.batching import Encoded, encode
from unified_reward.models.vlm import load_vlm
from unified_reward.records import JudgeRecord, Modality, Task
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.import_data import JUDGE_RECORDS
from unified_reward.stages.media import MediaReader
from unified_reward.stages.trained import curves, export_vlm, summary, train_stage
from unified_reward.training.parallel import prepare_vlm
from unified_reward.training.sft import SftObjective

JUDGE = "judge"


def run(context: StageContext) -> StageResult:
    config = context.config(RewardTrainConfig)
    pack = load_pack(config.template)
    vlm = load_vlm(context.base(config.base), meta=True)
    data = context.dataset(JUDGE_RECORDS, JudgeRecord)
    records = [r for r in data.records() if r.split == "train" and r.task in _tasks(config)]
    if not records:
        raise UserError(field="rewardTrain.tasks", value=config.tasks or "all", why="the data have no such training record",
                        fix="Choose other tasks, or import other data.")  # fmt: skip
    media = MediaReader(data, work_dir=context.work_dir)

    def example(index: int) -> Encoded:
        return encode(vlm.processor, record_segments(records[index], pack, media, vlm.processor))

    scorer = prepare_vlm(vlm, config, context.dist, seed=context.spec.seed)
    lengths = [_tokens(record) for record in records]
    objective = SftObjective(vlm, example, context.dist, lengths=lengths, scorer=scorer)
    result = train_stage(context, config, objective, dataset_size=len(records))
    judge = export_vlm(
        context, JUDGE, vlm, scorer, meta={"base": config.base, "template": f"{pack.name}@{pack.version}"},
        extra={PACK_FILE: pack.to_yaml().encode()},
    )  # fmt: skip
    return StageResult(
        outputs={JUDGE: judge} if judge else {},
        metrics={"records": len(records), **summary(result)},
        report={"curves": curves(result)},
    )


def _tokens(record: JudgeRecord) -> int:
    """About how long a record is, to share the work evenly among ranks: a clip counts as two pictures."""
    words = len(record.prompt.split()) + len(record.rationale.split()) + sum(len(a.split()) for a in record.answers)
    per_medium = 32 if record.task.modality is Modality.VIDEO else 16
    return per_medium * len(record.media) + words


def _tasks(config: RewardTrainConfig) -> set[Task]:
    unknown = [name for name in config.tasks if name not in set(Task)]
    if unknown:
        raise UserError(field="rewardTrain.tasks", value=unknown[0], why="there is no such judge task",
                        fix=f"Use some of {', '.join(Task)}.")  # fmt: skip
    return {Task(name) for name in config.tasks} or set(Task)
