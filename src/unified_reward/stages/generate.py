"""generate: N candidates per training prompt from the policy, in shards that are committed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from unified_reward import progress
from unified_reward.config import GenerateConfig, PolicyKind
from unified_reward.config.engines import EngineName, engine_options
from unified_reward.errors import UserError
from unified_reward.records import Candidate, Prompt, from_row, schema_of, to_row
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.import_data import PROMPTS_DIFFUSION, PROMPTS_VLM
from unified_reward.stages.media import MediaReader
from unified_reward.store import DatasetWriter, Ledger, MediaWriter

if TYPE_CHECKING:
    from unified_reward.engines import Engine

CANDIDATES = "candidates"
Drawn = Iterable[tuple[Candidate, bytes | None]]


def run(context: StageContext) -> StageResult:
    config = context.config(GenerateConfig)
    _check_engine(context, config)
    data = context.dataset(prompts_name(context), Prompt)
    prompts = [prompt for prompt in data.records() if prompt.split == "train"]
    draw = _engine(context, config, MediaReader(data))
    ledger = Ledger(context.store, f"{context.prefix}/shards", rows=len(prompts), rows_per_shard=config.shard_prompts)
    media = MediaWriter(context.store)

    for shard in ledger.claim():
        rows = []
        for candidate, content in draw(prompts[shard.start : shard.stop]):
            rows.append(to_row(replace(candidate, media="" if content is None else media.add(content))))
        media.flush()
        ledger.commit(shard, pa.Table.from_pylist(rows, schema=schema_of(Candidate)))
        progress.report(shard.stop, len(prompts), "prompts", context.spec.policy)
    media.close()

    with DatasetWriter(context.store, f"{context.prefix}/{CANDIDATES}", Candidate) as writer:
        count, distinct = 0, set()
        for row in ledger.rows().to_pylist():
            candidate = from_row(Candidate, row)
            writer.add(candidate)
            count += 1
            distinct.add((candidate.prompt_id, candidate.text or candidate.media))
        reference = writer.commit()
    metrics = {"prompts": len(prompts), "candidates": count, "distinct": len(distinct)}
    context.track.metrics({name: float(value) for name, value in metrics.items()})
    pictures = context.spec.policy_kind is PolicyKind.DIFFUSION
    return StageResult(outputs={CANDIDATES: reference}, metrics=metrics, report={"pictures": pictures})


def prompts_name(context: StageContext) -> str:
    """The input that holds the prompts of this policy's kind."""
    return PROMPTS_DIFFUSION if context.spec.policy_kind is PolicyKind.DIFFUSION else PROMPTS_VLM


def _check_engine(context: StageContext, config: GenerateConfig) -> None:
    """Before any data is read: a stage can be started by hand, where no document was checked."""
    if config.engine is EngineName.VLLM:
        from unified_reward.engines.vllm_engine import require_vllm

        if context.spec.policy_kind is PolicyKind.DIFFUSION:
            raise UserError(field="engine", value=config.engine, why=f"policy {context.spec.policy} draws images, and "
                            "vLLM writes text", fix="Leave it out.")  # fmt: skip
        require_vllm()


def _engine(context: StageContext, config: GenerateConfig, media: MediaReader) -> Callable[[Sequence[Prompt]], Drawn]:
    base, policy, seed = context.base(context.spec.policy_base), context.spec.policy, context.spec.seed
    if context.spec.policy_kind is PolicyKind.DIFFUSION:
        from unified_reward.generation.diffusion import candidates
        from unified_reward.models.diffusion import load_image_policy
        from unified_reward.models.diffusion_sampler import DiffusionSampler

        model = load_image_policy(base, context.dtype, context.dist.device)
        sampler = DiffusionSampler(config.sampler_steps, config.guidance, config.batch)
        return lambda prompts: candidates(model, prompts, config.candidates, sampler, seed=seed, name=policy)
    from unified_reward.generation.vlm import sample_candidates

    engine = _writer(context, config, base)
    return lambda prompts: (
        (candidate, None)
        for candidate in sample_candidates(
            engine, prompts, media, candidates=config.candidates, temperature=config.temperature,
            max_new_tokens=config.max_new_tokens, seed=seed, policy=policy,
        )
    )  # fmt: skip


def _writer(context: StageContext, config: GenerateConfig, base: Path) -> Engine:
    if config.engine is EngineName.VLLM:
        from unified_reward.engines.vllm_engine import VllmEngine

        place, options = context.dist.local_rank, engine_options(config.engine_options)
        return VllmEngine(str(base), place=place, tensor_parallel_size=config.tensor_parallel, **options)
    from unified_reward.engines.transformers_engine import TransformersEngine
    from unified_reward.models.vlm import load_vlm

    return TransformersEngine(load_vlm(base, context.dtype, context.dist.device), batch=config.batch)
