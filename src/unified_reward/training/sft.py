"""Supervised fine-tuning of a VLM on weighted target tokens: the judge learns its reasons and its verdict (paper, III.A)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fsdp_utils.context import DistContext
from unified_reward.models.batching import Encoded
from unified_reward.models.vlm import Vlm
from unified_reward.training.logprobs import TokenScorer, forward_inputs
from unified_reward.training.objective import Batch, LossSum, ShardUnit
from unified_reward.training.packing import Tree, pack


class SftObjective:
    """loss = sum(weight * -log p(token)) / sum(weight), both sums over the global batch.

    example: index -> the encoded example; called from the loop's prefetch thread. verdict_weight: tokens of at least this
    weight are verdicts, whose accuracy is reported apart. lengths: of each example, in any unit, or a cheap guess in
    proportion (words and pictures): ranks then get even work. None: even counts.
    scorer: the model, where `parallel.prepare_vlm` has made it ready.
    """

    def __init__(
        self,
        vlm: Vlm,
        example: Callable[[int], Encoded],
        dist: DistContext,
        *,
        verdict_weight: float = 1.0,
        lengths: Sequence[int] | None = None,
        scorer: TokenScorer | None = None,
    ) -> None:
        self.root = TokenScorer(vlm.model) if scorer is None else scorer
        self._pad_id, self._example, self._device = vlm.processor.pad_id, example, dist.device
        self._verdict_weight, self._lengths = verdict_weight, lengths

    def shard_units(self) -> Sequence[ShardUnit]:
        return self.root.decoder_layers()

    def cost(self, index: int) -> float:
        return 1.0 if self._lengths is None else float(self._lengths[index])

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:  # noqa: ARG002  (nothing is drawn)
        return pack([Tree(self._example(index)) for index in indices], self._pad_id)

    def normaliser(self, batch: Batch) -> float:
        return float(batch["weights"].sum(dtype=torch.float64))

    def loss(self, batch: Batch) -> LossSum:
        """Metrics: loss (nats per weighted token), verdict_accuracy (share of verdict tokens that are the likeliest)."""
        logprobs, hits = self.root(forward_inputs(batch, self._device))
        weights = batch["weights"].to(self._device)
        total = -(weights * logprobs).sum()
        verdicts = weights >= self._verdict_weight
        return LossSum(
            total,
            {
                "loss": (total.detach(), weights.sum()),
                "verdict_accuracy": (hits[verdicts].sum(), verdicts.sum()),
            },
        )
