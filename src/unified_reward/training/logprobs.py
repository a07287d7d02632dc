"""Log-probs of chosen tokens at chosen positions: the LM head never runs over the prompt, nor [B, L, V] ever exists.

Legend: B rows, L positions, H hidden size, V vocabulary, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from unified_reward.models.families import MEDIA_KEYS, family_of
from unified_reward.training.objective import Batch

LOGITS_BYTES = 1 << 30  # more logits than this are made in pieces, and again in backward

Head = Callable[[Tensor], Tensor]


def token_logprobs(
    hidden_NH: Tensor, targets_N: Tensor, head: Head, vocabulary: int, *, limit_bytes: int = LOGITS_BYTES
) -> tuple[Tensor, Tensor]:
    """(log p(target) [N] float32 nats with gradient, whether the target is the likeliest token [N] bool).

    hidden_NH: [N, H] states that predict the targets. targets_N: [N] int64. head: [n, H] -> [n, V] logits.
    limit_bytes: float32 logits kept for backward; with more, each piece of that size is computed again there (4 matrix
    products instead of 3, a fraction of the memory).
    """
    rows = max(1, limit_bytes // (4 * vocabulary))
    if len(targets_N) <= rows:
        return _score(hidden_NH, targets_N, head)
    pieces = [
        checkpoint(_score, hidden, targets, head, use_reentrant=False)
        for hidden, targets in zip(torch.split(hidden_NH, rows), torch.split(targets_N, rows), strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in pieces]), torch.cat([hits for _, hits in pieces])


def _score(hidden_NH: Tensor, targets_N: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    logits = head(hidden_NH).float()
    return -cross_entropy(logits, targets_N, reduction="none"), logits.detach().argmax(-1) == targets_N


class TokenScorer(nn.Module):
    """A Hugging Face vision-language model as the root of training: a packed batch in, log-probs of its targets out.

    Wrapping makes every use of the model one forward of the FSDP root. Takes what `packing.pack` makes.
    Raises ValueError for a model whose layers do not all attend in full: the packed rows' mask would not hold there.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        text = model.config.get_text_config()
        self.vocabulary: int = text.vocab_size
        kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or text._attn_implementation not in ("sdpa", "eager"):
            raise ValueError(
                f"packed rows need full attention through sdpa or eager, not {sorted(kinds)} through "
                f"{text._attn_implementation}. Load the model with attn_implementation='sdpa'."
            )
        self._additive_mask: bool = text._attn_implementation == "eager"
        self.family = family_of(model)
        self.model = model

    def forward(self, inputs: Batch) -> tuple[Tensor, Tensor]:
        """(log-probs [N] float32, hits [N] bool) of `inputs["targets"]`. See `token_logprobs`."""
        mask = inputs["visible"]
        if self._additive_mask:
            mask = torch.zeros(mask.shape, dtype=self.model.dtype, device=mask.device).masked_fill(
                ~mask, torch.finfo(self.model.dtype).min
            )
        hidden_BLH = self.model.model(
            input_ids=inputs["input_ids"],
            position_ids=self.family.positions(inputs["position_ids"]),
            attention_mask=self.family.attention(mask),
            use_cache=False,
            **self.family.media(self.model.model, inputs),
        ).last_hidden_state
        scored_NH = hidden_BLH.flatten(0, 1)[inputs["sources"]]
        return token_logprobs(scored_NH, inputs["targets"], self.model.lm_head, self.vocabulary)

    def decoder_layers(self) -> list[nn.Module]:
        """The text model's layers: units that every rank runs in every step, whatever media it holds."""
        return list(self.model.model.language_model.layers)


FORWARD_KEYS = ("input_ids", "position_ids", "visible", "sources", "targets", *MEDIA_KEYS)


def forward_inputs(batch: Batch, device: torch.device) -> Batch:
    """The part of a packed batch that TokenScorer takes, on `device`."""
    return {key: batch[key].to(device, non_blocking=True) for key in FORWARD_KEYS if key in batch}
