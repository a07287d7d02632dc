"""A judge's opinion of a policy before and after alignment: which of two it prefers, in both orders, and what it scores each.

The judge of the run chose the pairs that the policy was aligned with, so it is a biased witness: what it prefers went up by
construction, whether or not it got better. `policyEval.judge` names another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_reward import progress
from unified_reward.config import ArtifactRef, PolicyEvalConfig
from unified_reward.data.media import Pixels
from unified_reward.evaluation.policy_metrics import OWN_JUDGE, Compared, opinion_metrics
from unified_reward.generation.seeds import candidate_seed
from unified_reward.judge.judge import Judge, pack_of
from unified_reward.judge.verdict import PairVerdict, PointVerdict
from unified_reward.records import Candidate, Choice, Mode, Prompt, Task, Verdict
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.media import MediaReader
from unified_reward.stages.reward_eval import load_judge
from unified_reward.stages.score import query
from unified_reward.store import Dataset, DatasetWriter, MediaWriter

ANSWERS, VERDICTS = "answers", "verdicts"
SHOWN = 24  # prompts in the report
DRAWN = 4  # pictures shown of each caption
PREFERS = {Choice.FIRST: "before", Choice.SECOND: "after"}
Answers = Mapping[str, Sequence[Candidate]]  # before, after -> as many for each prompt, in the order of the prompts


def check_judge(context: StageContext, config: PolicyEvalConfig, prompts: Sequence[Prompt]) -> None:
    """Raises UserError when the judge's templates cannot compare answers to these prompts; before anything is drawn."""
    pack = pack_of(_directory(context, config), config.judge_template)
    for prompt in prompts:
        pack.pair(_task(prompt, Mode.PAIR))


def written_candidates(
    context: StageContext, prompts: Sequence[Prompt], answers: Mapping[str, Sequence[str]]
) -> dict[str, list[Candidate]]:
    """answers[side][i] to prompts[i]."""
    return {
        side: [_candidate(context, prompt, side, 0, text=text) for prompt, text in zip(prompts, own, strict=True)]
        for side, own in answers.items()
    }


def drawn_candidates(
    context: StageContext, prompts: Sequence[Prompt], images: Mapping[str, Sequence[Pixels]], each: int
) -> dict[str, list[Candidate]]:
    """images[side]: `each` for every prompt. They go into the store: the judge reads them there, and so can a person."""
    from unified_reward.generation.diffusion import png

    media = MediaWriter(context.store)
    found = {
        side: [
            _candidate(context, prompts[number // each], side, number % each, media=media.add(png(image)))
            for number, image in enumerate(own)
        ]
        for side, own in images.items()
    }
    media.flush()
    media.close()
    return found


def judged(
    context: StageContext, config: PolicyEvalConfig, data: Dataset[Prompt], prompts: Sequence[Prompt], answers: Answers
) -> StageResult:
    """Compare answer by answer, score each, and sum it up. data: the prompts'; it tells how media are read."""
    judge = load_judge(
        context, _directory(context, config), MediaReader(data), batch=config.batch, template=config.judge_template
    )
    asked = {prompt.id: prompt for prompt in prompts}
    rows = list(zip(answers["before"], answers["after"], strict=True))
    pairs = judge.compare(
        [query(asked[before.prompt_id], Mode.PAIR, before, after) for before, after in rows],
        lambda done, total: progress.report(done, total, "verdicts"),
    )
    scores = _scores(judge, asked, [one for row in rows for one in row])
    compared = [_compared(row, pair, scores) for row, pair in zip(rows, pairs, strict=True)]
    name = context.base_digest(config.judge) if config.judge else context.spec.inputs["judge"].digest
    verdicts = _verdicts(judge, name, asked, rows, pairs, scores)
    outputs = {
        ANSWERS: _write(context, ANSWERS, Candidate, (one for row in rows for one in row)),
        VERDICTS: _write(context, VERDICTS, Verdict, verdicts),
    }
    metrics = {**opinion_metrics(compared), "judge": config.judge or OWN_JUDGE}
    return StageResult(outputs, metrics, {"examples": _examples(prompts, rows, compared)})


def _directory(context: StageContext, config: PolicyEvalConfig) -> Path:
    return context.base(config.judge) if config.judge else context.model("judge")


def _task(prompt: Prompt, mode: Mode) -> Task:
    return Task.of(prompt.modality, prompt.subject, mode)


def _candidate(
    context: StageContext, prompt: Prompt, side: str, index: int, *, text: str = "", media: str = ""
) -> Candidate:
    return Candidate(
        id=f"{prompt.id}/{context.spec.policy}/{side}/{index}", prompt_id=prompt.id, index=index,
        seed=candidate_seed(context.spec.seed, prompt.id, index), policy=f"{context.spec.policy}/{side}", text=text, media=media,
    )  # fmt: skip


def _scores(judge: Judge, asked: Mapping[str, Prompt], items: Sequence[Candidate]) -> dict[str, PointVerdict]:
    """By the id of the answer; of tasks that the judge's templates have no words for there are none."""
    known = [one for one in items if _task(asked[one.prompt_id], Mode.POINT) in judge.pack.tasks]
    points = judge.score(
        [query(asked[one.prompt_id], Mode.POINT, one) for one in known],
        lambda done, total: progress.report(done, total, "scores"),
    )
    return {one.id: point for one, point in zip(known, points, strict=True)}


def _compared(row: tuple[Candidate, Candidate], pair: PairVerdict, scores: Mapping[str, PointVerdict]) -> Compared:
    before, after = (scores[one.id].score if one.id in scores else None for one in row)
    p_before = 0.5 if pair.p_first is None else pair.p_first
    return Compared(row[0].prompt_id, pair.choice, p_before, not pair.contradictory, before, after)


def _verdicts(
    judge: Judge, name: str, asked: Mapping[str, Prompt], rows: Sequence[tuple[Candidate, Candidate]],
    pairs: Sequence[PairVerdict], scores: Mapping[str, PointVerdict],
) -> Iterable[Verdict]:  # fmt: skip
    for (before, after), pair in zip(rows, pairs, strict=True):
        task = _task(asked[before.prompt_id], Mode.PAIR)
        yield pair.record(id=f"{before.id}~{after.id}", task=task, prompt_id=before.prompt_id, first_id=before.id,
                          second_id=after.id, judge=name, template=judge.pack.label(task))  # fmt: skip
    for one in (one for row in rows for one in row if one.id in scores):
        task = _task(asked[one.prompt_id], Mode.POINT)
        yield scores[one.id].record(id=one.id, task=task, prompt_id=one.prompt_id, first_id=one.id, judge=name,
                                    template=judge.pack.label(task))  # fmt: skip


def _write(context: StageContext, name: str, kind: type[Any], rows: Iterable[Any]) -> ArtifactRef:
    with DatasetWriter(context.store, f"{context.prefix}/{name}", kind) as writer:
        for row in rows:
            writer.add(row)
        return writer.commit()


def _examples(
    prompts: Sequence[Prompt], rows: Sequence[tuple[Candidate, Candidate]], compared: Sequence[Compared]
) -> list[dict[str, Any]]:
    """A few prompts with what came before and after: a text, or a list of pictures, and what the judge says of it."""
    each = len(rows) // len(prompts)
    found = []
    for number, prompt in enumerate(prompts[:SHOWN]):
        own = list(zip(rows, compared, strict=True))[number * each : (number + 1) * each][:DRAWN]
        drawn = bool(own[0][0][0].media)
        prefers = [PREFERS.get(one.choice, "tie") for _, one in own]
        columns: dict[str, list[Any]] = {
            "before": [row[0].media or row[0].text for row, _ in own],
            "after": [row[1].media or row[1].text for row, _ in own],
            "judge_prefers": prefers,
            "judge_p_after": [1 - one.p_before for _, one in own],
            "judge_score_before": [one.score_before for _, one in own],
            "judge_score_after": [one.score_after for _, one in own],
            "before_preferred": [said == "before" for said in prefers],
            "after_preferred": [said == "after" for said in prefers],
        }
        asked = {"prompt": prompt.text, "media": list(prompt.media), "reference_answer": prompt.reference_answer}
        found.append({**asked, **{name: values if drawn else values[0] for name, values in columns.items()}})
    return found
