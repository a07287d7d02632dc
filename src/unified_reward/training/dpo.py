"""Direct preference optimisation of a VLM (paper, eq. 3): one forward per pair, the reference known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fsdp_utils.context import DistContext
from unified_reward.models.vlm import Vlm
from unified_reward.training.logprobs import TokenScorer, forward_inputs
from unified_reward.training.losses import PairLogProbs, dpo_loss
from unified_reward.training.objective import Batch, LossSum, ShardUnit
from unified_reward.training.packing import Tree, pack
from unified_reward.training.reference import ReferenceLogProbs

CHOSEN, REJECTED = 1, 2  # owners of a tree with two answers: prompt, chosen, rejected


class DpoObjective:
    """Mean over the global batch's pairs of a loss in `losses.LOSSES`.

    pairs: trees of two answers, chosen first. reference: per-token log-probs of the same answers under the frozen
    reference (`reference.reference_logprobs`), one (chosen, rejected) per pair.
    scorer: the model, where `parallel.prepare_vlm` has made it ready.
    Raises UserError for a loss and smoothing that do not go together, ValueError where pairs and reference differ.
    """

    def __init__(
        self,
        vlm: Vlm,
        pairs: Sequence[Tree],
        reference: Sequence[ReferenceLogProbs],
        dist: DistContext,
        *,
        beta: float,
        loss: str = "sigmoid",
        label_smoothing: float = 0.0,
        scorer: TokenScorer | None = None,
    ) -> None:
        for tree, known in zip(pairs, reference, strict=True):
            if [len(answer) for answer in tree.answers] != [len(answer) for answer in known] or len(known) != 2:
                raise ValueError("a pair needs two answers, and reference log-probs of just their tokens")
        self.root = TokenScorer(vlm.model) if scorer is None else scorer
        self._loss = dpo_loss(loss, beta=beta, label_smoothing=label_smoothing)
        self._beta, self._pad_id, self._device = beta, vlm.processor.pad_id, dist.device
        self._pairs = pairs
        self._reference = torch.tensor([[float(a.sum(dtype="float64")) for a in known] for known in reference])

    def shard_units(self) -> Sequence[ShardUnit]:
        return self.root.decoder_layers()

    def cost(self, index: int) -> float:
        return float(len(self._pairs[index]))

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:  # noqa: ARG002  (nothing is drawn)
        packed = pack([self._pairs[index] for index in indices], self._pad_id)
        return packed | {"reference": self._reference[list(indices)]}

    def normaliser(self, batch: Batch) -> float:
        return float(len(batch["reference"]))

    def loss(self, batch: Batch) -> LossSum:
        """Metrics: loss, rewards/{chosen,rejected,margins} (beta * log-ratio, nats), rewards/accuracies, logps/*."""
        logprobs, _ = self.root(forward_inputs(batch, self._device))
        pairs = self._by_pair(logprobs, batch)
        losses = self._loss(pairs)
        return LossSum(losses.sum(), _metrics(pairs, losses.detach(), self._beta))

    def _by_pair(self, logprobs: Tensor, batch: Batch) -> PairLogProbs:
        count = len(batch["reference"])
        owners = batch["owners"].to(self._device)
        sums = logprobs.new_zeros(3 * count).index_add(0, owners, logprobs).view(count, 3)
        tokens = torch.bincount(owners, minlength=3 * count).view(count, 3)
        reference = batch["reference"].to(self._device)
        return PairLogProbs(
            policy_chosen=sums[:, CHOSEN],
            policy_rejected=sums[:, REJECTED],
            reference_chosen=reference[:, 0],
            reference_rejected=reference[:, 1],
            chosen_tokens=tokens[:, CHOSEN],
            rejected_tokens=tokens[:, REJECTED],
        )


def _metrics(pairs: PairLogProbs, losses: Tensor, beta: float) -> dict[str, tuple[Tensor | float, Tensor | float]]:
    chosen, rejected = beta * pairs.chosen_ratio.detach(), beta * pairs.rejected_ratio.detach()
    values = {
        "loss": losses,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": pairs.policy_chosen.detach(),
        "logps/rejected": pairs.policy_rejected.detach(),
    }
    return {name: (value.sum(), float(len(losses))) for name, value in values.items()}
