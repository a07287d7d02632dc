"""Optimizers and the learning-rate schedule."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW, Optimizer

from fsdp_utils.muon import Muon, split_params
from unified_reward.config import TrainLoopConfig
from unified_reward.config.stages import Optimizer as OptimizerName

BETAS = (0.9, 0.98)  # a shorter second moment than AdamW's usual 0.999: runs here last hundreds of steps, not 100,000


def build_optimizers(root: nn.Module, config: TrainLoopConfig) -> list[Optimizer]:
    """The optimizers of the trainable parameters; after sharding. Muon takes hidden matrices, AdamW everything else.

    Raises ValueError when nothing is trainable.
    """
    rate, decay = config.learning_rate, config.weight_decay
    matrices, rest = split_params(root)
    if config.optimizer is OptimizerName.ADAMW:
        matrices, rest = {}, {**matrices, **rest}
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices.values(), lr=rate, weight_decay=decay))
    if rest:
        # fused: one kernel over all parameters, where the plain loop costs ten dispatches per DTensor
        optimizers.append(AdamW(rest.values(), lr=rate, betas=BETAS, weight_decay=decay, fused=True))
    if not optimizers:
        raise ValueError("the model has no trainable parameter")
    return optimizers


def schedule(step: int, config: TrainLoopConfig) -> float:
    """Share of the peak learning rate in step `step` (0-based): linear warm-up, hold, linear decay to nearly 0.

    The last step still learns: it has 1/n of the peak, n being the steps of the decay.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay_steps = round(config.steps * config.decay_fraction)
    decay = min(1.0, (config.steps - step) / decay_steps) if decay_steps else 1.0
    return min(warmup, decay)


def set_learning_rate(optimizers: Sequence[Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
