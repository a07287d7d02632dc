"""A trained vision-language model as the files that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path

from fsdp_utils.context import DistContext
from fsdp_utils.export import export_huggingface
from fsdp_utils.sharding import reshard
from unified_reward.models.vlm import Vlm
from unified_reward.training.logprobs import TokenScorer
from unified_reward.training.lora import merged


def write_vlm(vlm: Vlm, directory: Path, dist: DistContext, scorer: TokenScorer | None = None) -> None:
    """Weights (low-rank updates folded in), config, tokenizer and preprocessor, by rank 0. Every rank calls it.

    scorer: the sharded root that the model is in.
    """
    reshard(vlm.model if scorer is None else scorer)
    with merged(vlm.model):
        export_huggingface(vlm.model, directory, dist)
    if dist.is_main:
        vlm.processor.save(directory)
