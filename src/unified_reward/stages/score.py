"""score: candidates -> verdicts -> preference pairs, by pair ranking and point sifting (paper, section III.B)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from unified_reward import progress
from unified_reward.config import ScoreConfig
from unified_reward.config.stages import PairWay
from unified_reward.judge import Query
from unified_reward.judge.judge import Judge
from unified_reward.preference import Rules, disjoint_pairs, select, summarise
from unified_reward.records import (
    Candidate,
    Mode,
    PreferencePair,
    Prompt,
    Subject,
    Task,
    Verdict,
    from_row,
    schema_of,
    to_row,
)  # fmt: skip
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.figures import log_pairs
from unified_reward.stages.generate import CANDIDATES, prompts_name
from unified_reward.stages.media import MediaReader, limits_of
from unified_reward.stages.reward_eval import flat, load_judge
from unified_reward.store import DatasetWriter, Ledger

PAIRS = "pairs"
VERDICTS = "verdicts"
SHOWN = 24


def run(context: StageContext) -> StageResult:
    config = context.config(ScoreConfig)
    prompts_data = context.dataset(prompts_name(context), Prompt)
    candidates_data = context.dataset(CANDIDATES, Candidate)
    prompts = [p for p in prompts_data.records() if p.split == "train"]
    offered = _by_prompt(candidates_data.records())
    # The judge sees media at the size its own were imported in, which the prompts' data set tells.
    media = MediaReader(candidates_data, limits_of(prompts_data))
    judge = load_judge(context, context.model("judge"), media, batch=config.batch)
    ledger = Ledger(
        context.store, f"{context.prefix}/{VERDICTS}-shards", rows=len(prompts), rows_per_shard=config.shard_prompts
    )

    for shard in ledger.claim():
        part = prompts[shard.start : shard.stop]
        verdicts = judge_candidates(judge, part, offered, config.way, judge_name=context.spec.inputs["judge"].digest)
        ledger.commit(shard, pa.Table.from_pylist([to_row(v) for v in verdicts], schema=schema_of(Verdict)))
        progress.report(shard.stop, len(prompts), "prompts", context.spec.policy)

    verdicts = [from_row(Verdict, row) for row in ledger.rows().to_pylist()]
    rules = Rules(config.way, config.min_margin, config.max_inconsistency)
    candidates = [c for own in offered.values() for c in own]
    rows = select(prompts, candidates, verdicts, rules, seed=context.spec.seed, limit=config.max_pairs)
    return _publish(context, prompts, rows, verdicts, media)


def judge_candidates(
    judge: Judge, prompts: Sequence[Prompt], offered: dict[str, list[Candidate]], way: PairWay, *, judge_name: str
) -> list[Verdict]:
    """The verdicts that `way` needs on the candidates of `prompts`: of each disjoint pair, of each candidate."""
    pairs = [(p, offered[p.id][i], offered[p.id][j]) for p in prompts for i, j in disjoint_pairs(len(offered[p.id]))]
    singles = [(p, one) for p in prompts for one in offered[p.id]]
    verdicts = []
    if way in (PairWay.PAIR_POINT, PairWay.PAIR_ONLY):
        compared = judge.compare([query(p, Mode.PAIR, a, b) for p, a, b in pairs])
        for (prompt, a, b), pair in zip(pairs, compared, strict=True):
            task = Task.of(prompt.modality, prompt.subject, Mode.PAIR)
            verdicts.append(pair.record(id=f"{a.id}~{b.index}", task=task, prompt_id=prompt.id, first_id=a.id,
                                        second_id=b.id, judge=judge_name, template=judge.pack.label(task)))  # fmt: skip
    if way in (PairWay.PAIR_POINT, PairWay.POINT_ONLY):
        scored = judge.score([query(p, Mode.POINT, one) for p, one in singles])
        for (prompt, one), point in zip(singles, scored, strict=True):
            task = Task.of(prompt.modality, prompt.subject, Mode.POINT)
            verdicts.append(point.record(id=one.id, task=task, prompt_id=prompt.id, first_id=one.id,
                                         judge=judge_name, template=judge.pack.label(task)))  # fmt: skip
    return verdicts


def _different(kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs to show: those of prompts not shown yet come first."""
    first = {row["prompt"]: number for number, row in reversed(list(enumerate(kept)))}
    return sorted(kept, key=lambda row: kept.index(row) != first[row["prompt"]])


def query(prompt: Prompt, mode: Mode, *items: Candidate) -> Query:
    """What the judge is asked about one or two candidates of a prompt."""
    task = Task.of(prompt.modality, prompt.subject, mode)
    if prompt.subject is Subject.GENERATION:
        return Query(task, prompt.text, (*prompt.media, *(item.media for item in items)))
    return Query(task, prompt.text, tuple(prompt.media), tuple(item.text for item in items))


def _by_prompt(candidates: Any) -> dict[str, list[Candidate]]:
    ordered = sorted(candidates, key=lambda c: (c.prompt_id, c.index))
    return {prompt: list(own) for prompt, own in groupby(ordered, key=lambda c: c.prompt_id)}


def _publish(
    context: StageContext,
    prompts: Sequence[Prompt],
    rows: Sequence[PreferencePair],
    verdicts: Sequence[Verdict],
    read: MediaReader,
) -> StageResult:
    summary = summarise(rows)
    written = {}
    for name, kind, records in ((PAIRS, PreferencePair, rows), (VERDICTS, Verdict, verdicts)):
        with DatasetWriter(context.store, f"{context.prefix}/{name}", kind) as writer:
            for record in records:
                writer.add(record)
            written[name] = writer.commit()
    texts = {prompt.id: prompt for prompt in prompts}
    kept = [
        {
            "prompt": texts[row.prompt_id].text, "media": list(texts[row.prompt_id].media), "chosen": row.chosen,
            "rejected": row.rejected, "chosen_score": row.chosen_score, "rejected_score": row.rejected_score,
        }
        for row in rows if not row.dropped
    ]  # fmt: skip
    scores = [v.score for v in verdicts if v.score is not None]
    scored = [(r.chosen_score, r.rejected_score) for r in rows if None not in (r.chosen_score, r.rejected_score)]
    metrics = {
        "prompts": summary.prompts, "kept": summary.kept, "dropped": summary.dropped, "mean_gap": summary.mean_gap,
        "verdicts": len(verdicts), "mean_score": sum(scores) / len(scores) if scores else None,
    }  # fmt: skip
    context.track.metrics(flat({"pairs": metrics}))
    context.track.table(PAIRS, kept)
    log_pairs(
        context.track, _different(kept), scores, read if prompts and prompts[0].subject is Subject.GENERATION else None
    )
    told = {"chosen": [chosen for chosen, _ in scored], "rejected": [rejected for _, rejected in scored]}
    return StageResult(
        outputs=written, metrics=metrics, report={"pairs": _different(kept)[:SHOWN], "scores": scores, **told}
    )
